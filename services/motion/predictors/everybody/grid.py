"""The predictor `everybody` on the 25 frames/s grid.

Everybody's Talkin', Sec. 3.2.2. Each frame is a pure function of its window (inputs.py), so the same features in other pieces
give the same bytes. Beyond the paper, p, b, m and silence shut the lips, and amplitude and rest mouth are the person's.

A personalised style adds a correction (personalize.py), with p the window pooled over time:

    expression = network(window) + C p(window)        in units of the person's spread
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.motion.constraints import ConstraintConfig
from services.motion.expression_grid import ExpressionGrid
from services.motion.features import ContentStream
from services.motion.grid import motion_of_windows
from services.motion.models import MotionModels
from services.motion.predictors.everybody.inputs import (
    WINDOW,
    WINDOW_AHEAD,
    WINDOW_PAST,
    heard_rows,
    heard_silence,
    identity_removed,
    pooled_window,
    silent_speech,
)
from services.motion.predictors.everybody.model import EverybodyModel
from services.motion.style import Style
from services.motion.types import Motion, SpeechFeatures

CORRECTION: Final = "expression_correction"
"""Name of the style's array C, float32 [E, 145]. A style has this array once it is personalised for `everybody`."""


class EverybodyGrid(ExpressionGrid):
    """The predictor `everybody` of one person on the grid, with four frames of features after a frame."""

    def __init__(self, models: MotionModels, style: Style, constraints: ConstraintConfig | None = None) -> None:
        """Start at the first frame. Arguments: see services.motion.predictor.Predictor.open."""
        self._model = EverybodyModel.of(models)
        before = (self._silence(WINDOW_PAST), heard_silence(WINDOW_PAST, self._model.silence))
        super().__init__(self._model, models, style, constraints, *before, WINDOW_AHEAD)
        self._correction = style.added.get(CORRECTION)
        self._contents = ContentStream()

    def _silence(self, num_frames: int) -> SpeechFeatures:
        return silent_speech(num_frames, self._model.silence)

    def _hear(self, features: SpeechFeatures) -> Float32:
        return heard_rows(identity_removed(features), self._contents.push(features))

    def _predict(self, first: int, heard: Float32, speaking: Float32, voiced: Float32) -> Motion:
        return motion_of_windows(
            first, heard, speaking, voiced, WINDOW, lambda window, share: self._mouth(self._corrected(window, share))
        )

    def _corrected(self, window: Float32, voiced: float) -> Float32:
        """Return the coefficients of one window with the person's correction, float32 [E] in units of the person's spread."""
        coefficients = self._model.predict(window)
        if self._correction is None:
            return coefficients
        return coefficients + np.float32(voiced) * (self._correction @ pooled_window(window))
