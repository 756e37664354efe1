"""A memory of the person's own moments: a correction for minutes of footage, beside the linear correction of the coefficients.

    c' = c + C p + W k,     k_m = exp(-|p - p_m|^2 / s)

p is the pooled speech around the frame (pooled_speech.py), p_m that of NUM_MOMENTS frames of the person's footage. So the person's
mouth at a sound is remembered together with the sounds around it, which a linear correction cannot. This is a kernel ridge
regression on NUM_MOMENTS centres (Williams and Seeger 2000, Nystroem's method). In some seconds of footage no two moments are
alike, so a memory of seconds holds nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from services.common.array_types import Float32, Float64
from services.motion.correction import choose_ridge, fit_correction
from services.motion.personalization import Missed
from services.motion.pooled_speech import NUM_POOLED
from services.motion.style import Style

NUM_MOMENTS: Final = 256
MOMENTS: Final = "landmark_moments"
"""Name of the style's array of p_m, float32 [256, 125]."""
MEMORY: Final = "landmark_memory"
"""Name of the style's array W, float32 [K, 256]."""
MIN_FRAMES: Final = 500
"""Fewest frames (20 s) that a memory is made from."""
_WIDTH: Final = 10.0
"""s, in squared units of the pooled speech: the median distance of two moments of six people."""
_SHARE: Final = 4.0
"""How much more than a unit of pooled speech a moment may weigh for the same ridge."""
_JITTER: Final = 1e-3


def remembered(pooled: Float32, style: Style) -> Float32 | None:
    """Return W k of a frame, float32 [K], in units of the person's spread; None: the style has no memory.

    Args:
        pooled: float32 [126], pooled speech of the frame; the last number is 1.
        style: the person.
    """
    moments, weights = style.added.get(MOMENTS), style.added.get(MEMORY)
    if moments is None or weights is None:
        return None
    return np.asarray(weights @ _nearness(pooled[None, :-1], moments)[0], np.float32)


class Memory(NamedTuple):
    """A correction with a memory.

    Attributes:
        slopes: float32 [K, 126], the linear correction beside the memory, with the offset in the last column.
        moments: float32 [256, 125], p_m.
        weights: float32 [K, 256], W.
        loss: squared error that remains on held-out blocks, relative to no correction.
    """

    slopes: Float32
    moments: Float32
    weights: Float32
    loss: float


def learned_memory(missed: Missed, weight: Float64, loss: float) -> Memory | None:
    """Return the correction with a memory; None: cross-validation finds that the memory does not help, or the footage is short.

    Args:
        missed: what the network misses on the person's footage.
        weight: float64 [K], weight of the squared error of each coefficient.
        loss: squared error that the linear correction leaves on held-out blocks (RidgeChoice.loss).
    """
    count = len(missed.pooled)
    if count < MIN_FRAMES:
        return None
    heard = missed.pooled[:, :-1]
    moments = heard[np.linspace(0, count - 1, NUM_MOMENTS).round().astype(int)].astype(np.float32)
    # In whitened coordinates, the ridge on W k is the norm of the kernel's function space.
    values, vectors = np.linalg.eigh(_nearness(moments, moments) + _JITTER * np.eye(NUM_MOMENTS))
    whitening = _SHARE * vectors / np.sqrt(values)
    inputs = np.concatenate([heard, _nearness(heard, moments) @ whitening, missed.pooled[:, -1:]], axis=1)
    choice = choose_ridge(inputs, missed.residual, weight)
    if choice.loss >= loss:
        return None
    found = fit_correction(inputs, missed.residual, choice.ridge).astype(np.float64)
    slopes, weights = found[:, [*range(NUM_POOLED - 1), -1]], found[:, NUM_POOLED - 1 : -1] @ whitening.T
    return Memory(slopes.astype(np.float32), moments, weights.astype(np.float32), choice.loss)


def _nearness(pooled: Float32 | Float64, moments: Float32) -> Float64:
    """Return k of frames, float64 [T, M]: pooled [T, 125], moments [M, 125]."""
    heard, known = np.asarray(pooled, np.float64), np.asarray(moments, np.float64)
    squared = (heard**2).sum(axis=1)[:, None] + (known**2).sum(axis=1)[None] - 2.0 * heard @ known.T
    return np.asarray(np.exp(-np.maximum(squared, 0.0) / _WIDTH))
