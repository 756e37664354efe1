"""Motion of whole clips as the serving code answers it."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np

from services.common.array_types import Float32, Float64
from services.common.wire.timeline import Timeline
from services.motion.constraints import ConstraintConfig
from services.motion.grid import MotionGrid
from services.motion.models import MotionModels
from services.motion.predictor import Predictor
from services.motion.stream import MotionStream
from services.motion.style import Style
from services.motion.types import Motion, SpeechFeatures


def served_motion(grid: MotionGrid, features: SpeechFeatures) -> list[Motion]:
    """Return the answers of a predictor for a clip of T frames at 25 frames per second."""
    stream = MotionStream(grid, Timeline(rate=Fraction(25)), len(features))
    parts = [stream.push(0, features)]
    while (part := stream.drain()) is not None:
        parts.append(part)
    return parts


def served_mouths(grid: MotionGrid, features: SpeechFeatures) -> Float32:
    """Return the mouths of a clip, float32 [T, 59, 3]."""
    return np.concatenate([part.mouth_landmarks for part in served_motion(grid, features)])


def served_poses(grid: MotionGrid, features: SpeechFeatures) -> Float64:
    """Return the head-pose vectors of a clip, float64 [T, 6], from a predictor that moves the head."""
    return np.concatenate([part.poses for part in served_motion(grid, features) if part.poses is not None])


class ServedPredictor:
    """The serving code as protocol.Predict."""

    def __init__(self, predictor: Predictor, models: MotionModels, constraints: ConstraintConfig) -> None:
        self._predictor, self._models, self._constraints = predictor, models, constraints
        self.frames, self.seconds = 0, 0.0

    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """Return mouths float32 [T, 59, 3]."""
        begin = time.perf_counter()
        mouths = served_mouths(self._predictor.open(self._models, style, self._constraints), features)
        self.frames += len(features)
        self.seconds += time.perf_counter() - begin
        return mouths
