"""What a person's correction of the predictors `ugc` and `headpose` sees of speech: a window pooled over time.

    c' = c + C p,     p = 5 Gaussian means over time of 21 articulations and 4 band energies, and 1

Sounds that look alike on the lips share a channel, and the means are wide in the past and narrow about the frame: few enough
numbers that ten seconds of a person determine C (adapt/correction.py).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from services.motion.features import ARTICULATIONS, BANDS, articulation_rows
from services.motion.types import ROWS_PER_FRAME, Float32

_CENTRES: Final = np.array([-4.0, -2.25, -0.75, 0.75, 2.25])[:, None]
_WIDTHS: Final = np.array([1.5, 0.8, 0.7, 0.7, 0.8])[:, None]
"""Frames from the predicted one, and standard deviations in frames."""
_ENERGY_SCALE: Final = np.float32(0.5)
NUM_POOLED: Final = len(_CENTRES) * (len(ARTICULATIONS) + len(BANDS)) + 1


def pooled_speech(window: Float32, past: int) -> Float32:
    """Content rows of a window float32 [W, 4, 44] whose frame `past` is predicted: float32 [126], the last one 1."""
    pooling = _pooling(len(window) * ROWS_PER_FRAME, past)
    heard = articulation_rows(window).reshape(pooling.shape[1], -1)
    heard[:, len(ARTICULATIONS) :] *= _ENERGY_SCALE
    return np.append(pooling @ heard, 1.0).astype(np.float32)


@lru_cache
def _pooling(num_rows: int, past: int) -> npt.NDArray[np.float64]:
    """Weights of rows in each mean, float64 [5, num_rows]; the same for every frame."""
    rows = (np.arange(num_rows) + 0.5) / ROWS_PER_FRAME - 0.5 - past
    bumps = np.exp(-0.5 * ((rows - _CENTRES) / _WIDTHS) ** 2)
    return np.asarray(bumps / bumps.sum(axis=1, keepdims=True))
