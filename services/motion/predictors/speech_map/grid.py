"""The predictor `speech_map` on the 25 frames/s grid.

Each grid frame n is a pure function of the states of frames n - b .. n + a (model.py), so the same features in other pieces give
the same bytes. A personalised style adds a correction (personalize.py), with p the states about frame n:

    coefficients = map(window) + C p(window)        in units of the person's spread
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.motion.constraints import CONTEXT_PAST, ConstraintConfig
from services.motion.grid import Grid, amplified, motion_of_windows
from services.motion.models import MotionModels
from services.motion.predictors.speech_map.model import Hearing, SpeechMapModel
from services.motion.speech_states import pooled_states, silence_with_states, silent_states, states_of
from services.motion.style import Style
from services.motion.types import Motion, SpeechFeatures

CORRECTION: Final = "speech_map_correction"
"""Name of the style's array C, float32 [K, 49]. A style has this array once it is personalised for `speech_map`."""


class SpeechMapGrid(Grid):
    """The predictor `speech_map` of one person on the grid."""

    def __init__(
        self, model: SpeechMapModel, hearing: Hearing, models: MotionModels, style: Style, constraints: ConstraintConfig | None
    ) -> None:
        """Start at the first frame.

        Args:
            model: the maps.
            hearing: which map to use.
            models: as services.motion.predictor.Predictor.open takes it, as are `style` and `constraints`.
            style: the person.
            constraints: see Grid.
        """
        self._map, self._basis = model.maps[hearing.feature], model.basis
        past = max(hearing.past, CONTEXT_PAST)
        super().__init__(style, constraints, self._silence(past), silent_states(past), hearing.ahead)
        self._first = past - hearing.past
        self._spread = model.spread(style.spread, models)
        self._correction = style.added.get(CORRECTION)

    def _silence(self, num_frames: int) -> SpeechFeatures:
        return silence_with_states(num_frames, self._map.hearing.feature)

    def _hear(self, features: SpeechFeatures) -> Float32:
        return states_of(features, self._map.hearing.feature)

    def _predict(self, first: int, heard: Float32, speaking: Float32, voiced: Float32) -> Motion:
        return motion_of_windows(first, heard[self._first :], speaking, voiced, self._map.hearing.width, self._mouth)

    def _mouth(self, window: Float32, voiced: float) -> Float32:
        """Return the mouth of a window of states: float32 [59, 3], before constraints."""
        coefficients = self._map.predict(window)
        if self._correction is not None:
            coefficients = coefficients + np.float32(voiced) * (self._correction @ pooled_states(window, self._map.hearing.past))
        offsets = self._basis.reconstruct((coefficients * self._spread).astype(np.float32))
        return amplified(self._style.rest_mouth + offsets, self._style)
