"""The motion predictors `everybody` (Everybody's Talkin', Sec. 3.2.2) and `everybody_live`, and their personalisation.

Both read the same style, and differ in the speech map that answers the larger part of the mouth. The network hears four frames
after a frame, so each frame waits for four frames. A live stream therefore has no choice of a shorter look-ahead, and takes the
live map that hears furthest ahead (MAP_LIVE), which delays no frame.

The network hears one second of ID-removed speech for a frame.

The window reaches from 0.8 s before a frame's time to 0.2 s after that time, which is 20 grid frames before the frame, the frame
itself, and four frames after (Sec. 3.2.2). Each row holds ID-removed cepstra and, beyond the paper, band energies relative to the
speech just heard: the jaw opens by loudness, and ID-removed cepstra have no loudness left.

Each frame is a pure function of its window, so the same features in other pieces give the same bytes. The mouth is a mean of two
mouths on the 25 frames/s grid: of the network, and of the speech map (services/motion/speech_map.py), which a personalised style
corrects:

    mouth = SHARE * network(window) + (1 - SHARE) * map(states about the frame)

Beyond the paper, p, b, m and silence shut the lips, and amplitude and rest mouth are the person's.

Personalisation learns a correction of the speech map from seconds of the person's footage:

    mouth = SHARE * network + (1 - SHARE) * (map + C p)        in the coefficients of the map, in units of the person's spread

The paper trains its network on a quarter of an hour of the person. This module adds what ten seconds can add to a network and a
map that never saw the person. p are states of the speech encoder about a frame and the map's answer (speech_map.correction_inputs):
so few numbers that seconds determine C (correction.py). Live speech takes the same C. Cross-validation over blocks of a second of
the footage chooses the ridge. The solution has a closed form without random numbers.
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
from services.motion.expression import ExpressionModel, ExpressionPredictor, expression_spread
from services.motion.features import BANDS, ContentStream, content_before, content_rows, silence
from services.motion.models import MotionModels
from services.motion.person_predictor import PersonPredictor, motion_of_windows
from services.motion.predictor import (
    Predictor,
    StyleStep,
    WindowPrediction,
    frames_to_learn_from,
    predict_in_blocks,
    true_coefficients,
)
from services.motion.runtime import run
from services.motion.speech_map import (
    FILES,
    LIVE_HEARINGS,
    Hearing,
    MapMouth,
    SpeechMapModel,
    correction_inputs,
    correction_shape,
)
from services.motion.speech_states import NUM_STATES, beside_states, neighbours, silent_states, states_of
from services.motion.style import Style
from services.motion.types import EXTRA_FEATURES, NUM_PHONES, ROWS_PER_FRAME, Footage, Motion, SpeechFeatures

FEATURE: Final = "identity_removed"
"""Tensor of AudioFeatureBlock that this predictor needs: cepstra of the global speaker."""
NUM_CEPSTRA: Final = EXTRA_FEATURES[FEATURE][-1]
WINDOW_PAST: Final = 20
"""Frames before the predicted frame: 0.8 s."""
WINDOW_AHEAD: Final = 4
"""Frames after the predicted frame: 0.2 s after the frame's time, 160 ms of features after the frame's own."""
MAP_LIVE: Final = LIVE_HEARINGS[max(ahead for ahead in LIVE_HEARINGS if ahead <= WINDOW_AHEAD)]
"""Input of the speech map of live speech: the longest look-ahead within the network's own."""
WINDOW: Final = WINDOW_PAST + 1 + WINDOW_AHEAD
NUM_HEARD: Final = NUM_CEPSTRA + len(BANDS)
"""Channels of a row of the window: ID-removed cepstra, then relative band energies."""
ENERGY_SCALE: Final = 0.5
"""Scale of the energies beside the cepstra. On validation clips .5 was better than 1 and better than 0."""
CORRECTION: Final = "everybody_correction"
"""Name of the style's array C, float32 [K, 49 + K]. A style has this array once it is personalised for `everybody`."""
SHARE: Final = 0.1
"""Share of the network's mouth. Leave-one-speaker-out chose the share (docs/models/audio_to_expression.md)."""


def identity_removed(features: SpeechFeatures) -> Float32:
    """Return the ID-removed cepstra, float32 [T, 4, 20].

    Raises:
        InvalidRequestError: the features have no ID-removed cepstra.
    """
    found = features.extra.get(FEATURE)
    if found is None:
        raise InvalidRequestError(f"features.{FEATURE}: missing; `everybody` needs this tensor", field=f"features.{FEATURE}")
    return found


