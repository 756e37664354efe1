"""What a person's speech tells of the person's head movement: weights of the signals and pace of the head, from tracked footage.

For each of the six independent scores of the person (head_style.py), ridge regression on the signals of the speech after the
filter of the person's pace (head_rhythm.py). Cross-validation over blocks measures how far the regression holds.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Bool, Float32, Float64
from services.common.face.head_pose_vectors import POSE_SIZE
from services.motion.models import MotionModels
from services.motion.personalization import NUM_BLOCKS
from services.motion.predictors.headpose.head_rhythm import ScoreStream, general_weights, slowed_down, tuned
from services.motion.predictors.headpose.head_style import STEP_RANGE, HeadStyle, PoseMap, relative_poses
from services.motion.predictors.headpose.model import HeadposeModel

_RIDGE: Final = 0.3
"""Ridge in units of a signal's variance times the number of frames; large, because neighbouring frames tell the same."""
_SAME_SIGNALS: Final = 1e-12
"""Variance of all signals together, at or below which they are the same in every frame: the footage is silent."""
_MAX_TRUST: Final = 0.8
_PACE_RANGE: Final = (0.5, 1.5)


def fit_weights(heard: Float64, scores: Float64, steps: Float64, frames: Bool, models: MotionModels) -> Float64:
    """Return the weights of the signals for each score, float64 [6, 13].

    Args:
        heard: float64 [T, 13], signals.
        scores: float64 [T, 6], independent scores of the person's poses.
        steps: float64 [6], the person's pace.
        frames: bool [T], frames to learn from.
        models: the networks.
    """
    constants = HeadposeModel.of(models).rhythm
    general = tuned(general_weights(), steps, constants)
    weights = general.weights.copy()
    for axis in range(POSE_SIZE):
        inputs = slowed_down(heard, np.full(heard.shape[1], general.poles[axis]))[frames]
        inputs, target = inputs - inputs.mean(axis=0), scores[frames, axis] - scores[frames, axis].mean()
        trust = float(np.clip(_held_out_correlation(inputs, target), 0.0, _MAX_TRUST))
        solution = _ridge(inputs, target)
        size = float(np.std(inputs @ solution))
        if trust > 0.0 and size > 1e-6:
            weights[axis] = trust * solution / size + np.sqrt(1.0 - trust**2) * general.weights[axis]
    return weights


def corrected_steps(
    heard: Float64,
    speech_probability: Float32,
    poses: Float64,
    head: HeadStyle,
    weights: Float64,
    frames: Bool,
    models: MotionModels,
) -> Float64:
    """Return the pace with which the person's own speech moves the head as fast as the true head moved: float64 [6].

    Args:
        heard: float64 [T, 13], signals.
        speech_probability: float32 [T].
        poses: float64 [T, 6], true head-pose vectors.
        head: the person.
        weights: float64 [6, 13], weights of the signals.
        frames: bool [T], frames to learn from.
        models: the networks.
    """
    stream, to_pose = ScoreStream(tuned(weights, head.steps, HeadposeModel.of(models).rhythm)), PoseMap(head)
    made = np.stack([to_pose.pose(stream.push(row, float(p))) for row, p in zip(heard, speech_probability, strict=True)])
    together = frames[1:] & frames[:-1]
    if not together.any():
        return head.steps
    true_speed, made_speed = (
        np.abs(np.diff(relative_poses(each, head.reference), axis=0))[together].mean(axis=0) for each in (poses, made)
    )
    factor = np.clip(true_speed / np.maximum(made_speed, 1e-9), *_PACE_RANGE)
    return np.asarray(np.clip(head.steps * factor, *STEP_RANGE), np.float64)


def _ridge(inputs: Float64, target: Float64) -> Float64:
    gram = inputs.T @ inputs
    if np.trace(gram) <= _SAME_SIGNALS * len(inputs):
        return np.zeros(len(gram))
    gram += _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    return np.asarray(np.linalg.solve(gram, inputs.T @ target))


def _held_out_correlation(inputs: Float64, target: Float64) -> float:
    """Return the correlation of blocks with their prediction from the other blocks."""
    predicted = np.empty_like(target)
    everything = np.arange(len(target))
    for block in np.array_split(everything, NUM_BLOCKS):
        keep = np.setdiff1d(everything, block)
        predicted[block] = inputs[block] @ _ridge(inputs[keep], target[keep])
    size = float(np.std(predicted) * np.std(target))
    return float(((predicted - predicted.mean()) * (target - target.mean())).mean() / size) if size > 1e-9 else 0.0
