"""Exact times of frames, and values between frames. A frame rate is a fraction, never a float."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Array
from services.common.errors import InvalidRequestError

MOTION_RATE: Final = Fraction(25, 1)
"""Frames per second of the grid of the motion networks; frame n is at n / 25 s."""
MIN_RATE: Final = Fraction(1, 3600)
MAX_RATE: Final = Fraction(1000)
"""Largest frame rate of footage, frames per second: a high-speed camera. The smallest, MIN_RATE, is a time lapse of a frame per
hour."""
MAX_FRAMES: Final = 10_000_000
"""Frames of one timeline: 111 h at 25 frames/s."""
MAX_SPAN_S: Final = 120 * 3600
"""Largest time of a frame before or after time zero, seconds."""
_MAX_TICKS: Final = 10**12
"""Largest numerator and denominator of a time base: far finer than any container's, and quick in exact arithmetic."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Presentation times of a stream of frames: either a constant rate (frame n at n / rate) or explicit pts.

    Attributes:
        rate: frames per second, or None when `pts` is given.
        pts: int64 [T], strictly increasing, in `time_base`; or None. Time zero is the beginning of the speech.
        time_base: seconds per tick of `pts`.
    """

    rate: Fraction | None = None
    pts: npt.NDArray[np.int64] | None = None
    time_base: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        if (self.rate is None) == (self.pts is None):
            raise InvalidRequestError("a timeline has either a constant rate or explicit pts", field="timeline")
        if self.rate is not None and self.rate <= 0:
            raise InvalidRequestError(f"frame rate must be positive, got {self.rate}", field="timeline.frame_rate")
        if self.pts is not None and (self.pts.ndim != 1 or np.any(np.diff(self.pts) <= 0)):
            raise InvalidRequestError("pts must be strictly increasing", field="timeline.pts")

    @property
    def num_frames(self) -> int | None:
        """Number of frames, or None for an open-ended constant rate."""
        return None if self.pts is None else len(self.pts)

    def seconds(self, frame: int) -> Fraction:
        """Return the exact presentation time of a frame, seconds.

        Raises:
            InvalidRequestError: the timeline has explicit pts and `frame` is beyond them.
        """
        if self.rate is not None:
            return frame / self.rate
        assert self.pts is not None
        if not 0 <= frame < len(self.pts):
            raise InvalidRequestError(f"frame {frame} is outside the timeline's {len(self.pts)} frames", field="timeline.pts")
        return int(self.pts[frame]) * self.time_base


def check_rate(rate: Fraction, field: str) -> None:
    """Raise InvalidRequestError where a frame rate lies outside MIN_RATE to MAX_RATE."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InvalidRequestError(
            f"{field}: {_short(rate)} frames per second are not between {MIN_RATE} and {MAX_RATE}: give the footage's own rate",
            field=field,
        )


def check_times(pts: npt.NDArray[np.int64], time_base: Fraction, field: str) -> None:
    """Check explicit times: increasing, at most MAX_RATE frames in any second, none further than MAX_SPAN_S from time zero.

    Args:
        pts: int64 [T], in `time_base`.
        time_base: seconds per tick.
        field: errors name `<field>.pts` and `<field>.time_base`.

    Raises:
        InvalidRequestError: a check fails. The message names the first frame that fails.
    """
    if max(time_base.numerator, time_base.denominator) > _MAX_TICKS:
        raise InvalidRequestError(
            f"{field}.time_base: {_short(time_base)} s per tick has more than {_MAX_TICKS} in its numerator or denominator",
            field=f"{field}.time_base",
        )
    if not len(pts):
        return
    # Bounds are checked first: differences of bounded numbers do not overflow.
    limit = int(MAX_SPAN_S / time_base)
    far = np.flatnonzero((pts > limit) | (pts < -limit))
    if len(far):
        raise InvalidRequestError(
            f"{field}.pts: frame {far[0]} is shown {MAX_SPAN_S // 3600} h or more from time zero (pts {pts[far[0]]}, "
            f"{_short(time_base)} s per tick)",
            field=f"{field}.pts",
        )
    falls = np.flatnonzero(np.diff(pts) <= 0)
    if len(falls):
        at = int(falls[0])
        raise InvalidRequestError(
            f"{field}.pts: must be strictly increasing, but {pts[at + 1]} (frame {at + 1}) comes after {pts[at]}",
            field=f"{field}.pts",
        )
    apart = int(MAX_RATE)
    dense = np.flatnonzero(pts[apart:] - pts[:-apart] < math.ceil(1 / time_base))
    if len(dense):
        raise InvalidRequestError(
            f"{field}.pts: more than {MAX_RATE} frames per second from frame {dense[0]} on", field=f"{field}.pts"
        )


def check_span(timeline: Timeline, num_frames: int, field: str) -> None:
    """Raise InvalidRequestError where the last of a timeline's first frames is shown later than MAX_SPAN_S."""
    if num_frames > 0 and timeline.seconds(num_frames - 1) > MAX_SPAN_S:
        raise InvalidRequestError(
            f"{field}: the last of {num_frames} frames would be shown after more than {MAX_SPAN_S // 3600} h: ask for fewer",
            field=field,
        )


def catmull_rom(before: Array, left: Array, right: Array, after: Array, fraction: float) -> Array:
    """Return the cubic through `left` (fraction 0) and `right` (1) with the slopes (right - before) / 2 and (after - left) / 2."""
    u, u2, u3 = fraction, fraction**2, fraction**3
    weights = (
        0.5 * (-u3 + 2.0 * u2 - u),
        0.5 * (3.0 * u3 - 5.0 * u2 + 2.0),
        0.5 * (-3.0 * u3 + 4.0 * u2 + u),
        0.5 * (u3 - u2),
    )
    total = sum(weight * value for weight, value in zip(weights, (before, left, right, after), strict=True))
    return np.asarray(total, dtype=left.dtype)


def sampled(frames: Array, fraction: float) -> Array:
    """Return the values between frames: frame n of the result lies at n + fraction. Beyond either end, the end's frame is repeated.

    Args:
        frames: values of consecutive frames, [T, ...].
        fraction: part of a frame, more than -1 and less than 1.
    """
    if fraction == 0.0:
        return frames
    first = math.floor(fraction)
    positions = np.arange(len(frames)) + first
    before, left, right, after = (frames[np.clip(positions + step, 0, len(frames) - 1)] for step in (-1, 0, 1, 2))
    return catmull_rom(before, left, right, after, fraction - first)


def _short(value: Fraction) -> str:
    return f"{value.numerator}/{value.denominator}"
