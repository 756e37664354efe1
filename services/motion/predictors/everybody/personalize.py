"""Personalisation for `everybody`: a correction of the speech map from seconds of the person's footage.

    mouth = SHARE * network + (1 - SHARE) * (map + C p)        in the coefficients of the map, in units of the person's spread

The paper trains its network on a quarter of an hour of the person. This module adds what ten seconds can add to a network and a
map that never saw the person. p are states of the speech encoder about a frame and the map's answer (speech_map.correction_inputs):
so few numbers that seconds determine C (correction.py). Live speech takes the same C. Cross-validation over blocks of a second of
the footage chooses the ridge. The solution has a closed form without random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from services.motion.correction import choose_ridge, fit_correction
from services.motion.expression import expression_spread
from services.motion.models import MotionModels
from services.motion.personalization import Step, WindowPrediction, frames_to_learn_from, predict_in_blocks, true_coefficients
from services.motion.predictors.everybody.grid import CORRECTION, SHARE
from services.motion.predictors.everybody.inputs import WINDOW, heard_clip
from services.motion.predictors.everybody.model import EverybodyModel
from services.motion.speech_map import Hearing, SpeechMapModel, correction_inputs
from services.motion.speech_states import neighbours, states_of
from services.motion.style import Style
from services.motion.types import Footage, SpeechFeatures


def personalized(
    hearing: Hearing, style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels
) -> Iterator[Step]:
    """Refine a style for `everybody`.

    Args:
        hearing: which speech map to correct. The correction of one map serves the other too.
        style: as services.motion.predictor.Predictor.personalize takes it, as are the other arguments.
        features: features of the footage.
        footage: the footage.
        models: the networks.

    Yields:
        One step per block of frames, then the refined style. The loss of the last step is the loss on held-out blocks
        (correction.choose_ridge).

    Raises:
        InvalidRequest: the features have no ID-removed cepstra, or no states of the speech encoder.
    """
    frames = frames_to_learn_from(footage.usable)
    model, speech_map = EverybodyModel.of(models), SpeechMapModel.of(models)
    rows = heard_clip(features, model.silence)
    states = neighbours(states_of(features, hearing.feature), hearing.past, hearing.ahead)
    network_spread = expression_spread(style.spread, models.basis, model.basis)
    spread = speech_map.spread(style.spread, models).astype(np.float64)
    target = true_coefficients(footage, frames, style, speech_map.basis, spread) / (1.0 - SHARE)

    def predict(frame: int) -> WindowPrediction:
        offsets = model.basis.reconstruct(network_spread * model.predict(rows[frame : frame + WINDOW]))
        network = speech_map.basis.project(offsets) / spread
        mapped = speech_map.maps[hearing.feature].predict(states[frame])
        wanted_of_the_map = mapped + np.float32(SHARE / (1.0 - SHARE)) * network
        return WindowPrediction(np.asarray(wanted_of_the_map, np.float32), correction_inputs(states[frame], mapped, hearing))

    missed = yield from predict_in_blocks(frames, target, predict)
    choice = choose_ridge(missed.pooled, missed.residual, spread**2)
    correction = fit_correction(missed.pooled, missed.residual, choice.ridge)
    yield Step(len(frames) + 1, len(frames) + 1, min(choice.loss, 1.0), style.adding(**{CORRECTION: correction}))
