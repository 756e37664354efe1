"""A made-up clip, and a filter's answer for the clip."""

from __future__ import annotations

import numpy as np

from services.motion.predictors.everybody.inputs import NUM_HEARD, WINDOW, WINDOW_PAST
from services.motion.predictors.everybody.train.data import EverybodyClip, windows_of
from services.motion.train.ridge import Filter


def clip(speaker: str, seed: int, num_frames: int = 150) -> EverybodyClip:
    """Expression that follows one channel of the frame itself, and another one frame late."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num_frames + WINDOW - 1, 4, NUM_HEARD)).astype(np.float32)
    here = rows[WINDOW_PAST : WINDOW_PAST + num_frames]
    before = rows[WINDOW_PAST - 1 : WINDOW_PAST - 1 + num_frames]
    expression = np.stack([here[:, 1, 3], 0.5 * before[:, 0, 7]], axis=1)
    return EverybodyClip(speaker, rows, expression, np.ones(2, np.float32), np.arange(num_frames))


def predicted(linear: Filter, made: EverybodyClip) -> np.ndarray:
    return windows_of(made.rows).reshape(len(made.expression), -1) @ linear.weight.T + linear.bias