def input_rows(removed: Float32, content: Float32) -> Float32:
    """Return network inputs, float32 [T, 4, 24].

    Args:
        removed: float32 [T, 4, 20], ID-removed cepstra.
        content: float32 [T, 4, 44], content rows, of which the energies are heard.
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


class EverybodyPredictor(ExpressionPredictor):
    """The predictor `everybody` of one person, with four frames of features after a frame."""

    def __init__(
        self, models: MotionModels, style: Style, constraints: ConstraintConfig | None = None, hearing: Hearing = FILES
    ) -> None:
        """Start at the first frame.

        Args:
            models: as services.motion.predictor.Predictor.open takes it, as are `style` and `constraints`.
            constraints: see PersonPredictor.
            hearing: which speech map answers the other part of the mouth.
        """
        self._model, self._hearing = EverybodyModel.of(models), hearing
        heard = beside_states(silent_input(WINDOW_PAST, self._model.silence), silent_states(WINDOW_PAST))
        super().__init__(self._model, models, style, constraints, heard, WINDOW_AHEAD)
        self._map_mouth = MapMouth(SpeechMapModel.of(models), hearing, models, style, style.added.get(CORRECTION))
        self._contents = ContentStream()

    def _silence(self, num_frames: int) -> SpeechFeatures:
        quiet = silent_speech(num_frames, self._model.silence)
        return replace(quiet, extra={**quiet.extra, self._hearing.feature: silent_states(num_frames)})

    def _speech_probability(self, features: SpeechFeatures) -> Float32:
        return self._map_mouth.speech_probability(features)

    def _hear(self, features: SpeechFeatures) -> Float32:
        """Return the network's inputs and the states of the speech encoder, float32 [T, 96 + 192]."""
        states = states_of(features, self._hearing.feature)
        return beside_states(input_rows(identity_removed(features), self._contents.push(features)), states)

    def _predict(self, first: int, heard: Float32, speaking: Float32, voiced: Float32) -> Motion:
        return motion_of_windows(first, heard, speaking, voiced, WINDOW, self._spoken)

    def _spoken(self, window: Float32, voiced: float) -> Float32:
        """Return the mouth of a window of network inputs and states [25, 96 + 192]: float32 [59, 3], before constraints."""
        rows = np.ascontiguousarray(window[:, :-NUM_STATES]).reshape(WINDOW, ROWS_PER_FRAME, NUM_HEARD)
        states = window[WINDOW_PAST - self._hearing.past : WINDOW_PAST + self._hearing.ahead + 1, -NUM_STATES:]
        network, mapped = self._mouth(self._model.predict(rows)), self._map_mouth(states, voiced)
        return mapped + np.float32(SHARE) * (network - mapped)

    def _closing(self, count: int, heard: Float32) -> Float32:
        return self._map_mouth.map.closing(heard, self._past, count, self._constraints)


def personalized(
    hearing: Hearing, style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels
) -> Iterator[StyleStep]:
    """Refine a style for `everybody`.

    Args:
        hearing: which speech map to correct. The correction of one map serves the other too.
        style: as services.motion.predictor.Predictor.personalize takes it, as are the other arguments.

    Yields:
        One step per block of frames, then the refined style. The loss of the last step is the loss on held-out blocks
        (correction.choose_ridge).

    Raises:
        InvalidRequestError: the features have no ID-removed cepstra, or no states of the speech encoder.
    """
    frames = frames_to_learn_from(footage.usable)
    model, speech_map = EverybodyModel.of(models), SpeechMapModel.of(models)
    rows = network_input(features, model.silence)
    states = neighbours(states_of(features, hearing.feature), hearing.past, hearing.ahead)
    network_spread = expression_spread(style.spread, models.basis, model.basis)
    spread = speech_map.spread(style.spread, models).astype(np.float64)
    target = true_coefficients(footage, frames, style, speech_map.basis, spread) / (1.0 - SHARE)

    def predict(frame: int) -> WindowPrediction:
        offsets = model.basis.reconstruct(network_spread * model.predict(rows[frame : frame + WINDOW]))
        network = speech_map.basis.project(offsets) / spread
        mapped = speech_map.maps[hearing].predict(states[frame])
        target_of_the_map = mapped + np.float32(SHARE / (1.0 - SHARE)) * network
        return WindowPrediction(np.asarray(target_of_the_map, np.float32), correction_inputs(states[frame], mapped, hearing))

    errors = yield from predict_in_blocks(frames, target, predict)
    choice = choose_ridge(errors.pooled, errors.residual, spread**2)
    correction = fit_correction(errors.pooled, errors.residual, choice.ridge)
    yield StyleStep(len(frames) + 1, len(frames) + 1, min(choice.loss, 1.0), style.adding(**{CORRECTION: correction}))


def predictor_of(name: str, hearing: Hearing) -> Predictor:
    """Return the predictor that hears the states of files, or of live speech."""

    def open_predictor(models: MotionModels, style: Style, constraints: ConstraintConfig | None) -> PersonPredictor:
        return EverybodyPredictor(models, style, constraints, hearing)

    def personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[StyleStep]:
        return personalized(hearing, style, features, footage, models)

    def version(models: MotionModels) -> str:
        return f"{EverybodyModel.version_of(models)}-{SpeechMapModel.of(models).version(hearing)}"

    return Predictor(
        spec=PREDICTORS[name],
        version=version,
        open=open_predictor,
        personalize=personalize,
        style_arrays={CORRECTION: correction_shape},
    )


PREDICTOR: Final = predictor_of("everybody", FILES)
PREDICTOR_LIVE: Final = predictor_of("everybody_live", MAP_LIVE)
