"""A person's correction of a predictor's answer, learned from seconds or minutes of footage. Each predictor has its own.

    c' = c + C p,     C = argmin |residual - C p|^2 + ridge |C|^2

c are the predictor's coefficients. p is the speech around the frame, pooled over time to so few numbers that seconds of footage
determine C. The sound does not tell what changes over seconds (a smile, the tracker's drift with the head). So the slopes are
learned from deviations within stretches of two seconds, and only the offset is learned from the level. The solution has a closed
form without random numbers.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64
from services.common.server.call_context import check_not_cancelled

RIDGE: Final = 20.0
"""Default ridge, in units of the squared spread of the person, summed over frames."""
RIDGES: Final = (20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
"""Ridges that cross-validation chooses from."""
_STRETCH_FRAMES: Final = 50
_OFFSET_PRIOR_FRAMES: Final = 20.0
"""An offset of 0 counts as much as this many frames of the person."""
_BLOCK_FRAMES: Final = 25
_MIN_BLOCKS: Final = 5
_MAX_FOLDS: Final = 10
"""Most corrections that cross-validation fits for a ridge: one for each second of ten seconds. In longer footage, blocks that lie
this many blocks apart are held out together."""


class RidgeChoice(NamedTuple):
    """A ridge, and the squared error that remains on held-out frames, relative to no correction."""

    ridge: float
    loss: float


def fit_correction(pooled: Float64, residual: Float64, ridge: float = RIDGE) -> Float32:
    """Return the correction C of a person, float32 [K, P], with the offset in the last column.

    Args:
        pooled: float64 [T, P], pooled speech of the person's frames in the order of time. The last column is 1.
        residual: float64 [T, K], true less predicted coefficients, in units of the person's spread.
        ridge: strength of the penalty on slopes, > 0.
    """
    return _NormalEquations.of(pooled, residual).solved(ridge)


def choose_ridge(pooled: Float64, residual: Float64, weight: Float64) -> RidgeChoice:
    """Return the ridge of RIDGES whose slopes predict held-out blocks of about a second best.

    Only a block's deviations from its own mean count, because the levels of blocks differ by more than slopes can explain.

    Args:
        pooled: float64 [T, P], see fit_correction; T >= 10.
        residual: float64 [T, K], see fit_correction.
        weight: float64 [K], weight of the squared error of each coefficient.
    """
    folds = _folds(len(pooled))
    without = sum(float((_about_mean(residual[block]) ** 2 * weight).sum()) for fold in folds for block in fold)
    left = [0.0] * len(RIDGES)
    for fold in folds:
        keep = np.setdiff1d(np.arange(len(pooled)), np.concatenate(fold))
        equations = _NormalEquations.of(pooled[keep], residual[keep])
        for index, ridge in enumerate(RIDGES):
            check_not_cancelled()
            correction = equations.solved(ridge)
            for block in fold:
                left[index] += float((_about_mean(residual[block] - pooled[block] @ correction.T) ** 2 * weight).sum())
    losses = [each / max(without, 1e-9) for each in left]
    best = int(np.argmin(losses))
    return RidgeChoice(RIDGES[best], losses[best])


def held_out_corrections(pooled: Float64, residual: Float64, ridge: float) -> Float64:
    """Return C p of every frame, float64 [T, K], with a C that was learned without the frame's block of about a second.

    Args:
        pooled: float64 [T, P], see fit_correction; T >= 10.
        residual: float64 [T, K], see fit_correction.
        ridge: see fit_correction.
    """
    predicted = np.zeros_like(residual)
    for fold in _folds(len(pooled)):
        check_not_cancelled()
        held = np.concatenate(fold)
        keep = np.setdiff1d(np.arange(len(pooled)), held)
        predicted[held] = pooled[held] @ fit_correction(pooled[keep], residual[keep], ridge).T
    return predicted


class _NormalEquations(NamedTuple):
    """Sums that a correction of some frames is solved from, for any ridge.

    Attributes:
        gram: float64 [P - 1, P - 1], products of the pooled speech's deviations.
        cross: float64 [P - 1, K], products of these with the residual's deviations.
        pooled: float64 [T, P - 1], without the constant.
        residual: float64 [T, K].
    """

    gram: Float64
    cross: Float64
    pooled: Float64
    residual: Float64

    @classmethod
    def of(cls, pooled: Float64, residual: Float64) -> _NormalEquations:
        """Return the equations of frames (see fit_correction)."""
        inputs, missed = pooled[:, :-1].copy(), residual.copy()
        for stretch in np.array_split(np.arange(len(pooled)), max(1, round(len(pooled) / _STRETCH_FRAMES))):
            inputs[stretch] -= inputs[stretch].mean(axis=0)
            missed[stretch] -= missed[stretch].mean(axis=0)
        return cls(inputs.T @ inputs, inputs.T @ missed, pooled[:, :-1], residual)

    def solved(self, ridge: float) -> Float32:
        """Return the correction for a ridge, float32 [K, P]."""
        count = len(self.pooled)
        slopes = np.linalg.solve(self.gram + ridge * np.eye(len(self.gram)), self.cross)
        offset = (self.residual - self.pooled @ slopes).mean(axis=0) * count / (count + _OFFSET_PRIOR_FRAMES)
        return np.concatenate([slopes, offset[None]]).T.astype(np.float32)


def _folds(count: int) -> list[list[npt.NDArray[np.intp]]]:
    """Return the blocks of about a second, by the fold in which they are held out together. Every frame is in one block."""
    blocks = np.array_split(np.arange(count), max(_MIN_BLOCKS, round(count / _BLOCK_FRAMES)))
    return [blocks[fold::_MAX_FOLDS] for fold in range(min(_MAX_FOLDS, len(blocks)))]


def _about_mean(values: Float64) -> Float64:
    return np.asarray(values - values.mean(axis=0))
