"""A person's correction of what a predictor answers, from seconds of their footage; every method has its own.

    c' = c + C p,     C = argmin |residual - C p|^2 + ridge |C|^2

c are the predictor's coefficients, p is the speech about the frame, pooled over time: few enough numbers that seconds determine C.
What changes over seconds (a smile, the tracker's drift with the head) is not told by the sound: slopes are learned from deviations
within stretches of two seconds, and only the offset from their level. Closed form: no random numbers.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.calls import check_still_wanted
from services.motion.types import Float32

_Float64 = npt.NDArray[np.float64]

RIDGE: Final = 20.0
"""Against squared residuals in units of the person's spread, summed over frames."""
RIDGES: Final = (20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
"""What cross-validation chooses from."""
_STRETCH_FRAMES: Final = 50
_OFFSET_PRIOR_FRAMES: Final = 20.0
"""An offset of 0 counts as much as this many frames of the person."""
_BLOCK_FRAMES: Final = 25
_MIN_BLOCKS: Final = 5


class RidgeChoice(NamedTuple):
    """A ridge, and the squared error that its correction leaves on frames it has not seen, relative to no correction."""

    ridge: float
    loss: float


def fit_correction(pooled: _Float64, residual: _Float64, ridge: float = RIDGE) -> Float32:
    """The correction C of a person, float32 [K, P], the offset in its last column.

    Args:
        pooled: float64 [T, P], pooled speech of the person's frames, in the order of time; its last column is 1.
        residual: float64 [T, K], true less predicted coefficients, in units of the person's spread.
        ridge: how much it takes to believe a slope, > 0.
    """
    count = len(pooled)
    heard, missed = pooled[:, :-1].copy(), residual.copy()
    for stretch in np.array_split(np.arange(count), max(1, round(count / _STRETCH_FRAMES))):
        heard[stretch] -= heard[stretch].mean(axis=0)
        missed[stretch] -= missed[stretch].mean(axis=0)
    slopes = np.linalg.solve(heard.T @ heard + ridge * np.eye(heard.shape[1]), heard.T @ missed)
    offset = (residual - pooled[:, :-1] @ slopes).mean(axis=0) * count / (count + _OFFSET_PRIOR_FRAMES)
    return np.concatenate([slopes, offset[None]]).T.astype(np.float32)


def choose_ridge(pooled: _Float64, residual: _Float64, weight: _Float64) -> RidgeChoice:
    """The ridge of RIDGES whose slopes hold best on blocks of about a second that are left out in turn.

    A block is judged by its deviations from its own mean: its level differs from the others' by more than slopes can win.

    Args:
        pooled: float64 [T, P], as of fit_correction, T >= 10.
        residual: float64 [T, K].
        weight: float64 [K], what a unit of squared error of each coefficient costs.
    """
    everything = np.arange(len(pooled))
    blocks = np.array_split(everything, max(_MIN_BLOCKS, round(len(pooled) / _BLOCK_FRAMES)))
    without = sum(float((_about_mean(residual[block]) ** 2 * weight).sum()) for block in blocks)
    losses = []
    for ridge in RIDGES:
        left = 0.0
        for block in blocks:
            check_still_wanted()
            keep = np.setdiff1d(everything, block)
            correction = fit_correction(pooled[keep], residual[keep], ridge)
            left += float((_about_mean(residual[block] - pooled[block] @ correction.T) ** 2 * weight).sum())
        losses.append(left / max(without, 1e-9))
    best = int(np.argmin(losses))
    return RidgeChoice(RIDGES[best], losses[best])


def _about_mean(values: _Float64) -> _Float64:
    return np.asarray(values - values.mean(axis=0))
