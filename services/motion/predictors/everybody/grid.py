"""The predictors `everybody` (files) and `everybody_live` on the 25 frames/s grid.

Each frame is a pure function of its window (inputs.py), so the same features in other pieces give the same bytes. The mouth is a
mean of two mouths: of the network of Everybody's Talkin', Sec. 3.2.2, and of the speech map (speech_map.py), which a personalised
style corrects (personalize.py):

    mouth = SHARE * network(window) + (1 - SHARE) * map(states about the frame)

Beyond the paper, p, b, m and silence shut the lips, and amplitude and rest mouth are the person's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.motion.constraints import ConstraintConfig
from services.motion.expression_grid import ExpressionGrid
from services.motion.features import ContentStream
from services.motion.grid import motion_of_windows
from services.motion.models import MotionModels
from services.motion.predictors.everybody.inputs import (
    NUM_HEARD,
    WINDOW,
    WINDOW_AHEAD,
    WINDOW_PAST,
    heard_rows,
    heard_silence,
    identity_removed,
    silent_speech,
)
from services.motion.predictors.everybody.model import EverybodyModel
from services.motion.speech_map import FILES, Hearing, MapMouth, SpeechMapModel
from services.motion.speech_states import NUM_STATES, beside_states, silent_states, states_of
from services.motion.style import Style
from services.motion.types import ROWS_PER_FRAME, Motion, SpeechFeatures

CORRECTION: Final = "everybody_correction"
"""Name of the style's array C, float32 [K, 49 + K]. A style has this array once it is personalised for `everybody`."""
SHARE: Final = 0.1
"""Share of the network's mouth. Leave-one-speaker-out chose the share (docs/models/audio_to_expression.md)."""


class EverybodyGrid(ExpressionGrid):
    """The predictor `everybody` of one person on the grid, with four frames of features after a frame."""

    def __init__(
        self, models: MotionModels, style: Style, constraints: ConstraintConfig | None = None, hearing: Hearing = FILES
    ) -> None:
        """Start at the first frame.

        Args:
            models: as services.motion.predictor.Predictor.open takes it, as are `style` and `constraints`.
            style: the person.
            constraints: see Grid.
            hearing: which speech map answers the other part of the mouth.
        """
        self._model, self._hearing = EverybodyModel.of(models), hearing
        heard = beside_states(heard_silence(WINDOW_PAST, self._model.silence), silent_states(WINDOW_PAST))
        super().__init__(self._model, models, style, constraints, heard, WINDOW_AHEAD)
        self._map_mouth = MapMouth(SpeechMapModel.of(models), hearing, models, style, style.added.get(CORRECTION))
        self._contents = ContentStream()

    def _silence(self, num_frames: int) -> SpeechFeatures:
        quiet = silent_speech(num_frames, self._model.silence)
        return replace(quiet, extra={**quiet.extra, self._hearing.feature: silent_states(num_frames)})

    def _hear(self, features: SpeechFeatures) -> Float32:
        """Return the network's inputs and the states of the speech encoder, float32 [T, 96 + 192]."""
        states = states_of(features, self._hearing.feature)
        return beside_states(heard_rows(identity_removed(features), self._contents.push(features)), states)

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
