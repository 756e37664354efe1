"""How a person holds and moves the head: distribution and pace of the head poses, and the way from scores back to poses.

A relative pose is measured from the person's reference pose. Place and size of the head in the picture drop out:

    (pitch - pitch0, yaw - yaw0, roll - roll0, (x - x0) / s0, (y - y0) / s0, log(s / s0))        rad, rad, rad, crop px, crop px, 1

Each number has its own distribution, stored as quantiles at 17 knots of the normal distribution. A correlation of the six normal
scores tells how the numbers move together (a Gaussian copula). The predictor moves six independent scores. The resulting poses have
the person's distribution and never leave the 1st to 99th percentile, however long the stream is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.common.array_types import Bool, Float64
from services.common.face.head_pose_vectors import POSE_SIZE

NUM_KNOTS: Final = 17
KNOTS: Final[Float64] = np.linspace(-2.4, 2.4, NUM_KNOTS)
"""Normal scores at which quantiles are stored."""
_PRIOR_FRAMES: Final = 25.0
"""The general speaker's quantiles count as much as this many frames of the person."""
_CORRELATION_KEPT: Final = 0.9
STEP_RANGE: Final = (0.02, 0.6)
"""Range of steps: from hardly moving to trembling."""
_UNTOUCHED: Final = 1.6
_MIN_RISE: Final = 1e-6


@dataclass(frozen=True, slots=True)
class HeadStyle:
    """How a person holds and moves the head.

    Attributes:
        reference: float64 [6], head-pose vector that relative poses are measured from, pixels of the footage.
        quantiles: float64 [6, 17], relative poses at KNOTS, increasing along the second axis.
        mixing: float64 [6, 6], matrix from independent to correlated scores: symmetric root of the scores' correlation.
        steps: float64 [6], size of each independent score's change from frame to frame (25 frames per second).
    """

    reference: Float64
    quantiles: Float64
    mixing: Float64
    steps: Float64


def relative_poses(poses: Float64, reference: Float64) -> Float64:
    """Return head-pose vectors [T, 6] relative to a reference [6]: float64 [T, 6], see the module's formula."""
    angles = np.remainder(poses[:, :3] - reference[:3] + np.pi, 2.0 * np.pi) - np.pi
    places = (poses[:, 3:5] - reference[3:5]) / reference[5]
    return np.concatenate([angles, places, np.log(poses[:, 5:] / reference[5])], axis=1)


def absolute_poses(relative: Float64, reference: Float64) -> Float64:
    """Return head-pose vectors of relative poses [T, 6]: float64 [T, 6], the inverse of relative_poses."""
    places = reference[3:5] + relative[:, 3:5] * reference[5]
    return np.concatenate([reference[:3] + relative[:, :3], places, reference[5] * np.exp(relative[:, 5:])], axis=1)


def reference_pose(poses: Float64) -> Float64:
    """Return the mean of head-pose vectors [T, 6], float64 [6]: geometric for the scale, about the median for angles."""
    middle = np.median(poses, axis=0)
    return np.asarray(absolute_poses(relative_poses(poses, middle).mean(axis=0)[None], middle)[0])


def symmetric_root(correlation: Float64) -> Float64:
    """Return the symmetric root of a positive definite matrix."""
    values, vectors = np.linalg.eigh(correlation)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 1e-6))) @ vectors.T)


def still_head(pose: Float64, general: HeadStyle) -> HeadStyle:
    """Return the style of one still frame: the general speaker's movement about the pose float64 [6]."""
    return HeadStyle(pose.copy(), general.quantiles, general.mixing, general.steps)


