"""Personalisation for `headpose`: what the person's speech tells of the person's head movement, from at most 300 frames.

The paper fine-tunes its LSTM on 300 frames (Sec. 4.1). Here only the output layer is fitted, in closed form: for each of the six
independent scores of the person (head_style.py), ridge regression on the signals of the speech after the filter of the person's
pace (head_rhythm.py, head_fit.py). Cross-validation over blocks measures how far the regression holds, a correlation rho. A score
then follows

    rho * regression + sqrt(1 - rho^2) * signals of the general speaker

so that the score keeps the person's spread. The pace is corrected once: the head that results from the person's own speech shall
move as fast as the true head.

The mouth gets a correction: ridge regression of what the speech map misses on states of the speech encoder about a frame and the
map's answer (speech_map.correction_inputs, correction.py); cross-validation over blocks of a second chooses the ridge. There are no
random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from services.motion.correction import choose_ridge, fit_correction
from services.motion.models import MotionModels
from services.motion.personalization import Step, frames_to_learn_from, true_coefficients
from services.motion.predictors.headpose.head_fit import corrected_steps, fit_weights
from services.motion.predictors.headpose.head_style import independent_scores
from services.motion.predictors.headpose.hear import hear
from services.motion.predictors.headpose.model import CORRECTION
from services.motion.predictors.headpose.style import WEIGHTS_ARRAY, head_style_of
from services.motion.speech_map import SpeechMapModel
from services.motion.style import Style
from services.motion.types import Footage, SpeechFeatures

MAX_FRAMES: Final = 300
"""Frames that are learned from, as in the paper: the first twelve seconds of usable frames."""


def personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[Step]:
    """Refine a style for `headpose`. Arguments and errors: see services.motion.predictor.Predictor.

    Yields:
        Progress, then the refined style. The loss of the last step is that of the mouth on held-out blocks
        (correction.choose_ridge).

    Raises:
        InvalidRequest: the style does not tell how the head moves.
    """
    assert footage.head_poses is not None, "a predictor that moves the head gets head poses"
    head = head_style_of(style)
    frames = frames_to_learn_from(footage.usable, MAX_FRAMES)
    last = int(frames[-1]) + 1
    heard = yield from hear(features, last, models)
    chosen, poses = np.isin(np.arange(last), frames), footage.head_poses[:last]
    weights = fit_weights(heard.signals, independent_scores(poses, head), head.steps, chosen, models)
    steps = corrected_steps(heard.signals, features.speech_probability[:last], poses, head, weights, chosen, models)
    speech_map = SpeechMapModel.of(models)
    spread = speech_map.spread(style.spread, models).astype(np.float64)
    target = true_coefficients(footage, frames, style, speech_map.basis, spread)
    residual, pooled = target - heard.coefficients[frames], heard.pooled[frames]
    choice = choose_ridge(pooled, residual, spread**2)
    correction = fit_correction(pooled, residual, choice.ridge)
    learned = {WEIGHTS_ARRAY: weights.astype(np.float32), "pose_steps": steps.astype(np.float32), CORRECTION: correction}
    yield Step(last + 1, last + 1, min(choice.loss, 1.0), style.adding(**learned))
