"""A part of a video as a video of its own: the same samples, the same times from 0 on, the first sound track, and a timecode.

Pictures are FFV1 and sound is FLAC, both lossless, so that a dub of a part has the samples of the video that the part was cut from.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from gateway.media.encoders import WriteSettings, choose_encoder
from gateway.media.reader import VideoReader
from gateway.media.sound import SoundReader
from gateway.media.types import DecodedFrame, MediaInfo
from gateway.media.writer import VideoWriter

PART_SUFFIX: Final = ".mp4"
"""Ending of a part. MP4 keeps every time, and holds FFV1."""


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