def measure_head(poses: Float64, usable: Bool, general: HeadStyle) -> HeadStyle:
    """Return distribution and pace of tracked head poses at 25 frames per second.

    Args:
        poses: float64 [T, 6], head-pose vectors.
        usable: bool [T], at least one frame.
        general: the general speaker, on whom the result leans if there is little footage.
    """
    reference = reference_pose(poses[usable])
    relative = relative_poses(poses, reference)
    kept = relative[usable]
    own = np.quantile(kept, [0.5 * (1.0 + math.erf(knot / math.sqrt(2.0))) for knot in KNOTS], axis=0).T
    share = len(kept) / (len(kept) + _PRIOR_FRAMES)
    quantiles = share * own + (1.0 - share) * general.quantiles
    quantiles = np.maximum.accumulate(quantiles, axis=1) + _MIN_RISE * np.arange(NUM_KNOTS)
    plain = HeadStyle(reference, quantiles, np.eye(POSE_SIZE), general.steps)
    scores = correlated_scores(relative, plain)
    centred = scores[usable] - scores[usable].mean(axis=0)
    size = np.sqrt((centred**2).mean(axis=0)) + 1e-6
    kept_share = _CORRELATION_KEPT * share
    correlation = kept_share * (centred / size).T @ (centred / size) / len(centred)
    correlation += (1.0 - kept_share) * general.mixing @ general.mixing
    mixing = symmetric_root(correlation)
    independent = scores @ np.linalg.inv(mixing).T
    together = usable[1:] & usable[:-1]
    changes = np.abs(np.diff(independent, axis=0))[together]
    # The mean instead of the root mean square: rare jumps come from the tracker, not from the person.
    found = changes.mean(axis=0) * math.sqrt(math.pi / 2.0) if len(changes) else general.steps
    steps = np.clip(share * found + (1.0 - share) * general.steps, *STEP_RANGE)
    return HeadStyle(reference, quantiles, mixing, steps)


def correlated_scores(relative: Float64, style: HeadStyle) -> Float64:
    """Return normal scores of relative poses, float64 [T, 6] in [-2.4, 2.4]."""
    columns = [np.interp(relative[:, axis], style.quantiles[axis], KNOTS) for axis in range(POSE_SIZE)]
    return np.stack(columns, axis=1)


def independent_scores(poses: Float64, style: HeadStyle) -> Float64:
    """Return the independent scores of head-pose vectors [T, 6]: float64 [T, 6], targets of a predictor."""
    scores = correlated_scores(relative_poses(poses, style.reference), style)
    return np.asarray(scores @ np.linalg.inv(style.mixing).T)


def within_knots(scores: Float64) -> Float64:
    """Return scores brought smoothly into [-2.4, 2.4]. Scores within [-1.6, 1.6] stay as they are."""
    room = KNOTS[-1] - _UNTOUCHED
    beyond = np.maximum(np.abs(scores) - _UNTOUCHED, 0.0)
    return np.asarray(np.sign(scores) * (np.minimum(np.abs(scores), _UNTOUCHED) + room * np.tanh(beyond / room)))


class PoseMap:
    """Map from independent scores to head poses of one person: smooth, increasing along every axis, and bounded."""

    def __init__(self, style: HeadStyle) -> None:
        self._style = style
        self._slopes = np.stack([_monotone_slopes(row) for row in style.quantiles])

    def pose(self, scores: Float64) -> Float64:
        """Return the head-pose vector of independent scores: float64 [6] -> [6]."""
        mixed = within_knots(self._style.mixing @ scores)
        width = KNOTS[1] - KNOTS[0]
        index = np.minimum(((mixed - KNOTS[0]) / width).astype(np.intp), NUM_KNOTS - 2)
        axes = np.arange(POSE_SIZE)
        u = (mixed - KNOTS[index]) / width
        low, high = self._style.quantiles[axes, index], self._style.quantiles[axes, index + 1]
        from_low, to_high = width * self._slopes[axes, index], width * self._slopes[axes, index + 1]
        rise = u * u * (3.0 - 2.0 * u)
        relative = low + rise * (high - low) + u * (1.0 - u) ** 2 * from_low - u * u * (1.0 - u) * to_high
        return np.asarray(absolute_poses(relative[None], self._style.reference)[0])


def _monotone_slopes(values: Float64) -> Float64:
    """Return slopes at the knots of a monotone cubic (Fritsch and Butland 1984: harmonic means); 0 at both ends, against bumps."""
    rises = np.diff(values) / (KNOTS[1] - KNOTS[0])
    before, after = rises[:-1], rises[1:]
    inner = np.where(before * after > 0.0, 2.0 * before * after / np.maximum(before + after, 1e-12), 0.0)
    return np.concatenate([[0.0], inner, [0.0]])
