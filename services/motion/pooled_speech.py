"""Pooled speech: a window of content rows, pooled over time to the input of a person's correction (correction.py).

    c' = c + C p,     p = 5 Gaussian means over time of 21 articulations and 4 band energies, and 1

Sounds that look alike on the lips share a channel. The means are wide in the past and narrow about the frame. So p has so few
numbers that ten seconds of a person determine C.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from services.common.array_types import Float32, Float64
from services.motion.features import ARTICULATIONS, BANDS, articulation_rows
from services.motion.types import ROWS_PER_FRAME

_CENTRES: Final = np.array([-4.0, -2.25, -0.75, 0.75, 2.25])[:, None]
_WIDTHS: Final = np.array([1.5, 0.8, 0.7, 0.7, 0.8])[:, None]
"""Centres of the means in frames from the predicted frame, and standard deviations in frames."""
_ENERGY_SCALE: Final = np.float32(0.5)
NUM_POOLED: Final = len(_CENTRES) * (len(ARTICULATIONS) + len(BANDS)) + 1


def pooled_speech(window: Float32, past: int) -> Float32:
    """Return the pooled speech of content rows [W, 4, 44] whose frame `past` is predicted: float32 [126], the last number 1."""
    pooling = _pooling(len(window) * ROWS_PER_FRAME, past)
    heard = articulation_rows(window).reshape(pooling.shape[1], -1)
    heard[:, len(ARTICULATIONS) :] *= _ENERGY_SCALE
    return np.append(pooling @ heard, 1.0).astype(np.float32)


@lru_cache
def _pooling(num_rows: int, past: int) -> Float64:
    """Return the weights of rows in each mean, float64 [5, num_rows]; the same for every frame."""
    rows = (np.arange(num_rows) + 0.5) / ROWS_PER_FRAME - 0.5 - past
    bumps = np.exp(-0.5 * ((rows - _CENTRES) / _WIDTHS) ** 2)
    return np.asarray(bumps / bumps.sum(axis=1, keepdims=True))
