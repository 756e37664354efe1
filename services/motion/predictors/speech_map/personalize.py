"""Personalisation for `speech_map`: a correction of the coefficients from seconds or minutes of the person's footage.

    c' = c + C p

p are states of the speech encoder about a frame and the map's answer c (speech_map.correction_inputs). C is a ridge regression from
p on what the map of files misses (correction.py); the map of live speech takes the same C. Cross-validation over blocks of a second
of the footage chooses the ridge. The solution has a closed form without random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from services.motion.correction import choose_ridge, fit_correction
from services.motion.models import MotionModels
from services.motion.personalization import Step, WindowPrediction, frames_to_learn_from, predict_in_blocks, true_coefficients
from services.motion.predictors.speech_map.grid import CORRECTION
from services.motion.speech_map import Hearing, SpeechMapModel, correction_inputs
from services.motion.speech_states import neighbours, states_of
from services.motion.style import Style
from services.motion.types import Footage, SpeechFeatures

MAX_FRAMES: Final = 7500
"""Frames that a correction is learned from: five minutes of usable frames."""


def personalized(
    model: SpeechMapModel, hearing: Hearing, style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels
) -> Iterator[Step]:
    """Refine a style.

    Args:
        model: the maps.
        hearing: which map to use.
        style: as services.motion.predictor.Predictor.personalize takes it, as are the other arguments.
        features: features of the footage.
        footage: the footage.
        models: the shared networks.

    Yields:
        One step per block of frames, then the refined style. The loss of the last step is the loss on held-out blocks
        (correction.choose_ridge).
    """
    frames = frames_to_learn_from(footage.usable, MAX_FRAMES)
    each = model.maps[hearing.feature]
    windows = neighbours(states_of(features, hearing.feature), hearing.past, hearing.ahead)
    spread = model.spread(style.spread, models)
    target = true_coefficients(footage, frames, style, model.basis, spread)

    def predict(frame: int) -> WindowPrediction:
        answer = each.predict(windows[frame])
        return WindowPrediction(answer, correction_inputs(windows[frame], answer, hearing))

    missed = yield from predict_in_blocks(frames, target, predict)
    choice = choose_ridge(missed.pooled, missed.residual, spread.astype(np.float64) ** 2)
    correction = fit_correction(missed.pooled, missed.residual, choice.ridge)
    yield Step(len(frames) + 1, len(frames) + 1, min(choice.loss, 1.0), style.adding(**{CORRECTION: correction}))
