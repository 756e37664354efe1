"""The motion predictor `portrait`: mouth and head of a person from speech, and the personalisation of both.

The mouth is that of the speech map (services/motion/speech_map.py). The head poses are those of the headpose paper
(services/motion/head_network.py). p, b, m and silence shut the lips, and amplitude and rest mouth are the person's.

**Personalisation** learns from at most 300 frames. head_network.py says what is learned of the head. The mouth gets a correction:
ridge regression of what the speech map misses on states of the speech encoder about a frame and the map's answer
(speech_map.correction_inputs, correction.py); cross-validation over blocks of a second chooses the ridge. There are no random
numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.common.methods import PREDICTORS
from services.motion.constraints import ConstraintConfig
from services.motion.correction import choose_ridge, fit_correction
from services.motion.head_network import (
    MAX_FRAMES,
    STYLE_ARRAYS,
    HeadModel,
    HeadPredictor,
    NetworkStep,
    encode_head_style,
    head_answers,
    head_style_of,
    input_before,
    learned_head,
    mean_head_speaker,
)
from services.motion.models import MotionModels
from services.motion.predictor import Predictor, StyleStep, frames_to_learn_from, true_coefficients
from services.motion.speech_map import FILES, MapMouth, SpeechMapModel, correction_inputs, correction_shape
from services.motion.speech_states import NUM_STATES, beside_states, neighbours, silence_with_states, silent_states, states_of
from services.motion.style import Style
from services.motion.types import ROWS_PER_FRAME, Footage, Motion, SpeechFeatures

MOUTH: Final = FILES
"""Input of the speech map that moves the mouth."""
CORRECTION: Final = "portrait_correction"
"""Name of the style's array that corrects the map's mouth, float32 [K, 49 + K]. A style has this array once it is personalised for
`portrait`."""


class PortraitPredictor(HeadPredictor):
    """The predictor `portrait` of one person, with four frames of features after a frame."""

    def __init__(self, models: MotionModels, style: Style, constraints: ConstraintConfig | None = None) -> None:
        """Start at the first frame. Arguments: see services.motion.predictor.Predictor.open.

        Raises:
            InvalidRequestError: the style does not tell how the head moves.
        """
        model = HeadModel.of(models)
        past = max(model.past, MOUTH.past)
        before = beside_states(input_before(past), silent_states(past))
        super().__init__(models, style, constraints, before, MOUTH.ahead)
        self._map_mouth = MapMouth(SpeechMapModel.of(models), MOUTH, models, style, style.added.get(CORRECTION))

    def _silence(self, num_frames: int) -> SpeechFeatures:
        return silence_with_states(num_frames)

    def _inputs_of(self, features: SpeechFeatures) -> Float32:
        """Return the network's inputs and the states of the speech encoder, float32 [T, 260 + 192]."""
        states = states_of(features)
        return beside_states(self._stream.push(features), states)

    def _predict(self, first: int, inputs: Float32, speaking: Float32, voiced: Float32) -> Motion:
        rows, states = inputs[:, :-NUM_STATES].reshape(len(inputs), ROWS_PER_FRAME, -1), inputs[:, -NUM_STATES:]

        def mouth(index: int, _: NetworkStep) -> Float32:
            frame = self._past + index
            return self._map_mouth(states[frame - MOUTH.past : frame + MOUTH.ahead + 1], float(voiced[index]))

        return self._moved(first, rows, speaking, mouth)

    def _closing(self, count: int, inputs: Float32) -> Float32:
        return self._map_mouth.map.closing(inputs, self._past, count, self._constraints)


def personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[StyleStep]:
    """Refine a style for `portrait`. Arguments and errors: see services.motion.predictor.Predictor.

    Yields:
        Progress, then the refined style. The loss of the last step is that of the mouth on held-out blocks
        (correction.choose_ridge).

    Raises:
        InvalidRequestError: the style does not tell how the head moves, or the features have no states of the speech encoder.
    """
    head = head_style_of(style)
    frames = frames_to_learn_from(footage.usable, MAX_FRAMES)
    last = int(frames[-1]) + 1
    windows = neighbours(states_of(features), MOUTH.past, MOUTH.ahead)
    answers = yield from head_answers(features, last, models)
    learned = learned_head(answers.signals, head, features, footage, frames, models)
    speech_map = SpeechMapModel.of(models)
    predicted = [speech_map.maps[MOUTH].predict(windows[frame]) for frame in frames]
    inputs = [correction_inputs(windows[frame], answer, MOUTH) for frame, answer in zip(frames, predicted, strict=True)]
    spread = speech_map.spread(style.spread, models).astype(np.float64)
    residual = true_coefficients(footage, frames, style, speech_map.basis, spread) - np.array(predicted, np.float64)
    pooled = np.array(inputs, np.float64)
    choice = choose_ridge(pooled, residual, spread**2)
    learned[CORRECTION] = fit_correction(pooled, residual, choice.ridge)
    yield StyleStep(last + 1, last + 1, min(choice.loss, 1.0), style.adding(**learned))


def _version(models: MotionModels) -> str:
    """Return the digests of the network and of the map that answers the mouth."""
    return f"{HeadModel.version_of(models)}-{SpeechMapModel.of(models).version(MOUTH)}"


PREDICTOR: Final = Predictor(
    spec=PREDICTORS["portrait"],
    version=_version,
    open=PortraitPredictor,
    personalize=personalize,
    style_arrays={**STYLE_ARRAYS, CORRECTION: correction_shape},
    encode_style=encode_head_style,
    mean_style=mean_head_speaker,
)
