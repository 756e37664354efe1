"""Personalisation for `everyone`: the person's linear layer, and a correction of what the layer leaves.

    e' = scale * e + offset + C p

The paper trains the layer alone (person_layer.py). The correction C is added here, because the layer alone reached less on
strangers (docs/models/everyone_motion.md): C is a ridge regression from states p of the speech encoder about a frame
(speech_states.py) on what the layer leaves (correction.py). Cross-validation over blocks of a second of the footage chooses both
ridges. Both solutions have a closed form without random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from services.motion.correction import choose_ridge, fit_correction, remaining_error
from services.motion.expression import expression_spread, movement_weights
from services.motion.models import MotionModels
from services.motion.personalization import Step, WindowPrediction, frames_to_learn_from, predict_in_blocks, true_coefficients
from services.motion.predictors.everyone.grid import CORRECTION, PERSON_LAYER
from services.motion.predictors.everyone.inputs import WINDOW, WINDOW_PAST, heard_clip
from services.motion.predictors.everyone.model import EveryoneModel
from services.motion.predictors.everyone.person_layer import apply_layer, fit_layer
from services.motion.speech_states import pooled_states
from services.motion.style import Style
from services.motion.types import Footage, SpeechFeatures


def personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[Step]:
    """Refine a style for `everyone`. Arguments and errors: see services.motion.predictor.Predictor.

    Yields:
        One step per block of frames, then the refined style. The loss of the last step is the squared error that remains on this
        footage, relative to the network alone. A coefficient counts by how far the coefficient moves the mouth.
    """
    frames = frames_to_learn_from(footage.usable)
    rows, model = heard_clip(features), EveryoneModel.of(models)
    spread = expression_spread(style.spread, models.basis, model.basis).astype(np.float64)
    weight = movement_weights(spread, model.basis)
    target = true_coefficients(footage, frames, style, model.basis, spread)

    def predict(frame: int) -> WindowPrediction:
        window = rows[frame : frame + WINDOW]
        return WindowPrediction(model.predict(window), pooled_states(window, WINDOW_PAST))

    missed = yield from predict_in_blocks(frames, target, predict)
    predicted = target - missed.residual
    layer = fit_layer(predicted, target, weight)
    left = target - apply_layer(layer, predicted)
    correction = fit_correction(missed.pooled, left, choose_ridge(missed.pooled, left, weight).ridge)
    before = float((missed.residual**2 * weight).sum())
    kept = float((left**2 * weight).sum()) / max(before, 1e-9)
    loss = kept * remaining_error(missed.pooled, left, correction, weight)
    yield Step(len(frames) + 1, len(frames) + 1, loss, style.adding(**{PERSON_LAYER: layer, CORRECTION: correction}))
