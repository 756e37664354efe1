"""From the fixed 25 frames/s grid to any output timeline: Catmull-Rom in time."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from services.common.timeline import MOTION_RATE
from services.motion.types import Float32


@dataclass(frozen=True, slots=True)
class GridPosition:
    """A time on the motion grid: `fraction` in [0, 1) of the way from frame `index` to the next."""

    index: int
    fraction: Fraction

    @property
    def last_needed(self) -> int:
        """Last grid frame that the interpolation reads: none ahead on the grid itself, two between its frames."""
        return self.index if self.fraction == 0 else self.index + 2


def grid_position(seconds: Fraction) -> GridPosition:
    """Where a time lies on the motion grid, exactly."""
    at = seconds * MOTION_RATE
    index = at.numerator // at.denominator
    return GridPosition(index, at - index)


def cubic(
    before: npt.NDArray[Any], left: npt.NDArray[Any], right: npt.NDArray[Any], after: npt.NDArray[Any], fraction: float
) -> npt.NDArray[Any]:
    """Cubic through `left` (fraction 0) and `right` (1) with the slopes (right - before) / 2 and (after - left) / 2."""
    u, u2, u3 = fraction, fraction**2, fraction**3
    weights = (
        0.5 * (-u3 + 2.0 * u2 - u),
        0.5 * (3.0 * u3 - 5.0 * u2 + 2.0),
        0.5 * (-3.0 * u3 + 4.0 * u2 + u),
        0.5 * (u3 - u2),
    )
    total = sum(weight * value for weight, value in zip(weights, (before, left, right, after), strict=True))
    return np.asarray(total, dtype=left.dtype)


def catmull_rom(before: Float32, left: Float32, right: Float32, after: Float32, fraction: float) -> Float32:
    """`cubic` of mouths."""
    return np.asarray(cubic(before, left, right, after, fraction), dtype=np.float32)


def resample(values: Float32, seconds: npt.NDArray[np.float64], rate: float) -> Float32:
    """Catmull-Rom at any times; ends are held.

    Args:
        values: float32 [T, ...], frame n at n / rate.
        seconds: float64 [N].
        rate: frames a second of `values`.

    Returns:
        float32 [N, ...].
    """
    at = np.clip(seconds * rate, 0.0, len(values) - 1.0)
    index = np.minimum(at.astype(np.intp), max(len(values) - 2, 0))
    last = len(values) - 1
    pick = [values[np.clip(index + step, 0, last)] for step in (-1, 0, 1, 2)]
    fraction = (at - index).reshape((-1,) + (1,) * (values.ndim - 1))
    u, u2, u3 = fraction, fraction**2, fraction**3
    total = 0.5 * (
        (-u3 + 2 * u2 - u) * pick[0] + (3 * u3 - 5 * u2 + 2) * pick[1] + (-3 * u3 + 4 * u2 + u) * pick[2] + (u3 - u2) * pick[3]
    )
    return np.asarray(total, dtype=np.float32)
