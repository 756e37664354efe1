"""Personalisation for `hetero`: a correction of the coefficients from seconds of the person's footage.

    c' = c + C p

The paper's generator needs no training on the person: the reference landmarks condition it, and EncodeStyle stores their vector in
the style. The correction goes beyond the paper. p are states of the speech encoder about a frame (speech_states.py). C is a ridge
regression from p on what the generator misses (correction.py). Cross-validation over blocks of a second of the footage chooses
the ridge. The solution has a closed form without random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from services.motion.correction import choose_ridge, fit_correction
from services.motion.models import MotionModels
from services.motion.personalization import Step, WindowPrediction, frames_to_learn_from, predict_in_blocks, true_coefficients
from services.motion.predictors.hetero.grid import CORRECTION
from services.motion.predictors.hetero.inputs import WINDOW, WINDOW_PAST, heard_clip
from services.motion.predictors.hetero.model import HeteroModel
from services.motion.predictors.hetero.style import knows_person, person_of, with_person
from services.motion.speech_states import pooled_states
from services.motion.style import Style
from services.motion.types import Footage, SpeechFeatures


def personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[Step]:
    """Refine a style for `hetero`. Arguments and errors: see services.motion.predictor.Predictor.

    If the style was encoded for another method, the footage is the reference.

    Yields:
        One step per block of frames, then the refined style. The loss of the last step is the loss on held-out blocks
        (correction.choose_ridge).
    """
    frames = frames_to_learn_from(footage.usable)
    if not knows_person(style):
        style = with_person(style, footage, models)
    rows, model = heard_clip(features), HeteroModel.of(models)
    reference, pose = person_of(style)
    target = true_coefficients(footage, frames, style, models.basis, style.spread)

    def predict(frame: int) -> WindowPrediction:
        window = rows[frame : frame + WINDOW]
        return WindowPrediction(model.predict(window, reference, pose), pooled_states(window, WINDOW_PAST))

    missed = yield from predict_in_blocks(frames, target, predict)
    choice = choose_ridge(missed.pooled, missed.residual, style.spread.astype(np.float64) ** 2)
    refined = style.adding(**{CORRECTION: fit_correction(missed.pooled, missed.residual, choice.ridge)})
    yield Step(len(frames) + 1, len(frames) + 1, min(choice.loss, 1.0), refined)
