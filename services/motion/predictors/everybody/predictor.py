"""The motion predictor `everybody` (Everybody's Talkin', Sec. 3.2.2), and its personalisation.

The network's input window is one second of ID-removed speech, with four frames after the predicted frame. So each frame waits for
four frames.

The window reaches from 0.8 s before a frame's time to 0.2 s after that time, which is 20 grid frames before the frame, the frame
itself, and four frames after (Sec. 3.2.2). Each row holds ID-removed cepstra and, beyond the paper, band energies relative to the
speech just before: the jaw opens by loudness, and ID-removed cepstra have no loudness left.

Each frame is a pure function of its window, so the same features in other pieces give the same bytes. Beyond the paper, p, b, m and
silence shut the lips, and amplitude and rest mouth are the person's.

**Personalisation.** The paper trains its network on a quarter of an hour of the person. Seconds tell what is left:

    expression' = expression + C p

p are the rows of the window as Gaussian means over time: so few numbers that seconds determine C. C is a ridge regression on what
the network misses (correction.py). Cross-validation over blocks of a second of the footage chooses the ridge. The solution has a
closed form without random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.methods import PREDICTORS
from services.motion.constraints import ConstraintConfig
from services.motion.correction import choose_ridge, fit_correction
from services.motion.expression import ExpressionModel, ExpressionPredictor, expression_spread, movement_weights
from services.motion.features import (
    BANDS,
    NUM_MEANS,
    POOLED_PAST,
    ContentStream,
    content_before,
    content_rows,
    pooled_rows,
    silence,
)
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
from services.motion.style import Style
from services.motion.types import EXTRA_FEATURES, NUM_PHONES, ROWS_PER_FRAME, Footage, Motion, SpeechFeatures

FEATURE: Final = "identity_removed"
"""Tensor of AudioFeatureBlock that this predictor needs: cepstra of the global speaker."""
NUM_CEPSTRA: Final = EXTRA_FEATURES[FEATURE][-1]
WINDOW_PAST: Final = 20
"""Frames before the predicted frame: 0.8 s."""
WINDOW_AHEAD: Final = 4
"""Frames after the predicted frame: 0.2 s after the frame's time, 160 ms of features after the frame's own."""
WINDOW: Final = WINDOW_PAST + 1 + WINDOW_AHEAD
NUM_INPUTS: Final = NUM_CEPSTRA + len(BANDS)
"""Channels of a row of the window: ID-removed cepstra, then relative band energies."""
ENERGY_SCALE: Final = 0.5
"""Scale of the energies beside the cepstra. On validation clips .5 was better than 1 and better than 0."""
NUM_POOLED: Final = NUM_MEANS * NUM_INPUTS + 1
CORRECTION: Final = "everybody_correction"
"""Name of the style's array C, float32 [E, 121]. A style has this array once it is personalised for `everybody`."""


def identity_removed(features: SpeechFeatures) -> Float32:
    """Return the ID-removed cepstra, float32 [T, 4, 20].

    Raises:
        InvalidRequestError: the features have no ID-removed cepstra.
    """
    rows = features.extra.get(FEATURE)
    if rows is None:
        raise InvalidRequestError(f"features.{FEATURE}: missing; `everybody` needs this tensor", field=f"features.{FEATURE}")
    return rows


def input_rows(removed: Float32, content: Float32) -> Float32:
    """Return network inputs, float32 [T, 4, 24].

    Args:
        removed: float32 [T, 4, 20], ID-removed cepstra.
        content: float32 [T, 4, 44], content rows, of which the network takes the energies.
    """
    return np.concatenate([removed, np.float32(ENERGY_SCALE) * content[..., NUM_PHONES:]], axis=-1)


def silent_input(num_frames: int, row: Float32) -> Float32:
    """Return network inputs of the silence before a stream, float32 [T, 4, 24]; `row` [20] is the ID-removed row of silence."""
    removed = np.broadcast_to(row, (num_frames, ROWS_PER_FRAME, len(row))).astype(np.float32)
    return input_rows(removed, content_before(num_frames))


def silent_speech(num_frames: int, row: Float32) -> SpeechFeatures:
    """Return features of digital silence with the ID-removed row [20] of silence."""
    rows = np.broadcast_to(row, (num_frames, ROWS_PER_FRAME, len(row))).astype(np.float32)
    return replace(silence(num_frames), extra={FEATURE: rows})


