"""Personalisation for `speech_map`: a correction of the coefficients from seconds or minutes of the person's footage.

    c' = c + C p

p are states of the speech encoder about a frame and the map's answer c (grid.correction_inputs). C is a ridge regression from p on
what the map of files misses (correction.py); the map of live speech takes the same C. Cross-validation over blocks of a second of
the footage chooses the ridge. The solution has a closed form without random numbers.

A prediction of least error moves less than the person does. So the style also gets a gain of the opening:

    h = std(opening of the person) / std(opening that is predicted on held-out blocks, amplified as all predictions are)
    g = 1 + T / (T + T0) (h - 1),   h from 1 to LARGEST_GAIN,   T frames of footage,   T0 = 50

The whole gain would cost LMD, and seconds of footage tell little of the person's spread, see docs/models/speech_map.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.common.face.landmarks import mouth_opening
from services.motion.correction import choose_ridge, fit_correction, held_out_corrections
from services.motion.grid import AMPLITUDE
from services.motion.models import MotionModels
from services.motion.personalization import Step, WindowPrediction, frames_to_learn_from, predict_in_blocks, true_coefficients
from services.motion.predictors.speech_map.grid import CORRECTION, OPENING_GAIN, correction_inputs, states_of
from services.motion.predictors.speech_map.model import Hearing, SpeechMapModel, neighbours
from services.motion.style import Style
from services.motion.types import Footage, SpeechFeatures

MAX_FRAMES: Final = 7500
"""Frames that a correction is learned from: five minutes of usable frames."""
LARGEST_GAIN: Final = 1.5
"""Largest gain of the opening."""
_PRIOR_FRAMES: Final = 50.0
"""A gain of 1 counts as much as this many frames of the person."""


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
    windows = neighbours(states_of(features, hearing.feature), hearing)
    spread = model.spread(style.spread, models)
    target = true_coefficients(footage, frames, style, model.basis, spread)

    def predict(frame: int) -> WindowPrediction:
        answer = each.predict(windows[frame])
        return WindowPrediction(answer, correction_inputs(windows[frame], answer, hearing))

    missed = yield from predict_in_blocks(frames, target, predict)
    choice = choose_ridge(missed.pooled, missed.residual, spread.astype(np.float64) ** 2)
    correction = fit_correction(missed.pooled, missed.residual, choice.ridge)
    foreseen = target - missed.residual + held_out_corrections(missed.pooled, missed.residual, choice.ridge)
    predicted = style.rest_mouth + model.basis.reconstruct((foreseen * spread).astype(np.float32))
    gain = opening_gain(footage.mouth_landmarks[frames], predicted)
    refined = style.adding(**{CORRECTION: correction, OPENING_GAIN: np.array([gain], np.float32)})
    yield Step(len(frames) + 1, len(frames) + 1, min(choice.loss, 1.0), refined)


def opening_gain(seen: Float32, predicted: Float32) -> float:
    """Return the gain of the opening that brings predicted mouths towards the person's spread, 1 to LARGEST_GAIN.

    Args:
        seen: float32 [T, 59, 3], mouths of the person.
        predicted: float32 [T, 59, 3], mouths that are predicted for these frames.
    """
    own, found = (float(mouth_opening(mouths).std(dtype=np.float64)) for mouths in (seen, predicted))
    ratio = float(np.clip(own / max(AMPLITUDE * found, 1e-6), 1.0, LARGEST_GAIN))
    return 1.0 + (ratio - 1.0) * len(seen) / (len(seen) + _PRIOR_FRAMES)
