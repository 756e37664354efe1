"""Personalisation for `headpose`: what of a person's head movement their speech tells, from at most 300 frames.

The paper fine-tunes its LSTM on 300 frames (Sec. 4.1). Its output layer alone is fitted here, in closed form: for each of the six
independent scores u of the person (head_style.py), ridge regression on the signals of the speech as they are after the filter of
the person's pace (head_rhythm.py). Cross-validation over blocks says how far that holds, a correlation rho; a score then follows

    rho * regression + sqrt(1 - rho^2) * what moves the general speaker

so that what the speech does not tell keeps the person's spread. The pace is corrected once, by how fast the head that this makes of
the person's own speech moves beside the true one.

The mouth gets a correction of the expression, ridge regression of what the network missed on pooled windows of the speech
(pooled_speech.py), as for the other methods (correction.py). No random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from services.common.calls import check_still_wanted
from services.common.errors import NoUsableFootage
from services.common.head_pose_vectors import POSE_SIZE
from services.motion.adapt.correction import fit_correction
from services.motion.adapt.personalize import MIN_FRAMES, NUM_BLOCKS, Step
from services.motion.cepstra import heard_before, heard_rows
from services.motion.expression import expression_spread
from services.motion.features import NUM_CONTENT, silence
from services.motion.head_rhythm import Float64, ScoreStream, SignalStream, general_weights, slowed_down, tuned
from services.motion.head_style import STEP_RANGE, HeadStyle, PoseMap, independent_scores, relative_poses
from services.motion.models import MotionModels
from services.motion.pooled_speech import pooled_speech
from services.motion.predict_head_motion import head_style_of
from services.motion.style import Style
from services.motion.types import Bool, Float32, SpeechFeatures

MAX_FRAMES: Final = 300
"""As the paper: the first twelve seconds that are usable."""
_RIDGE: Final = 0.3
"""In units of a signal's variance times the number of frames: neighbouring frames tell the same."""
_MAX_TRUST: Final = 0.8
_PACE_RANGE: Final = (0.5, 1.5)
_CHUNK: Final = 50


@dataclass(frozen=True, slots=True)
class Heard:
    """Frames 0 .. T - 1 of a clip.

    Attributes:
        coefficients: float64 [T, E], expression that the network answers, in units of the person's spread.
        signals: float64 [T, 13], see head_rhythm.
        pooled: float64 [T, 126], see pooled_speech.
    """

    coefficients: Float64
    signals: Float64
    pooled: Float64


def hear(features: SpeechFeatures, num_frames: int, models: MotionModels) -> Iterator[Heard | int]:
    """Runs the network over the first frames of a clip; yields how many are done, at last what was heard."""
    model = models.head_motion
    rows = np.concatenate([heard_before(model.past), heard_rows(SpeechFeatures.joined([features, silence(model.ahead)]))])
    h, c, stream = model.rest(), model.rest(), SignalStream(model.rhythm)
    coefficients: list[Float32] = []
    found: list[Float64] = []
    pooled: list[Float32] = []
    for frame in range(num_frames):
        check_still_wanted()
        window = rows[frame : frame + model.window]
        step = model.step(window, h, c)
        pooled.append(pooled_speech(window[..., :NUM_CONTENT], model.past))
        h, c = step.h, step.c
        coefficients.append(step.expression)
        content = rows[model.past + frame, :, :NUM_CONTENT]
        found.append(stream.push(step.pose, content, float(features.speech_probability[frame])))
        if (frame + 1) % _CHUNK == 0:
            yield frame + 1
    yield Heard(np.array(coefficients, np.float64), np.array(found), np.array(pooled, np.float64))


