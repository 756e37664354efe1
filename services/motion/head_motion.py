"""Head movement of a person: distribution and pace of the head poses, head scores from speech, and poses from scores.

A relative pose is measured from the person's reference pose. Place and size of the head in the picture drop out:

    (pitch - pitch0, yaw - yaw0, roll - roll0, (x - x0) / s0, (y - y0) / s0, log(s / s0))        rad, rad, rad, crop px, crop px, 1

Each number has its own distribution, stored as quantiles at 17 knots of the normal distribution. A correlation of the six normal
scores tells how the numbers move together (a Gaussian copula). The predictor moves six independent scores. The resulting poses have
the person's distribution and never leave the 1st to 99th percentile, however long the stream is.

Head scores come from thirteen signals of the speech, weighted and slowed down to the person's pace:

    z_k = F_{p_k}(w_k . r),     r = (6 poses of the LSTM, loudness, 6 drives),    F_p: three times y += (1 - p) (x - y)

The LSTM answers the mean of all poses that fit the sound, which hardly moves: the sound does not tell most of how a head moves. The
drives, fixed mixtures of what is said, add the movement that is missing from the person's spread. So the head moves with the
rhythm of the speech and rests in pauses, and the same speech always moves the head alike. There are no random numbers. Weights
are scaled so that a score has variance 1 over speech. The pole p is chosen so that the score changes from frame to frame as much
as the person's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from services.common.array_types import Array, Bool, Float32, Float64
from services.common.face.crops import POSE_SIZE
from services.motion.types import NUM_PHONES

NUM_SIGNALS: Final = 2 * POSE_SIZE + 1
LOUDNESS: Final = POSE_SIZE
NUM_DRIVES: Final = POSE_SIZE
NUM_STAGES: Final = 3
"""Stages of the filter. With three stages, speed and acceleration are smooth too."""
NUM_LAGS: Final = 48
"""Number of lags, in frames, of the signals' autocovariance."""
DEFAULT_TRUST: Final = 0.3
"""Share (a correlation) of the LSTM's pose in a score of a person without personalisation."""
_PRIOR_FRAMES_OF_RHYTHM: Final = 50.0
_MEMORY_FRAMES: Final = 250.0
_LEVEL_PRIOR_FRAMES: Final = 100.0
_LEVEL_MEMORY_FRAMES: Final = 500.0
_LEAST_SQUARE: Final = 0.2
"""Least mean square that scores are divided by, so that speech with little content moves the head less."""
_POLES: Final[Float64] = np.linspace(0.3, 0.97, 68)
_RESPONSE: Final = 400
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
class RhythmConstants:
    """Statistics of the signals on the training clips.

    Attributes:
        pose_mean, pose_scale: float64 [6], mean and standard deviation of the LSTM's pose over speech.
        loudness_mean, loudness_scale: mean and standard deviation of the mean relative band energy over speech.
        content_mean: float64 [44], mean content row over speech.
        projection: float64 [6, 44], matrix from content to drives of variance 1.
        autocovariance: float64 [48, 13, 13], autocovariance of the signals at lags 0..47, symmetric in the signals.
    """

    pose_mean: Float64
    pose_scale: Float64
    loudness_mean: float
    loudness_scale: float
    content_mean: Float64
    projection: Float64
    autocovariance: Float64


class SignalStream:
    """Signals of a stream, frame by frame.

    Each signal is measured from its mean over about ten seconds of speech before the frame; the mean starts at the training's. So a
    voice or a language unlike the training's does not hold the head aslant. All signals are 0 where nobody speaks.
    """

    def __init__(self, constants: RhythmConstants) -> None:
        self._constants = constants
        self._mean = np.zeros(NUM_SIGNALS)
        self._speech_frames = _PRIOR_FRAMES_OF_RHYTHM

    def array(self) -> Float64:
        """Return the state before the next frame, float64 [14]: the mean, and the frames that it is of."""
        return np.append(self._mean, self._speech_frames)

    def resume(self, array: Float64) -> None:
        """Go on as the stream whose `array` this is."""
        # The state comes from a caller. A stream never counts fewer frames.
        self._mean, self._speech_frames = array[:-1].copy(), max(float(array[-1]), _PRIOR_FRAMES_OF_RHYTHM)

    def push(self, pose: Float32, content: Float32, speech_probability: float) -> Float64:
        """Return the signals of the next frame, float64 [13].

        Args:
            pose: float32 [6], the LSTM's answer for the frame.
            content: float32 [4, 44], content rows of the frame.
        """
        constants = self._constants
        row = content.astype(np.float64).mean(axis=0)
        signals = np.empty(NUM_SIGNALS)
        signals[:POSE_SIZE] = (pose - constants.pose_mean) / constants.pose_scale
        signals[LOUDNESS] = (row[NUM_PHONES:].mean() - constants.loudness_mean) / constants.loudness_scale
        # A sum of products has a fixed order; the library may order a matrix product of this size otherwise.
        signals[LOUDNESS + 1 :] = (constants.projection * (row - constants.content_mean)).sum(axis=1)
        self._speech_frames = min(self._speech_frames + speech_probability, _MEMORY_FRAMES)
        self._mean += speech_probability / self._speech_frames * (signals - self._mean)
        return np.asarray(speech_probability * (signals - self._mean))


@cache
def _overlap(pole: float) -> Float64:
    """Return the autocorrelation of the filter's impulse response at lags -(NUM_LAGS - 1) .. NUM_LAGS - 1."""
    pulse = np.zeros(_RESPONSE)
    pulse[0] = 1.0
    response = slowed_down(pulse[:, None], np.array([pole]))[:, 0]
    full = np.correlate(response, response, mode="full")
    return np.asarray(full[_RESPONSE - NUM_LAGS : _RESPONSE + NUM_LAGS - 1])


