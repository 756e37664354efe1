"""Rational time: which frame is shown when. Never a float frame rate."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.errors import InvalidRequest

MOTION_RATE: Final = Fraction(25, 1)
"""Frames a second of the grid that the motion networks work on; frame n is at n / 25 s."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Presentation times of a stream of frames: either a constant rate (frame n at n / rate) or explicit pts.

    Attributes:
        rate: frames a second, or None when `pts` is given.
        pts: int64 [T], strictly increasing, in `time_base`; or None. Time zero is where the speech begins.
        time_base: seconds a pts tick.
    """

    rate: Fraction | None = None
    pts: npt.NDArray[np.int64] | None = None
    time_base: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        if (self.rate is None) == (self.pts is None):
            raise InvalidRequest("a timeline has either a constant rate or explicit pts", field="timeline")
        if self.rate is not None and self.rate <= 0:
            raise InvalidRequest(f"frame rate must be positive, got {self.rate}", field="timeline.frame_rate")
        if self.pts is not None and (self.pts.ndim != 1 or np.any(np.diff(self.pts) <= 0)):
            raise InvalidRequest("pts must be strictly increasing", field="timeline.pts")

    @property
    def num_frames(self) -> int | None:
        """Number of frames, or None for an open-ended constant rate."""
        return None if self.pts is None else len(self.pts)

    def seconds(self, frame: int) -> Fraction:
        """Exact presentation time of a frame, seconds.

        Raises:
            InvalidRequest: the timeline has explicit pts and `frame` is beyond them.
        """
        if self.rate is not None:
            return frame / self.rate
        assert self.pts is not None
        if not 0 <= frame < len(self.pts):
            raise InvalidRequest(f"frame {frame} is outside the timeline's {len(self.pts)} frames", field="timeline.pts")
        return int(self.pts[frame]) * self.time_base
