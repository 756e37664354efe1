"""The motion predictor `everyone` (the paper's Sec. 3.6), and its personalisation.

The method dubs files, not live streams. So a frame's context is a second of speech before the frame and 400 ms after.

A personalised style holds a linear layer: a scale and an offset for each expression coefficient. Everyone's paper takes the
speech-driven model from Imitator (Thambiraja et al. 2023). Its last layer transforms each expression parameter by itself, and only
this layer is trained on a person:

    e'_k = s_k e_k + o_k

Here a ridge regression fits the layer in closed form. The prior is the layer that changes nothing (s = 1, o = 0):

    minimise  sum_t (y_k - s_k e_k - o_k)^2 + r V_k (s_k - 1)^2 + r o_k^2

y are the person's true coefficients in units of the person's spread, V_k is the variance of e_k, and the ridge r counts frames.
Cross-validation over blocks of about a second of the enrolment chooses r. All coefficients share r.

Each frame n of the 25 frames/s grid is a pure function of the features of frames n - 25 .. n + 10, so the same features in other
pieces give the same bytes.

Beyond the paper, p, b, m and silence shut the lips (constraints.py), and the mouth opens from 400 ms before the speech.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, TypeVar

import numpy as np

from services.common.array_types import Float32, Float64
from services.common.methods import PREDICTORS
from services.common.server.call_context import check_not_cancelled
from services.motion.constraints import WHOLE, ConstraintConfig
from services.motion.expression import ExpressionModel, ExpressionPredictor, expression_spread, movement_weights
from services.motion.features import NUM_CONTENT, content_before, content_rows
from services.motion.models import MotionModels
from services.motion.person_predictor import motion_of_windows
from services.motion.predictor import (
    Predictor,
    StyleStep,
    WindowPrediction,
    frames_to_learn_from,
    predict_in_blocks,
    true_coefficients,
)
from services.motion.runtime import run
from services.motion.speech_states import (
    NUM_STATES,
    SpeechInput,
    silence_with_states,
    silent_states,
    states_of,
)
from services.motion.style import Style
from services.motion.types import ROWS_PER_FRAME, Footage, Motion, SpeechFeatures

WINDOW_PAST: Final = 25
"""Frames of features before the predicted frame: 1 s."""
WINDOW_AHEAD: Final = 10
"""Frames of features after the predicted frame: 400 ms of look-ahead."""
WINDOW: Final = WINDOW_PAST + 1 + WINDOW_AHEAD
PAPER_CHANNELS: Final = ROWS_PER_FRAME * NUM_CONTENT
"""Count of numbers in the four content rows of a frame. Content rows are the input in place of the paper's own."""
SERVED: Final[SpeechInput] = "states"
"""Input of the network that the stage serves. The training can measure the others."""
RIDGES: Final = (25.0, 50.0, 100.0, 200.0, 400.0, 800.0)
"""Ridges that cross-validation chooses from, in frames."""
LARGEST_SCALE: Final = 2.0
"""Scales stay within 0 and this number: a person with hardly any predicted movement must not be blown up."""
_BLOCK_FRAMES: Final = 25
_MIN_BLOCKS: Final = 5
_Numbers = TypeVar("_Numbers", Float32, Float64)
PERSON_LAYER: Final = "everyone_layer"
"""Name of the style's array with the linear layer of the person, float32 [2, E]: scales, then offsets. A style has this array
once it is personalised for `everyone`."""


def num_channels(speech_input: SpeechInput) -> int:
    """Return H, the numbers of a frame that a network takes."""
    return {"phones": PAPER_CHANNELS, "states": NUM_STATES, "both": PAPER_CHANNELS + NUM_STATES}[speech_input]


def input_frames(content: Float32, states: Float32, speech_input: SpeechInput) -> Float32:
    """Return the input of a network, float32 [T, H]: content rows [T, 4, 44], then states [T, 192], as `speech_input` says."""
    rows = content.reshape(len(content), -1)
    return {"phones": rows, "states": states}.get(speech_input, np.concatenate([rows, states], axis=1))


def network_input(features: SpeechFeatures, speech_input: SpeechInput = SERVED) -> Float32:
    """Return the input for a whole clip of T frames with the silence around the clip: float32 [25 + T + 10, H].

    Raises:
        InvalidRequestError: the features have no states of the speech encoder, and `speech_input` asks for them.
    """
    rows = SpeechFeatures.joined([features, silence_with_states(WINDOW_AHEAD)])
    content = np.concatenate([content_before(WINDOW_PAST), content_rows(rows)])
    states = silent_states(len(rows)) if speech_input == "phones" else states_of(rows)
    return input_frames(content, np.concatenate([silent_states(WINDOW_PAST), states]), speech_input)


class EveryoneModel(ExpressionModel):
    """Audio-to-expression network and its constants, see ExpressionModel."""

    network_file = "everyone_motion.onnx"
    constants_file = "everyone_motion_constants.safetensors"

    def predict(self, speech: Float32) -> Float32:
        """Return the expression of one window's frame: float32 [E] in units of the person's spread.

        Each call runs one window: the bits of a batched matrix product may depend on the size of the batch.

        Args:
            speech: float32 [36, 192], see network_input.
        """
        coefficients: Float32 = run(self._network, speech=speech[None])[0][0]
        return coefficients


