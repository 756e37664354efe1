"""Streams of motion, and constraints that never act."""

from __future__ import annotations

import numpy as np

from services.common.wire.timeline import Timeline
from services.motion.constraints import ConstraintConfig
from services.motion.expression import expression_spread
from services.motion.models import MotionModels
from services.motion.predictors.everyone.grid import EveryoneGrid
from services.motion.predictors.everyone.model import EveryoneModel
from services.motion.stream import MotionStream
from services.motion.style import Style
from services.motion.train.evaluate import OFF
from services.motion.types import Motion

NEVER = OFF
"""Constraints that never act."""


def opened(models: MotionModels, style: Style, timeline: Timeline, constraints: ConstraintConfig | None = None) -> MotionStream:
    return MotionStream(EveryoneGrid(models, style, constraints), timeline)


def joined(parts: list[Motion]) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks and expression of all parts."""
    found = [part.expression for part in parts if part.expression is not None]
    return np.concatenate([part.mouth_landmarks for part in parts]), np.concatenate(found)


def person_spread(models: MotionModels, style: Style) -> np.ndarray:
    """Size of each coefficient of the person, float32 [E]."""
    return expression_spread(style.spread, models.basis, EveryoneModel.of(models).basis)
