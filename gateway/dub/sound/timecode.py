"""Times in a video: seconds, or timecodes as editors write them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from gateway.dub.choices import EXPECTED_TIME
from gateway.media.types import VideoInfo
from services.common.errors import InvalidRequestError

_FRAMES: Final = re.compile(r"(\d{1,3}):([0-5]\d):([0-5]\d)([:;])(\d{1,3})", re.ASCII)
_CLOCK: Final = re.compile(r"(?:(\d{1,3}):)?([0-5]?\d):([0-5]\d(?:\.\d{1,9})?)", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,7}(?:\.\d{1,9})?", re.ASCII)
_DROPPED: Final = 30_000 / 1001
"""Frame rate whose drop-frame timecodes leave out two numbers a minute. Its double leaves out four."""


@dataclass(frozen=True, slots=True)
class VideoTime:
    """A time in a video, counted from the first frame.

    Attributes:
        seconds: time, seconds; of a timecode with frames: the seconds without the frames.
        frames: frames of a timecode; None: the time has none.
        drop: whether the timecode is drop-frame.
    """

    seconds: Fraction
    frames: int | None = None
    drop: bool = False

    def frame_in(self, video: VideoInfo) -> int:
        """Return the frame of a video at this time: the nearest one.

        Raises:
            InvalidRequestError: the video ends before this time, or the timecode has a frame that the video's rate does not have.
        """
        if self.frames is not None:
            return self._counted(video)
        times = video.pts - video.pts[0]
        if self.seconds >= video.duration:
            raise _too_late(float(self.seconds), video)
        ticks = float(self.seconds / video.time_base)
        return int(np.abs(times - ticks).argmin())

    def first_frame_in(self, video: VideoInfo) -> int:
        """Return the first frame of a video at or after this time; within the time of the last frame: the last frame.

        Raises:
            InvalidRequestError: as `frame_in`.
        """
        nearest = self.frame_in(video)
        if self.frames is not None:
            return nearest
        first = int(np.searchsorted(video.pts - video.pts[0], math.ceil(self.seconds / video.time_base)))
        return min(first, video.num_frames - 1)

    def _counted(self, video: VideoInfo) -> int:
        assert self.frames is not None
        nominal = round(video.average_rate)
        if self.frames >= nominal:
            raise InvalidRequestError(
                f"a video of {nominal} frames per second has no frame {self.frames} in a second", field="start"
            )
        frame = int(self.seconds) * nominal + self.frames
        if self.drop:
            left_out = round(2 * float(video.average_rate) / _DROPPED)
            if nominal % 30 or abs(float(video.average_rate) - nominal * 1000 / 1001) > 0.01:
                raise InvalidRequestError("drop-frame timecodes (;) are for 29.97 and 59.94 frames per second", field="start")
            minutes = int(self.seconds) // 60
            frame -= left_out * (minutes - minutes // 10)
        if frame >= video.num_frames:
            raise _too_late(float(frame / video.average_rate), video)
        return frame


def _too_late(seconds: float, video: VideoInfo) -> InvalidRequestError:
    return InvalidRequestError(
        f"{seconds:.3f} s is after the end of the video ({float(video.duration):.3f} s, {video.num_frames} frames)", field="start"
    )


def parse_time(text: str) -> VideoTime:
    """Return the time that a text describes.

    Raises:
        InvalidRequestError: the text is no time.
    """
    if _NUMBER.fullmatch(text):
        return VideoTime(Fraction(text))
    if match := _FRAMES.fullmatch(text):
        hours, minutes, seconds = (int(match[group]) for group in (1, 2, 3))
        return VideoTime(Fraction(3600 * hours + 60 * minutes + seconds), int(match[5]), match[4] == ";")
    if match := _CLOCK.fullmatch(text):
        return VideoTime(3600 * int(match[1] or 0) + 60 * int(match[2]) + Fraction(match[3]))
    raise InvalidRequestError(f"{text[:80]!r} is no time: give {EXPECTED_TIME}", field="start")
