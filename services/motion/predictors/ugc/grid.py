"""The predictor `ugc` on the 25 frames/s grid.

Each grid frame n is a pure function of the features of frames n - 32 .. n + 2, so the same features in other pieces give the same
bytes. A personalised style adds a correction (personalize.py), with p the speech of frames n - 6 .. n + 2 pooled over time:

    coefficients = network(window) + C p(window)        in units of the person's spread

A style that was personalised on minutes of footage also adds what the person's own moments tell (memory.py).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.motion.constraints import ConstraintConfig
from services.motion.features import ContentStream, content_before
from services.motion.grid import Grid, amplified, motion_of_windows
from services.motion.models import MotionModels
from services.motion.predictors.ugc.inputs import WINDOW, WINDOW_AHEAD, WINDOW_PAST, pooled_content
from services.motion.predictors.ugc.memory import remembered
from services.motion.predictors.ugc.model import UgcModel
from services.motion.style import Style
from services.motion.types import Motion, SpeechFeatures

CORRECTION: Final = "landmark_correction"
"""Name of the style's array C, float32 [K, 126]. A style has this array once it is personalised for `ugc`."""


def landmarks_of_frame(content: Float32, style: Style, models: MotionModels, voiced: float = 1.0) -> Float32:
    """Return the mouth of a window of content rows [35, 4, 44]: float32 [59, 3], full size, before constraints.

    Args:
        content: the rows.
        style: the person.
        models: the shared networks.
        voiced: share of the person's correction, 0 to 1.
    """
    coefficients = UgcModel.of(models).predict(content, style.modulation)
    correction = style.added.get(CORRECTION)
    if correction is not None:
        pooled = pooled_content(content)
        coefficients = coefficients + np.float32(voiced) * (correction @ pooled)
        memory = remembered(pooled, style)
        if memory is not None:
            coefficients = coefficients + np.float32(voiced) * memory
    return style.rest_mouth + models.basis.reconstruct((coefficients * style.spread).astype(np.float32))


class UgcGrid(Grid):
    """The predictor `ugc` of one person on the grid, with two frames of features after a frame."""

    def __init__(self, models: MotionModels, style: Style, constraints: ConstraintConfig | None = None) -> None:
        """Start at the first frame. Arguments: see services.motion.predictor.Predictor.open."""
        super().__init__(style, constraints, content_before(WINDOW_PAST), WINDOW_AHEAD)
        self._models = models
        self._contents = ContentStream()

    def _hear(self, features: SpeechFeatures) -> Float32:
        return self._contents.push(features)

    def _predict(self, first: int, heard: Float32, speaking: Float32, voiced: Float32) -> Motion:
        return motion_of_windows(first, heard, speaking, voiced, WINDOW, self._mouth)

    def _mouth(self, window: Float32, voiced: float) -> Float32:
        return amplified(landmarks_of_frame(window, self._style, self._models, voiced), self._style)
