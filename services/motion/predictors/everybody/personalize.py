"""Personalisation for `everybody`: a correction of the expression from seconds of the person's footage.

    e' = e + C p

The paper trains its network on a quarter of an hour of the person. This module adds what ten seconds can add to a network that
never saw the person. p is the pooled window (inputs.py): so few numbers that seconds determine C (correction.py), and most of
what the network's linear filter hears. The solution has a closed form without random numbers.

A gain and an offset per coefficient reached less, and added nothing to the correction. The ridge is fixed: cross-validation of the
whole error did not choose better, because its folds differ by more than the possible gain.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from services.motion.correction import fit_correction, remaining_error
from services.motion.expression import expression_spread, movement_weights
from services.motion.models import MotionModels
from services.motion.personalization import Step, WindowPrediction, frames_to_learn_from, predict_in_blocks, true_coefficients
from services.motion.predictors.everybody.grid import CORRECTION
from services.motion.predictors.everybody.inputs import WINDOW, heard_clip, pooled_window
from services.motion.predictors.everybody.model import EverybodyModel
from services.motion.style import Style
from services.motion.types import Footage, SpeechFeatures


def personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[Step]:
    """Refine a style for `everybody`. Arguments and errors: see services.motion.predictor.Predictor.

    Yields:
        One step per block of frames, then the refined style. The loss of the last step is the squared error that remains on this
        footage, relative to no correction. A coefficient counts by how far the coefficient moves the mouth.

    Raises:
        InvalidRequest: the features have no ID-removed cepstra.
    """
    frames = frames_to_learn_from(footage.usable)
    model = EverybodyModel.of(models)
    rows = heard_clip(features, model.silence)
    spread = expression_spread(style.spread, models.basis, model.basis).astype(np.float64)
    target = true_coefficients(footage, frames, style, model.basis, spread)

    def predict(frame: int) -> WindowPrediction:
        window = rows[frame : frame + WINDOW]
        return WindowPrediction(model.predict(window), pooled_window(window))

    missed = yield from predict_in_blocks(frames, target, predict)
    correction = fit_correction(missed.pooled, missed.residual)
    loss = remaining_error(missed.pooled, missed.residual, correction, movement_weights(spread, model.basis))
    yield Step(len(frames) + 1, len(frames) + 1, loss, style.adding(**{CORRECTION: correction}))
