"""Smoothing of points that hardly move, without lag (Everybody's Talkin', Appendix G, Algorithm 2).

The paper's filter looks back. If the mouth moved by d since the previous frame, and d is below a threshold, the frame is mixed with
the previous smoothed frame,

    l'_t = a l'_(t-1) + (1 - a) l_t,    a = exp(-s d)

so the result lags behind slow movements. This module uses the same weights in both directions: the weight of a frame k steps away
from frame t is the product of the a's between the frames, and a step above the threshold ends the window. The weights are
symmetric, so the result has no delay. The paper takes d from the mouth's centre, which would smooth away lips that open around a
resting centre. Here d is the root mean square movement of all given points.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float64

THRESHOLD_PX: Final = 1.2
"""Threshold d_th, crop pixels. A larger movement from frame to frame is never smoothed."""
STRENGTH: Final = 1.5
"""Strength s of the smoothing, 1 / crop pixel."""


def movement(points: npt.NDArray[np.floating]) -> Float64:
    """Return the root mean square movement of points [T, N, D] since the previous frame, float64 [T - 1]."""
    steps = np.diff(np.asarray(points, np.float64), axis=0)
    return np.asarray(np.sqrt((steps**2).sum(-1).mean(-1)))


def window_weights(
    moved: npt.NDArray[np.floating],
    centre: int,
    half_width: int,
    *,
    threshold: float = THRESHOLD_PX,
    strength: float = STRENGTH,
) -> Float64:
    """Return the weights of a window's frames for the smoothed frame `centre`, float64 [T] with sum 1.

    Args:
        moved: [T - 1], movement from each frame to the next, crop pixels.
        centre: row of the frame that is smoothed.
        half_width: frames on either side that count.
        threshold: movement beyond which frames have weight 0.
        strength: decay per pixel of movement.
    """
    count = len(moved) + 1
    link = np.where(np.asarray(moved) > threshold, 0.0, np.exp(-strength * np.asarray(moved, np.float64)))
    weights = np.zeros(count)
    weights[centre] = 1.0
    for step in range(1, half_width + 1):
        # Frames count only in pairs: a window with one side would pull towards that side.
        if centre - step < 0 or centre + step >= count:
            break
        both = min(weights[centre - step + 1] * link[centre - step], weights[centre + step - 1] * link[centre + step - 1])
        weights[centre - step] = weights[centre + step] = both
    return np.asarray(weights / weights.sum())