def apply_layer(layer: Float32, coefficients: _Numbers) -> _Numbers:
    """Return the person's coefficients, [..., E] of the type of the input.

    Args:
        layer: float32 [2, E], scales and offsets.
        coefficients: float32 or float64 [..., E], in units of the person's spread.
    """
    return np.asarray(layer[0] * coefficients + layer[1], coefficients.dtype)


def fit_layer(predicted: Float64, target: Float64, weight: Float64) -> Float32:
    """Return a person's layer, float32 [2, E]: scales, then offsets.

    Args:
        predicted: float64 [T, E], coefficients that the network predicts; T >= 10.
        target: float64 [T, E], true coefficients.
        weight: float64 [E], weight of the squared error of each coefficient in the choice of the ridge.
    """
    everything = np.arange(len(predicted))
    blocks = np.array_split(everything, max(_MIN_BLOCKS, round(len(predicted) / _BLOCK_FRAMES)))
    losses = []
    for ridge in RIDGES:
        check_not_cancelled()
        left = 0.0
        for block in blocks:
            keep = np.setdiff1d(everything, block)
            scale, offset = _solve(predicted[keep], target[keep], ridge)
            left += float(((target[block] - scale * predicted[block] - offset) ** 2 * weight).sum())
        losses.append(left)
    return np.stack(_solve(predicted, target, RIDGES[int(np.argmin(losses))])).astype(np.float32)


def _solve(predicted: Float64, target: Float64, ridge: float) -> tuple[Float64, Float64]:
    """Return scales and offsets, float64 [E] each, of the minimum for a ridge."""
    count = len(predicted)
    variance = predicted.var(axis=0) + 1e-9
    missed = target - predicted
    # The equations of (s - 1) and o; both unknowns are shrunk to 0.
    a, b, d = (predicted**2).sum(axis=0) + ridge * variance, predicted.sum(axis=0), count + ridge
    p, q = (predicted * missed).sum(axis=0), missed.sum(axis=0)
    change = (d * p - b * q) / (a * d - b * b)
    scale = np.clip(1.0 + change, 0.0, LARGEST_SCALE)
    offset = (target - scale * predicted).sum(axis=0) / d
    return scale, offset


class EveryonePredictor(ExpressionPredictor):
    """The predictor `everyone` of one person, with ten frames of features after a frame."""

    def __init__(self, models: MotionModels, style: Style, constraints: ConstraintConfig | None = None) -> None:
        """Start at the first frame. Arguments: see services.motion.predictor.Predictor.open.

        The default constraints are those for whole speech. A frame waits for ten frames anyway, so silence is looked for in all of
        them, also if the constraints ask for fewer.
        """
        self._model = EveryoneModel.of(models)
        asked = constraints or WHOLE
        far = replace(asked, frames_ahead=max(asked.frames_ahead, WINDOW_AHEAD))
        super().__init__(self._model, models, style, far, silent_states(WINDOW_PAST), WINDOW_AHEAD)
        self._layer = style.added.get(PERSON_LAYER)

    def _silence(self, num_frames: int) -> SpeechFeatures:
        return silence_with_states(num_frames)

    def _inputs_of(self, features: SpeechFeatures) -> Float32:
        return states_of(features)

    def _predict(self, first: int, inputs: Float32, speaking: Float32, voiced: Float32) -> Motion:
        return motion_of_windows(
            first, inputs, speaking, voiced, WINDOW, lambda window, share: self._mouth(self._personal(window, share))
        )

    def _personal(self, window: Float32, voiced: float) -> Float32:
        """Return the coefficients of one window as the person speaks, float32 [E] in units of the person's spread."""
        predicted = self._model.predict(window)
        if self._layer is None:
            return predicted
        return predicted + np.float32(voiced) * (apply_layer(self._layer, predicted) - predicted)


def personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[StyleStep]:
    """Refine a style for `everyone`. Arguments and errors: see services.motion.predictor.Predictor.

    Yields:
        One step per block of frames, then the refined style. The loss of the last step is the squared error that remains on this
        footage, relative to the network alone. A coefficient counts by how far the coefficient moves the mouth.
    """
    frames = frames_to_learn_from(footage.usable)
    rows, model = network_input(features), EveryoneModel.of(models)
    spread = expression_spread(style.spread, models.basis, model.basis).astype(np.float64)
    weight = movement_weights(spread, model.basis)
    target = true_coefficients(footage, frames, style, model.basis, spread)

    def predict(frame: int) -> WindowPrediction:
        return WindowPrediction(model.predict(rows[frame : frame + WINDOW]), np.ones(1, np.float32))

    errors = yield from predict_in_blocks(frames, target, predict)
    predicted = target - errors.residual
    layer = fit_layer(predicted, target, weight)
    left = target - apply_layer(layer, predicted)
    loss = float((left**2 * weight).sum()) / max(float((errors.residual**2 * weight).sum()), 1e-9)
    yield StyleStep(len(frames) + 1, len(frames) + 1, loss, style.adding(**{PERSON_LAYER: layer}))


PREDICTOR: Final = Predictor(
    spec=PREDICTORS["everyone"],
    version=EveryoneModel.version_of,
    open=EveryonePredictor,
    personalize=personalize,
    style_arrays={PERSON_LAYER: lambda models: (2, len(EveryoneModel.of(models).basis.typical_spread))},
)
