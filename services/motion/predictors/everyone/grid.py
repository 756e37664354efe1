"""The predictor `everyone` on the 25 frames/s grid.

Each grid frame n is a pure function of the features of frames n - 25 .. n + 10, so the same features in other pieces give the same
bytes. A personalised style adds the person's linear layer (person_layer.py) and a correction, with p the states of the speech
encoder about frame n (speech_states.py):

    expression = scale * network(window) + offset + C p(window)        in units of the person's spread

Beyond the paper, p, b, m and silence shut the lips (constraints.py), and the mouth opens from 400 ms before the speech.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.motion.constraints import WHOLE, ConstraintConfig
from services.motion.expression_grid import ExpressionGrid
from services.motion.grid import motion_of_windows
from services.motion.models import MotionModels
from services.motion.predictors.everyone.inputs import WINDOW, WINDOW_AHEAD, WINDOW_PAST
from services.motion.predictors.everyone.model import EveryoneModel
from services.motion.predictors.everyone.person_layer import apply_layer
from services.motion.speech_map import FILES, SpeechMapModel
from services.motion.speech_states import pooled_states, silence_with_states, silent_states, states_of
from services.motion.style import Style
from services.motion.types import Motion, SpeechFeatures

PERSON_LAYER: Final = "everyone_layer"
"""Name of the style's array with the linear layer of the person, float32 [2, E]: scales, then offsets."""
CORRECTION: Final = "everyone_correction"
"""Name of the style's array C, float32 [E, 49]. A style has both arrays once it is personalised for `everyone`."""


class EveryoneGrid(ExpressionGrid):
    """The predictor `everyone` of one person on the grid, with ten frames of features after a frame."""

    def __init__(self, models: MotionModels, style: Style, constraints: ConstraintConfig | None = None) -> None:
        """Start at the first frame. Arguments: see services.motion.predictor.Predictor.open.

        The default constraints are those for whole speech. A frame waits for ten frames anyway, so silence is looked for in all of
        them, also if the constraints ask for fewer.
        """
        self._model = EveryoneModel.of(models)
        asked = constraints or WHOLE
        far = replace(asked, frames_ahead=max(asked.frames_ahead, WINDOW_AHEAD))
        super().__init__(self._model, models, style, far, silent_states(WINDOW_PAST), WINDOW_AHEAD)
        self._lips = SpeechMapModel.of(models).maps[FILES.feature]
        self._layer, self._correction = style.added.get(PERSON_LAYER), style.added.get(CORRECTION)

    def _silence(self, num_frames: int) -> SpeechFeatures:
        return silence_with_states(num_frames)

    def _hear(self, features: SpeechFeatures) -> Float32:
        return states_of(features)

    def _closing(self, count: int, heard: Float32) -> Float32:
        return self._lips.closing(heard, self._past, count, self._constraints)

    def _predict(self, first: int, heard: Float32, speaking: Float32, voiced: Float32) -> Motion:
        return motion_of_windows(
            first, heard, speaking, voiced, WINDOW, lambda window, share: self._mouth(self._personal(window, share))
        )

    def _personal(self, window: Float32, voiced: float) -> Float32:
        """Return the coefficients of one window as the person speaks, float32 [E] in units of the person's spread."""
        predicted = personal = self._model.predict(window)
        if self._layer is not None:
            personal = apply_layer(self._layer, predicted)
        if self._correction is not None:
            personal = personal + self._correction @ pooled_states(window, WINDOW_PAST)
        return predicted + np.float32(voiced) * (personal - predicted)
