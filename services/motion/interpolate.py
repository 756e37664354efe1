"""Catmull-Rom interpolation in time: from the fixed 25 frames/s grid to any output timeline."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from services.common.array_types import Array
from services.common.wire.timeline import MOTION_RATE


@dataclass(frozen=True, slots=True)
class GridPosition:
    """A time on the motion grid: at `fraction` in [0, 1) of the way from frame `index` to the next frame."""

    index: int
    fraction: Fraction

    @property
    def last_needed(self) -> int:
        """Last grid frame that the interpolation reads: the frame itself on the grid, otherwise two frames ahead."""
        return self.index if self.fraction == 0 else self.index + 2


def grid_position(seconds: Fraction) -> GridPosition:
    """Return the exact position of a time on the motion grid."""
    at = seconds * MOTION_RATE
    index = at.numerator // at.denominator
    return GridPosition(index, at - index)


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
