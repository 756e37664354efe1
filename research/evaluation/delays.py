"""How much later a mouth moves than the true mouth: over all frames, and about vowels and closures.

Curves are those of services/common/wire/mouth_curves.py.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from services.common.array_types import Float64, Floating
from services.common.wire.mouth_curves import SIGNS, Trigger, extreme, vertex

MIN_EVENTS: Final = 5
"""Fewest phones of two triggered averages over the same phones."""
MIN_DELAY_FRAMES: Final = 25
"""Fewest known frames of two curves whose delay is measured."""
DELAYS_MS: Final[Float64] = np.arange(-200.0, 201.0, 10.0)
"""float64 [D], delays at which two curves are compared, milliseconds."""
_CONSTANT: Final = 1e-9
"""Product of the norms of two curves up to which one of them counts as constant."""
_SHALLOW: Final = 0.2
"""A triggered average whose extreme is shallower than this share of the other average's has no extreme to compare."""


def shift_ms(truth: Float64, result: Float64, trigger: Trigger) -> float:
    """Return how much later a result reaches the extreme of a phone than the truth, milliseconds.

    Both are averaged over the phones on which both are known. The extreme of an average is the vertex of the parabola through the
    points within 80 ms of the largest (vowel) or smallest (closure) point that lies at most 160 ms from the phone. The parabola is
    fitted again about its vertex. With noise of the tracker of .5 px, nine of ten clips of 7 s and more are right within 2 ms.

    Args:
        truth, result: float64 [E, W], curves about the same phones (around_phones).
        trigger: the kind of phone.

    Returns:
        Milliseconds, positive: the result is late; NaN: fewer than MIN_EVENTS phones, or one average has no extreme.
    """
    both = np.isfinite(truth).all(axis=1) & np.isfinite(result).all(axis=1)
    if int(both.sum()) < MIN_EVENTS:
        return math.nan
    (before, height), (after, reached) = (extreme(SIGNS[trigger] * curves[both].mean(axis=0)) for curves in (truth, result))
    return 1e3 * (after - before) if reached >= _SHALLOW * height else math.nan


def at_delays(curve: Floating, seconds: Float64) -> Float64:
    """Return a curve moved earlier by each of DELAYS_MS, float64 [D, T], by linear interpolation; NaN: not known.

    Args:
        curve: float [T], T >= 1.
        seconds: float64 [T], times of the frames, ascending.
    """
    return np.interp(seconds + DELAYS_MS[:, None] / 1e3, seconds, curve.astype(np.float64), left=np.nan, right=np.nan)


def delay_ms(truth: Floating, delayed: Float64) -> float:
    """Return how much later a result moves than the truth: the delay at which Pearson's r of both curves is largest.

        r_d = r(truth(t), result(t + d))

    r is compared at DELAYS_MS. The largest r is refined by the parabola through the r within 80 ms about it, fitted again about its
    vertex: interpolation between frames smooths noise, so that r has ripples of a frame's length, which a wide parabola averages.
    Planted delays of six real openings of 4 to 6 s are found within 1 ms up to 80 ms, within 7 ms with 1 px of tracker noise, and
    within 15 ms up to 150 ms.

    Args:
        truth: float [T], NaN where unknown.
        delayed: float64 [D, T], the result at each delay (at_delays), at the same frames. Both may repeat frames or leave some out.

    Returns:
        Milliseconds, -200 to 200, positive: the result is late. -200 or 200: the delay is at least as large. NaN: at some delay
        fewer than MIN_DELAY_FRAMES frames are known, or one curve is constant.
    """
    finite = np.isfinite(truth) & np.isfinite(delayed)
    counts = finite.sum(axis=1)
    if counts.min() < MIN_DELAY_FRAMES:
        return math.nan
    # A subtracted mean keeps the sums of squares precise.
    middle = float(truth[np.isfinite(truth)].mean())
    a, b = (np.where(finite, curve - middle, 0.0).astype(np.float64) for curve in (truth, delayed))
    sum_a, sum_b = a.sum(axis=1), b.sum(axis=1)
    covariance = np.einsum("dn,dn->d", a, b) - sum_a * sum_b / counts
    squares = (np.einsum("dn,dn->d", a, a) - sum_a**2 / counts) * (np.einsum("dn,dn->d", b, b) - sum_b**2 / counts)
    norms = np.sqrt(np.maximum(squares, 0.0))
    if norms.min() <= _CONSTANT:
        return math.nan
    r = covariance / norms
    top = int(np.argmax(r))
    if top in (0, len(r) - 1):
        return float(DELAYS_MS[top])
    seconds = DELAYS_MS / 1e3
    return 1e3 * vertex(seconds, r, float(seconds[top]), float(seconds[-1]))
