"""Several takes of a person as one video: their pictures and sounds one after the other.

Enrolment reads one video. A person's footage often lies in several files, of one camera or of many. The joined video is as wide as
the widest and as high as the highest take. A smaller take lies in the upper left corner, in its own resolution, on black.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
import soxr

from gateway.media.encoders import WriteSettings
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.sound import SoundReader, Speech
from gateway.media.stills import frame_of_picture, is_still, plain_video_info
from gateway.media.types import MediaInfo, VideoInfo
from gateway.media.voice import only_voice
from gateway.media.writer import VideoWriter
from services.common.array_types import Float32, Int64, UInt8
from services.common.errors import InvalidRequestError

TAKES_SUFFIX: Final = ".mp4"
"""Ending of a joined video. MP4 keeps every time."""
MAX_TAKES: Final = 16
_TIME_BASE: Final = Fraction(1, 90_000)
_SOUND_HZ: Final = 48_000
_CRF: Final = 8
"""Quality of the joined video: the bank takes detail of the size of a pixel from the video."""


@dataclass(frozen=True, slots=True)
class Take:
    """A part of the joined video.

    Attributes:
        num_frames: frames of the take that the video shows, the first ones.
        begin_s: time of the take's first frame in the video, seconds.
        end_s: time at which the take ends in the video, seconds.
    """

    info: MediaInfo
    num_frames: int
    begin_s: Fraction
    end_s: Fraction

    def pts(self) -> Int64:
        """Return the presentation times of the shown frames in the video, int64 [num_frames], ticks of 1 / 90,000 s."""
        video = self.info.video
        own = (video.pts[: self.num_frames] - video.pts[0]).astype(np.float64) * float(video.time_base / _TIME_BASE)
        return np.asarray(np.rint(own), np.int64) + round(self.begin_s / _TIME_BASE)


def check_number_of_takes(files: int) -> None:
    """Check the number of files of footage, before any of them is read.

    Raises:
        InvalidRequestError: there are more than MAX_TAKES.
    """
    if files > MAX_TAKES:
        raise InvalidRequestError(f"{files} files of footage were given; at most {MAX_TAKES} are joined", field="footage")


def takes_in_order(infos: Sequence[MediaInfo], most_s: Fraction) -> list[Take]:
    """Return the takes of a joined video of at most `most_s` seconds. What comes later is left out.

    Raises:
        InvalidRequestError: there are more than MAX_TAKES, or one is a single picture.
    """
    check_number_of_takes(len(infos))
    takes: list[Take] = []
    begin = Fraction(0)
    for info in infos:
        if is_still(info):
            raise InvalidRequestError(
                f"{info.path} is a single picture: a picture cannot be joined to other footage", field="footage"
            )
        video = info.video
        seconds = (video.pts - video.pts[0]).astype(np.float64) * float(video.time_base)
        shown = int(np.searchsorted(seconds, float(most_s - begin)))
        if not shown:
            break
        end = min(begin + video.duration, most_s)
        takes.append(Take(info, shown, begin, end))
        begin = end
    return takes


def join_takes(takes: Sequence[Take], target: Path, *, threads: int, on_frame: Callable[[int, int], None]) -> MediaInfo:
    """Write the joined video, and return its description. The first sound track of each take is kept, in mono.

    Args:
        takes: from `takes_in_order`, at least one.
        target: video to write, ending in TAKES_SUFFIX.
        threads: threads of decoder and encoder.
        on_frame: called with the number of written frames and of all frames.

    Raises:
        MediaUnsupportedError: a take breaks off or cannot be decoded.
        StorageFullError: no space is left.
    """
    video = _joined_info(takes)
    speech = Speech(_SOUND_HZ, 1, _Sound(tuple(takes))) if any(take.info.audio for take in takes) else None
    settings = WriteSettings(codec="h264", crf=_CRF, carry=False, threads=threads, overwrite=True)
    total, done = video.video.num_frames, 0
    with VideoWriter(target, video, speech=speech, settings=settings) as writer:
        for take in takes:
            with VideoReader(take.info, threads=threads) as reader:
                for frame in reader.frames(0, take.num_frames):
                    writer.write(frame_of_picture(_on_canvas(to_rgb(frame), video.video), done, video.video))
                    done += 1
                    on_frame(done, total)
    return joined_info(takes, target)


def joined_info(takes: Sequence[Take], target: Path) -> MediaInfo:
    """Return the description of a joined video that was written.

    Args:
        takes: the takes that it joins.
        target: the video.

    Raises:
        MediaUnsupportedError: the video cannot be read.
    """
    info = probe(target)
    # Combs are smoothed if any take has them: the smoothing looks for combs first.
    order = next((take.info.video.field_order for take in takes if take.info.video.interlaced), info.video.field_order)
    return replace(info, video=replace(info.video, field_order=order))


def _joined_info(takes: Sequence[Take]) -> MediaInfo:
    """Return the description of the video to write."""
    first = takes[0].info
    sizes = [take.info.video.orientation.upright_size for take in takes]
    width, height = (max(side) + max(side) % 2 for side in zip(*sizes, strict=True))
    pts = np.concatenate([take.pts() for take in takes])
    pts.setflags(write=False)
    video = replace(
        plain_video_info(first.video, width, height),
        codec="h264",
        time_base=_TIME_BASE,
        pts=pts,
        last_duration=max(1, round(takes[-1].end_s / _TIME_BASE) - int(pts[-1])),
        metadata={},
    )
    return replace(first, video=video, audio=(), others=(), metadata={})


def _on_canvas(picture: UInt8, video: VideoInfo) -> UInt8:
    """Return a picture, uint8 [h, w, 3], in the upper left corner of a black picture of the video's size."""
    if picture.shape[:2] == (video.height, video.width):
        return picture
    canvas = np.zeros((video.height, video.width, 3), np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    return canvas


@dataclass(frozen=True, slots=True)
class _Sound:
    """The sound of the joined video in pieces, float32 [samples, 1]. Every iteration begins with the first sample."""

    takes: tuple[Take, ...]

    def __iter__(self) -> Iterator[Float32]:
        for take in self.takes:
            left = round(take.end_s * _SOUND_HZ) - round(take.begin_s * _SOUND_HZ)
            for piece in _mono(take.info):
                if left <= 0:
                    break
                yield piece[:left, None]
                left -= len(piece)
            if left > 0:
                yield np.zeros((left, 1), np.float32)


def _mono(info: MediaInfo) -> Iterator[Float32]:
    """Yield the first sound track of a take from its first frame on, float32 [samples] at 48 kHz; nothing if there is none."""
    if not info.audio:
        return
    sound = only_voice(SoundReader(info.path, origin=info.video.start).speech())
    stream = soxr.ResampleStream(sound.sample_rate_hz, _SOUND_HZ, 1, dtype="float32", quality="VHQ")
    for chunk in sound.chunks:
        yield np.asarray(stream.resample_chunk(chunk.mean(axis=1)), np.float32)
    yield np.asarray(stream.resample_chunk(np.zeros(0, np.float32), last=True), np.float32)
