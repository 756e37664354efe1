"""The motion predictor `headpose` (headpose paper, Sec. 3.2), and its personalisation.

An LSTM leads from cepstra of the speech to expression and head pose (services/motion/head_network.py). The expression moves the
mouth, the pose moves the head. Beyond the paper, p, b, m and silence shut the lips, and amplitude and rest mouth are the person's.

**Personalisation.** The paper fine-tunes its LSTM on 300 frames of the person (Sec. 4.1). Here only the output layers are fitted,
in closed form, from at most 300 frames. head_network.py fits the layer of the pose. The layer of the expression gets

    expression' = expression + C (h, 1)

h is the hidden state of the LSTM. C is a ridge regression on what the network misses (correction.py). Cross-validation over blocks
of a second chooses the ridge. There are no random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from services.common.array_types import Float32, Float64
from services.common.methods import PREDICTORS
from services.motion.constraints import ConstraintConfig
from services.motion.correction import choose_ridge, fit_correction
from services.motion.expression import expression_spread, movement_weights
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
from services.motion.style import Style
from services.motion.types import Footage, Motion, SpeechFeatures

CORRECTION: Final = "headpose_correction"
"""Name of the style's array C, float32 [E, H + 1]. A style has this array once it is personalised for `headpose`."""


class HeadposePredictor(HeadPredictor):
    """The predictor `headpose` of one person, with two frames of features after a frame."""

    def __init__(self, models: MotionModels, style: Style, constraints: ConstraintConfig | None = None) -> None:
        """Start at the first frame. Arguments: see services.motion.predictor.Predictor.open.

        Raises:
            InvalidRequestError: the style does not tell how the head moves.
        """
        model = HeadModel.of(models)
        super().__init__(models, style, constraints, input_before(model.past), model.ahead)
        self._correction = style.added.get(CORRECTION)

    def _inputs_of(self, features: SpeechFeatures) -> Float32:
        return self._stream.push(features)

    def _predict(self, first: int, inputs: Float32, speaking: Float32, voiced: Float32) -> Motion:
        return self._moved(first, inputs, speaking, lambda index, step: self._mouth(self._personal(step, voiced[index])))

    def _personal(self, step: NetworkStep, voiced: np.float32) -> Float32:
        """Return the coefficients of one step as the person speaks, float32 [E] in units of the person's spread."""
        if self._correction is None:
            return step.expression
        return np.asarray(step.expression + voiced * (self._correction @ with_one(step.h[0])), np.float32)


def with_one(hidden: Float32) -> Float32:
    """Return a hidden state with the number 1 behind it: float32 [H] -> [H + 1]."""
    return np.append(hidden, np.float32(1.0))


def personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[StyleStep]:
    """Refine a style for `headpose`. Arguments and errors: see services.motion.predictor.Predictor.

    Yields:
        Progress, then the refined style. The loss of the last step is that of the mouth on held-out blocks
        (correction.choose_ridge).

    Raises:
        InvalidRequestError: the style does not tell how the head moves.
    """
    head = head_style_of(style)
    frames = frames_to_learn_from(footage.usable, MAX_FRAMES)
    last = int(frames[-1]) + 1
    answers = yield from head_answers(features, last, models)
    learned = learned_head(answers.signals, head, features, footage, frames, models)
    basis = HeadModel.of(models).basis
    spread = expression_spread(style.spread, models.basis, basis).astype(np.float64)
    residual = true_coefficients(footage, frames, style, basis, spread) - answers.expression[frames]
    inputs: Float64 = np.concatenate([answers.hidden[frames], np.ones((len(frames), 1))], axis=1)
    choice = choose_ridge(inputs, residual, movement_weights(spread, basis))
    learned[CORRECTION] = fit_correction(inputs, residual, choice.ridge)
    yield StyleStep(last + 1, last + 1, min(choice.loss, 1.0), style.adding(**learned))


def _correction_shape(models: MotionModels) -> tuple[int, ...]:
    model = HeadModel.of(models)
    return len(model.basis.typical_spread), model.hidden + 1


PREDICTOR: Final = Predictor(
    spec=PREDICTORS["headpose"],
    version=HeadModel.version_of,
    open=HeadposePredictor,
    personalize=personalize,
    style_arrays={**STYLE_ARRAYS, CORRECTION: _correction_shape},
    encode_style=encode_head_style,
    mean_style=mean_head_speaker,
)
