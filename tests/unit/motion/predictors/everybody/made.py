"""A made-up clip, a filter, and a filter's answer for the clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from research.methods.everybody.motion import EverybodyClip, add_to, solved, windows_of
from research.motion.ridge import Filter, RidgeSums
from services.motion.predictors.everybody.network import WINDOW_SIZE
from services.motion.predictors.everybody.predictor import NUM_INPUTS, WINDOW, WINDOW_PAST


def clip(seed: int, num_frames: int = 150) -> EverybodyClip:
    """Expression that follows one channel of the frame itself, and another one frame late."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num_frames + WINDOW - 1, 4, NUM_INPUTS)).astype(np.float32)
    here = rows[WINDOW_PAST : WINDOW_PAST + num_frames]
    before = rows[WINDOW_PAST - 1 : WINDOW_PAST - 1 + num_frames]
    expression = np.stack([here[:, 1, 3], 0.5 * before[:, 0, 7]], axis=1)
    return EverybodyClip(rows, expression, np.ones(2, np.float32), np.arange(num_frames))


def fitted(clips: Sequence[EverybodyClip], strength: float) -> Filter:
    sums = RidgeSums(WINDOW_SIZE, 2)
    for each in clips:
        add_to(sums, each, 1.0)
    return solved(sums, strength).shared


def predicted(linear: Filter, made: EverybodyClip) -> np.ndarray:
    return windows_of(made.rows).reshape(len(made.expression), -1) @ linear.weight.T + linear.bias
