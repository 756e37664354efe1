"""The linear layer per person: a scale and an offset for each expression coefficient.

Everyone's paper takes the speech-driven model from Imitator (Thambiraja et al. 2023). Its last layer transforms each expression
parameter by itself, and only this layer is trained on a person:

    e'_k = s_k e_k + o_k

Here a ridge regression fits the layer in closed form. The prior is the layer that changes nothing (s = 1, o = 0):

    minimise  sum_t (y_k - s_k e_k - o_k)^2 + r V_k (s_k - 1)^2 + r o_k^2

y are the person's true coefficients in units of the person's spread, V_k is the variance of e_k, and the ridge r counts frames.
Cross-validation over blocks of about a second of the enrolment chooses r. All coefficients share r.
"""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np

from services.common.array_types import Float32, Float64
from services.common.chassis.calls import check_still_wanted

RIDGES: Final = (25.0, 50.0, 100.0, 200.0, 400.0, 800.0)
"""Ridges that cross-validation chooses from, in frames."""
LARGEST_SCALE: Final = 2.0
"""Scales stay within 0 and this number: a person with hardly any predicted movement must not be blown up."""
_BLOCK_FRAMES: Final = 25
_MIN_BLOCKS: Final = 5
_Numbers = TypeVar("_Numbers", Float32, Float64)


def apply_layer(layer: Float32, coefficients: _Numbers) -> _Numbers:
    """Return the person's coefficients, [..., E] of the type of the input.

    Args:
        layer: float32 [2, E], scales and offsets.
        coefficients: float32 or float64 [..., E], in units of the person's spread.
    """
    return np.asarray(layer[0] * coefficients + layer[1], coefficients.dtype)


def fit_layer(predicted: Float64, target: Float64, weight: Float64) -> Float32:
    """Return a person's layer, float32 [2, E]: scales, then offsets.

    Args:
        predicted: float64 [T, E], coefficients that the network predicts; T >= 10.
        target: float64 [T, E], true coefficients.
        weight: float64 [E], weight of the squared error of each coefficient in the choice of the ridge.
    """
    everything = np.arange(len(predicted))
    blocks = np.array_split(everything, max(_MIN_BLOCKS, round(len(predicted) / _BLOCK_FRAMES)))
    losses = []
    for ridge in RIDGES:
        check_still_wanted()
        left = 0.0
        for block in blocks:
            keep = np.setdiff1d(everything, block)
            scale, offset = _solve(predicted[keep], target[keep], ridge)
            left += float(((target[block] - scale * predicted[block] - offset) ** 2 * weight).sum())
        losses.append(left)
    return np.stack(_solve(predicted, target, RIDGES[int(np.argmin(losses))])).astype(np.float32)


def _solve(predicted: Float64, target: Float64, ridge: float) -> tuple[Float64, Float64]:
    """Return scales and offsets, float64 [E] each, of the minimum for a ridge."""
    count = len(predicted)
    variance = predicted.var(axis=0) + 1e-9
    missed = target - predicted
    # The equations of (s - 1) and o; both unknowns are shrunk to 0.
    a, b, d = (predicted**2).sum(axis=0) + ridge * variance, predicted.sum(axis=0), count + ridge
    p, q = (predicted * missed).sum(axis=0), missed.sum(axis=0)
    change = (d * p - b * q) / (a * d - b * b)
    scale = np.clip(1.0 + change, 0.0, LARGEST_SCALE)
    offset = (target - scale * predicted).sum(axis=0) / d
    return scale, offset
