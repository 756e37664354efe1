"""The second of speech that `everybody` hears of a frame, and what a person's correction of it sees: that window pooled over time.

Everybody's Talkin', Sec. 3.2.2: the window reaches from 0.8 s before a frame's time to 0.2 s after it, which is the 20 grid frames
before it, itself, and four after it. It is pooled by six Gaussians, wide in the past and narrow about the frame: few enough numbers
that ten seconds of a person determine a correction (adapt/correction.py).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.motion.features import BANDS
from services.motion.types import NUM_CEPSTRA, ROWS_PER_FRAME, Float32

EXPRESSION_PAST: Final = 20
"""0.8 s before the frame."""
EXPRESSION_AHEAD: Final = 4
"""Frames after the emitted one: 0.2 s after its time, 160 ms of features after its own."""
EXPRESSION_WINDOW: Final = EXPRESSION_PAST + 1 + EXPRESSION_AHEAD
NUM_HEARD: Final = NUM_CEPSTRA + len(BANDS)
"""Channels of a row of the window: ID-removed cepstra, then relative band energies."""
_CENTRES: Final = np.array([-7.0, -4.0, -2.25, -0.75, 0.75, 2.25])[:, None]
_WIDTHS: Final = np.array([2.5, 1.3, 0.8, 0.7, 0.7, 0.8])[:, None]
"""Of the Gaussians that pool a window: frames from the predicted one, and standard deviations in frames."""
NUM_POOLED_WINDOW: Final = len(_CENTRES) * NUM_HEARD + 1
"""Numbers of a pooled window."""


def _pooling() -> Float32:
    rows = (np.arange(EXPRESSION_WINDOW * ROWS_PER_FRAME) + 0.5) / ROWS_PER_FRAME - 0.5 - EXPRESSION_PAST
    bumps = np.exp(-0.5 * ((rows - _CENTRES) / _WIDTHS) ** 2)
    return np.asarray(bumps / bumps.sum(axis=1, keepdims=True), np.float32)


_POOLING: Final = _pooling()


def pooled_window(window: Float32) -> Float32:
    """What a person's correction sees of a window float32 [25, 4, 24]: float32 [145], the last one 1."""
    return np.append(_POOLING @ window.reshape(-1, NUM_HEARD), np.float32(1.0)).astype(np.float32)