def slowed_down(values: Float64, poles: Float64) -> Float64:
    """Return whole sequences after the filter, which starts at 0: float64 [T, K], poles [K] -> [T, K]."""
    state = np.zeros((NUM_STAGES, len(poles)))
    result = np.empty_like(values, np.float64)
    for frame, row in enumerate(values):
        result[frame] = advance(state, row, poles)
    return result


def advance(state: Float64, row: Float64, poles: Float64) -> Float64:
    """Run one frame of the filter: change `state` [3, K] and return the output [K]."""
    value = row
    for stage in range(NUM_STAGES):
        state[stage] += (1.0 - poles) * (value - state[stage])
        value = state[stage]
    return value.copy()


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Relation of one person's scores to the signals: weights float64 [6, 13], scaled to variance 1, and poles float64 [6]."""

    weights: Float64
    poles: Float64


class ScoreStream:
    """Scores of a stream, frame by frame: the filter, and a level that keeps the scores' variance near 1 for any speech.

    Free speech changes more slowly than the sentences of which the autocovariance was measured. So scores are divided by the root
    of their mean square over about the last twenty seconds of speech, in which variance 1 counts as four seconds.
    """

    def __init__(self, rhythm: Rhythm) -> None:
        self._rhythm = rhythm
        self._state = np.zeros((NUM_STAGES, POSE_SIZE))
        self._square = np.ones(POSE_SIZE)
        self._frames = _LEVEL_PRIOR_FRAMES

    def arrays(self) -> dict[str, Float64]:
        """Return the state before the next frame: the filter, float64 [3, 6]; mean square and its frames, float64 [7]."""
        return {"head.filter": self._state.copy(), "head.level": np.append(self._square, self._frames)}

    def resume(self, arrays: Mapping[str, Array]) -> None:
        """Go on as the stream whose `arrays` these are."""
        level = np.asarray(arrays["head.level"], np.float64)
        self._state = np.array(arrays["head.filter"], np.float64)
        self._square, self._frames = level[:-1].copy(), max(float(level[-1]), _LEVEL_PRIOR_FRAMES)

    def push(self, signals: Float64, speech_probability: float) -> Float64:
        """Return the scores float64 [6] of the next frame from signals float64 [13]. Silent frames do not count for the level."""
        # A sum of products has a fixed order; the library may order a matrix product of this size otherwise.
        scores = advance(self._state, (self._rhythm.weights * signals).sum(axis=1), self._rhythm.poles)
        self._frames = min(self._frames + speech_probability, _LEVEL_MEMORY_FRAMES)
        self._square += speech_probability * (scores**2 - self._square) / self._frames
        return np.asarray(scores / np.sqrt(np.maximum(self._square, _LEAST_SQUARE)))


def tuned(weights: Float64, steps: Float64, constants: RhythmConstants) -> Rhythm:
    """Return poles for which scores change from frame to frame by `steps`, and weights for which the scores have variance 1.

    Args:
        weights: float64 [6, 13], weights of the signals up to scale.
        steps: float64 [6], see HeadStyle.
        constants: see RhythmConstants.
    """
    scaled, poles = np.empty_like(weights), np.empty(POSE_SIZE)
    for axis, (row, step) in enumerate(zip(weights, steps, strict=True)):
        lags = np.einsum("i,lij,j->l", row, constants.autocovariance, row)
        sizes, changes = np.array([_size_and_change(lags, float(pole)) for pole in _POLES]).T
        ratio = changes / sizes
        # The ratio falls as the pole grows.
        poles[axis] = np.interp(-step, -np.maximum.accumulate(ratio[::-1])[::-1], _POLES)
        scaled[axis] = row / np.interp(poles[axis], _POLES, sizes)
    return Rhythm(scaled, poles)


def _size_and_change(lags: Float64, pole: float) -> tuple[float, float]:
    """Return the standard deviations of a filtered signal and of its change per frame; `lags` [48] is the autocovariance."""
    overlap = _overlap(pole)
    both_sides = np.concatenate([lags[:0:-1], lags])
    now = float(overlap @ both_sides)
    next_one = float(overlap[:-1] @ both_sides[1:])
    return float(np.sqrt(max(now, 1e-9))), float(np.sqrt(max(2.0 * (now - next_one), 1e-12)))


def general_weights() -> Float64:
    """Return the weights without personalisation, float64 [6, 13]: each score follows the LSTM and the drive of its number."""
    weights = np.zeros((POSE_SIZE, NUM_SIGNALS))
    axes = np.arange(POSE_SIZE)
    weights[axes, axes] = DEFAULT_TRUST
    weights[axes, LOUDNESS + 1 + axes] = np.sqrt(1.0 - DEFAULT_TRUST**2)
    return weights


@dataclass(frozen=True, slots=True)
class HeadStyle:
    """Distribution and pace of a person's head poses.

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
    positions = (poses[:, 3:5] - reference[3:5]) / reference[5]
    return np.concatenate([angles, positions, np.log(poses[:, 5:] / reference[5])], axis=1)


def absolute_poses(relative: Float64, reference: Float64) -> Float64:
    """Return head-pose vectors of relative poses [T, 6]: float64 [T, 6], the inverse of relative_poses."""
    positions = reference[3:5] + relative[:, 3:5] * reference[5]
    return np.concatenate([reference[:3] + relative[:, :3], positions, reference[5] * np.exp(relative[:, 5:])], axis=1)


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
    # The mean is taken instead of the root mean square: rare jumps come from the tracker, not from the person.
    own_steps = changes.mean(axis=0) * math.sqrt(math.pi / 2.0) if len(changes) else general.steps
    steps = np.clip(share * own_steps + (1.0 - share) * general.steps, *STEP_RANGE)
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
