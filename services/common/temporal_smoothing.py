"""Smoothing of what hardly moves, without lag (everybody, appendix G, algorithm 2).

The paper's filter looks back: where the mouth moved by d since the frame before, and d is under a threshold, the frame is mixed
with the smoothed one before it,

    l'_t = a l'_(t-1) + (1 - a) l_t,    a = exp(-s d)

which trails behind slow movements. Here the same weights are laid in both directions: seen from frame t, the frame k steps away
counts with the product of the a's on the way there, and a step over the threshold cuts the way off. The weights are symmetric, so
nothing is delayed. The paper takes d from the mouth's centre; lips that open around a resting centre would be smoothed away by
that, so d is the root mean square movement of all points given.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

THRESHOLD_PX: Final = 1.2
"""Movement from frame to frame, crop pixels, that is never smoothed: d_th."""
STRENGTH: Final = 1.5
"""s, 1 / crop pixel."""


def movement(points: npt.NDArray[np.floating]) -> Float64:
    """Root mean square movement of points [T, N, D] since the frame before, float64 [T - 1]."""
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
    """How much each frame of a window counts for its frame `centre`, float64 [T] with sum 1.

    Args:
        moved: [T - 1], movement from each frame to the next, crop pixels.
        centre: row of the frame that is smoothed.
        half_width: frames on either side that count.
        threshold: movement that cuts off what lies behind it.
        strength: decay a pixel of movement.
    """
    count = len(moved) + 1
    link = np.where(np.asarray(moved) > threshold, 0.0, np.exp(-strength * np.asarray(moved, np.float64)))
    weights = np.zeros(count)
    weights[centre] = 1.0
    for step in range(1, half_width + 1):
        # Only whole pairs: a window that is cut off on one side alone would pull towards the other.
        if centre - step < 0 or centre + step >= count:
            break
        both = min(weights[centre - step + 1] * link[centre - step], weights[centre + step - 1] * link[centre + step - 1])
        weights[centre - step] = weights[centre + step] = both
    return np.asarray(weights / weights.sum())


def smooth_movement(
    values: npt.NDArray[np.floating],
    points: npt.NDArray[np.floating],
    half_width: int = 3,
    *,
    threshold: float = THRESHOLD_PX,
    strength: float = STRENGTH,
) -> Float64:
    """Values of T frames smoothed where the points hardly move, float64 [T, K].

    Args:
        values: [T, K], such as expression coefficients, or the points themselves laid flat.
        points: [T, N, D], what tells the movement, crop pixels.
        half_width: frames on either side that count; 0 changes nothing.
        threshold: see `window_weights`.
        strength: see `window_weights`.
    """
    given = np.asarray(values, np.float64)
    moved = movement(points)
    result = np.empty_like(given)
    for frame in range(len(given)):
        first = max(0, frame - half_width)
        window = given[first : frame + half_width + 1]
        steps = moved[first : first + len(window) - 1]
        result[frame] = window_weights(steps, frame - first, half_width, threshold=threshold, strength=strength) @ window
    return result