def network_input(features: SpeechFeatures, row: Float32) -> Float32:
    """Return network inputs of a whole clip of T frames with the silence around the clip: float32 [20 + T + 4, 4, 24].

    Raises:
        InvalidRequestError: the features have no ID-removed cepstra.
    """
    rows = SpeechFeatures.joined([features, silent_speech(WINDOW_AHEAD, row)])
    return np.concatenate([silent_input(WINDOW_PAST, row), input_rows(identity_removed(rows), content_rows(rows))])


class EverybodyModel(ExpressionModel):
    """Audio-to-Expression network and its constants.

    Attributes, beside those of ExpressionModel:
        silence: float32 [20], row of ID-removed cepstra of digital silence.
    """

    network_file = "audio_to_expression.onnx"
    constants_file = "expression_constants.safetensors"

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """See ExpressionModel."""
        super().__init__(folder, threads)
        self.silence: Float32 = self.constants["silence"]

    def predict(self, window: Float32) -> Float32:
        """Return the expression of one window's frame: float32 [E] in units of the person's spread.

        Each call runs one window: the bits of a batched matrix product may depend on the size of the batch.

        Args:
            window: float32 [25, 4, 24], see input_rows.
        """
        coefficients: Float32 = run(self._network, window=window[None])[0][0]
        return coefficients


def pooled_window(window: Float32) -> Float32:
    """Return the features of a window that a correction takes [25, 4, 24]: float32 [121], the last number 1."""
    return pooled_rows(window[WINDOW_PAST - POOLED_PAST :], POOLED_PAST)


class EverybodyPredictor(ExpressionPredictor):
    """The predictor `everybody` of one person, with four frames of features after a frame."""

    def __init__(self, models: MotionModels, style: Style, constraints: ConstraintConfig | None = None) -> None:
        """Start at the first frame. Arguments: see services.motion.predictor.Predictor.open."""
        self._model = EverybodyModel.of(models)
        super().__init__(self._model, models, style, constraints, silent_input(WINDOW_PAST, self._model.silence), WINDOW_AHEAD)
        self._correction = style.added.get(CORRECTION)
        self._contents = ContentStream()

    def _silence(self, num_frames: int) -> SpeechFeatures:
        return silent_speech(num_frames, self._model.silence)

    def _inputs_of(self, features: SpeechFeatures) -> Float32:
        return input_rows(identity_removed(features), self._contents.push(features))

    def _predict(self, first: int, inputs: Float32, speaking: Float32, voiced: Float32) -> Motion:
        return motion_of_windows(first, inputs, speaking, voiced, WINDOW, self._spoken)

    def _spoken(self, window: Float32, voiced: float) -> Float32:
        """Return the mouth of a window [25, 4, 24]: float32 [59, 3], before constraints."""
        coefficients = self._model.predict(window)
        if self._correction is not None:
            coefficients = coefficients + np.float32(voiced) * (self._correction @ pooled_window(window))
        return self._mouth(coefficients)


def personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[StyleStep]:
    """Refine a style for `everybody`. Arguments and errors: see services.motion.predictor.Predictor.

    Yields:
        One step per block of frames, then the refined style. The loss of the last step is the loss on held-out blocks
        (correction.choose_ridge).

    Raises:
        InvalidRequestError: the features have no ID-removed cepstra.
    """
    frames = frames_to_learn_from(footage.usable)
    model = EverybodyModel.of(models)
    rows = network_input(features, model.silence)
    spread = expression_spread(style.spread, models.basis, model.basis).astype(np.float64)
    target = true_coefficients(footage, frames, style, model.basis, spread)

    def predict(frame: int) -> WindowPrediction:
        window = rows[frame : frame + WINDOW]
        return WindowPrediction(model.predict(window), pooled_window(window))

    errors = yield from predict_in_blocks(frames, target, predict)
    choice = choose_ridge(errors.pooled, errors.residual, movement_weights(spread, model.basis))
    correction = fit_correction(errors.pooled, errors.residual, choice.ridge)
    yield StyleStep(len(frames) + 1, len(frames) + 1, min(choice.loss, 1.0), style.adding(**{CORRECTION: correction}))


PREDICTOR: Final = Predictor(
    spec=PREDICTORS["everybody"],
    version=EverybodyModel.version_of,
    open=EverybodyPredictor,
    personalize=personalize,
    style_arrays={CORRECTION: lambda models: (len(EverybodyModel.of(models).basis.typical_spread), NUM_POOLED)},
)
