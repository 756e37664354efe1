"""The predictor `hetero` on the 25 frames/s grid.

Each grid frame n is a pure function of the states of frames n - 13 .. n + 5. So the same features in other pieces give the same
bytes. A personalised style adds a correction (personalize.py), with p the states about frame n (speech_states.py):

    coefficients = generator(window, person) + C p(window)        in units of the person's spread
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.motion.constraints import ConstraintConfig
from services.motion.grid import Grid, amplified, motion_of_windows
from services.motion.models import MotionModels
from services.motion.predictors.hetero.inputs import WINDOW, WINDOW_AHEAD, WINDOW_PAST
from services.motion.predictors.hetero.model import HeteroModel
from services.motion.predictors.hetero.style import person_of
from services.motion.speech_map import FILES, SpeechMapModel
from services.motion.speech_states import pooled_states, silence_with_states, silent_states, states_of
from services.motion.style import Style
from services.motion.types import Motion, SpeechFeatures

CORRECTION: Final = "hetero_correction"
"""Name of the style's array C, float32 [K, 49]. A style has this array once it is personalised for `hetero`."""


class HeteroGrid(Grid):
    """The predictor `hetero` of one person on the grid, with five frames of features after a frame."""

    def __init__(self, models: MotionModels, style: Style, constraints: ConstraintConfig | None = None) -> None:
        """Start at the first frame. Arguments: see services.motion.predictor.Predictor.open.

        Raises:
            InvalidRequest: the style was encoded for another method.
        """
        super().__init__(style, constraints, silent_states(WINDOW_PAST), WINDOW_AHEAD)
        self._model, self._basis = HeteroModel.of(models), models.basis
        self._lips = SpeechMapModel.of(models).maps[FILES.feature]
        self._reference, self._pose = person_of(style)
        self._correction = style.added.get(CORRECTION)

    def _silence(self, num_frames: int) -> SpeechFeatures:
        return silence_with_states(num_frames)

    def _hear(self, features: SpeechFeatures) -> Float32:
        return states_of(features)

    def _closing(self, count: int, heard: Float32) -> Float32:
        return self._lips.closing(heard, self._past, count, self._constraints)

    def _predict(self, first: int, heard: Float32, speaking: Float32, voiced: Float32) -> Motion:
        return motion_of_windows(first, heard, speaking, voiced, WINDOW, self._mouth)

    def _mouth(self, window: Float32, voiced: float) -> Float32:
        """Return the mouth of a window of states [19, 192]: float32 [59, 3], before constraints."""
        coefficients = self._model.predict(window, self._reference, self._pose)
        if self._correction is not None:
            coefficients = coefficients + np.float32(voiced) * (self._correction @ pooled_states(window, WINDOW_PAST))
        offsets = self._basis.reconstruct((coefficients * self._style.spread).astype(np.float32))
        return amplified(self._style.rest_mouth + offsets, self._style)