def fit_weights(heard: Float64, scores: Float64, steps: Float64, frames: Bool, models: MotionModels) -> Float64:
    """Weights of the signals for each score, float64 [6, 13].

    Args:
        heard: float64 [T, 13], signals.
        scores: float64 [T, 6], independent scores of the person's poses.
        steps: float64 [6], the person's pace.
        frames: bool [T], frames to learn from.
        models: the networks.
    """
    constants = models.head_motion.rhythm
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
    """The pace with which the person's own speech moves the head as fast as it moved in truth: float64 [6].

    Args:
        heard: float64 [T, 13], signals.
        speech_probability: float32 [T].
        poses: float64 [T, 6], true head-pose vectors.
        head: the person.
        weights: float64 [6, 13], of the signals.
        frames: bool [T], frames to learn from.
        models: the networks.
    """
    stream, to_pose = ScoreStream(tuned(weights, head.steps, models.head_motion.rhythm)), PoseMap(head)
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
    gram += _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    return np.asarray(np.linalg.solve(gram, inputs.T @ target))


def _held_out_correlation(inputs: Float64, target: Float64) -> float:
    """Correlation of blocks with what the others predict for them."""
    predicted = np.empty_like(target)
    everything = np.arange(len(target))
    for block in np.array_split(everything, NUM_BLOCKS):
        keep = np.setdiff1d(everything, block)
        predicted[block] = inputs[block] @ _ridge(inputs[keep], target[keep])
    size = float(np.std(predicted) * np.std(target))
    return float(((predicted - predicted.mean()) * (target - target.mean())).mean() / size) if size > 1e-9 else 0.0


def personalize_head_motion(
    style: Style, features: SpeechFeatures, mouth_landmarks: Float32, usable: Bool, head_poses: Float64, models: MotionModels
) -> Iterator[Step]:
    """Refine a style for `headpose`; its arrays for other methods stay as they are.

    Args:
        style: of EncodeStyle for `headpose`.
        features: of the enrolment footage, lag taken out, T frames.
        mouth_landmarks: float32 [T, 59, 3].
        usable: bool [T].
        head_poses: float64 [T, 6], head-pose vectors of the same frames.
        models: the networks.

    Yields:
        Steps, the refined style in the last one; its loss is the squared error of the mouth that remains on this footage, relative
        to that without correction.

    Raises:
        InvalidRequest: the style says nothing of the head.
        NoUsableFootage: fewer than 50 usable frames.
    """
    head = head_style_of(style)
    frames = np.flatnonzero(usable)[:MAX_FRAMES]
    if len(frames) < MIN_FRAMES:
        raise NoUsableFootage(
            f"personalising motion needs {MIN_FRAMES} usable frames (2 s), the footage has {len(frames)}",
            subject="mouth_landmarks",
        )
    last = int(frames[-1]) + 1
    heard = None
    for part in hear(features, last, models):
        if isinstance(part, Heard):
            heard = part
        else:
            yield Step(part, last + 1, 1.0, None)
    assert heard is not None
    chosen = np.isin(np.arange(last), frames)
    weights = fit_weights(heard.signals, independent_scores(head_poses[:last], head), head.steps, chosen, models)
    steps = corrected_steps(heard.signals, features.speech_probability[:last], head_poses[:last], head, weights, chosen, models)
    model = models.head_motion
    spread = expression_spread(style.spread, models.basis, model.basis).astype(np.float64)
    target = model.basis.project(mouth_landmarks[frames] - style.rest_mouth).astype(np.float64) / spread
    residual, pooled = target - heard.coefficients[frames], heard.pooled[frames]
    correction = fit_correction(pooled, residual)
    # A coefficient counts by how far it moves the mouth.
    importance = (spread * np.linalg.norm(model.basis.components.reshape(len(spread), -1), axis=1)) ** 2
    before = float((residual**2 * importance).sum())
    after = float(((residual - pooled @ correction.T) ** 2 * importance).sum())
    refined = replace(
        style, pose_weights=weights.astype(np.float32), pose_steps=steps.astype(np.float32), spoken_correction=correction
    )
    yield Step(last + 1, last + 1, after / max(before, 1e-9), refined)
