"""A part of a video as a video of its own: the same samples, the same times from 0 on, the first sound track, and a timecode.

Pictures are FFV1 and sound is FLAC, both lossless, so that a dub of a part has the samples of the video that the part was cut from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import av
import numpy as np

from gateway.media.encoders import WriteSettings, choose_encoder
from gateway.media.reader import VideoReader
from gateway.media.sound import SoundReader
from gateway.media.types import DecodedFrame, MediaInfo
from gateway.media.writer import VideoWriter
from services.common.array_types import Float32
from services.common.files import PARTIAL

PART_SUFFIX: Final = ".mp4"
"""Ending of a part. MP4 keeps every time, and holds FFV1."""


def timecode_of(info: MediaInfo) -> str:
    """Return the timecode of a video's first frame as the file states it; empty: the file states none."""
    return _tag(info, "timecode")


def reel_of(info: MediaInfo) -> str:
    """Return the reel name of a video as the file states it; empty: the file states none."""
    return _tag(info, "reel_name")


def _tag(info: MediaInfo, name: str) -> str:
    tag_sets = (info.video.metadata, *(other.metadata for other in info.others), info.metadata)
    return next((tags[name] for tags in tag_sets if tags.get(name)), "")


def check_part(info: MediaInfo) -> None:
    """Check that parts of a video can be written. No frame is decoded.

    Raises:
        MediaUnsupportedError: FFV1 has no such samples, or the sound cannot be read.
    """
    settings = WriteSettings(codec="ffv1")
    choose_encoder(Path(f"part{PART_SUFFIX}"), info.video, settings.codec, settings.crf)
    if info.audio:
        SoundReader(info.path)


def write_part(info: MediaInfo, frames: range, target: Path, *, timecode: str) -> None:
    """Write a part of a video. A file of this name is replaced. Blocks.

    Args:
        info: the video.
        frames: frames of the part, at least one.
        target: video to write, ending in PART_SUFFIX.
        timecode: timecode of the part's first frame, HH:MM:SS:FF, or HH:MM:SS;FF for drop frame.

    Raises:
        InvalidRequestError: the folder of the target is missing or may not be written.
        MediaUnsupportedError: the video breaks off or cannot be decoded, or FFV1 has no such samples.
        StorageFullError: no space is left.
    """
    video = info.video
    origin = int(video.pts[frames.start])
    pts = video.pts[frames.start : frames.stop] - origin
    pts.setflags(write=False)
    end = int(video.pts[frames.stop]) if frames.stop < video.num_frames else int(video.pts[-1]) + video.last_duration
    part = replace(
        info,
        video=replace(video, pts=pts, last_duration=end - origin - int(pts[-1]), metadata={"timecode": timecode}),
        audio=(),
        others=(),
        metadata={},
    )
    speech = SoundReader(info.path, origin=origin * video.time_base, seek=True).speech() if info.audio else None
    settings = WriteSettings(codec="ffv1", carry=False, overwrite=True)
    with VideoWriter(target, part, speech=speech, settings=settings) as writer, VideoReader(info) as reader:
        for frame in reader.frames_from(frames.start, frames.stop):
            index = frame.index - frames.start
            writer.write(DecodedFrame(index, int(pts[index]), frame.planes, frame.picture, part.video))


@dataclass(frozen=True, slots=True)
class _Tail:
    """The samples of a sound file from a sample on, float32 [samples, channels] each. Every iteration reads the file anew."""

    reader: SoundReader
    first: int

    def __iter__(self) -> Iterator[Float32]:
        for chunk in self.reader:
            samples = chunk.samples[max(self.first - chunk.start_sample, 0) :]
            if len(samples):
                yield samples


def write_sound_from(source: Path, first_sample: int, target: Path) -> None:
    """Write a sound file from a sample on, as WAV with 32-bit floating point samples. A file of this name is replaced. Blocks.

    Raises:
        MediaUnsupportedError: the file cannot be read, or has no sound.
        OSError: the target cannot be written.
    """
    reader = SoundReader(source)
    partial = target.with_name(f"{target.name}{PARTIAL}")
    try:
        with av.open(str(partial), "w", format="wav") as output:
            stream = output.add_stream("pcm_f32le", rate=reader.info.sample_rate_hz, layout=reader.info.layout)
            assert isinstance(stream, av.AudioStream)
            for samples in _Tail(reader, first_sample):
                packed = np.ascontiguousarray(samples.reshape(1, -1), dtype=np.float32)
                frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=reader.info.layout)
                frame.sample_rate = reader.info.sample_rate_hz
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def sound_length(source: Path) -> tuple[int, int]:
    """Return the number of samples of a sound file and its sample rate, Hz. Reads the whole file. Blocks.

    Raises:
        MediaUnsupportedError: the file cannot be read, or has no sound.
    """
    reader = SoundReader(source)
    reader.check_sound()
    return sum(len(chunk.samples) for chunk in reader), reader.info.sample_rate_hz
