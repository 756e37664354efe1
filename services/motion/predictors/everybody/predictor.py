"""Declaration of the motion predictor `everybody` (Everybody's Talkin', Sec. 3.2.2)."""

from __future__ import annotations

from typing import Final

from services.motion.models import MotionModels
from services.motion.predictor import Predictor
from services.motion.predictors.everybody.grid import CORRECTION, EverybodyGrid
from services.motion.predictors.everybody.inputs import FEATURE, NUM_POOLED_WINDOW, WINDOW_AHEAD
from services.motion.predictors.everybody.model import EverybodyModel
from services.motion.predictors.everybody.personalize import personalize
from services.motion.types import SHARED_FEATURES


def _correction_shape(models: MotionModels) -> tuple[int, int]:
    return len(EverybodyModel.of(models).basis.typical_spread), NUM_POOLED_WINDOW


PREDICTOR: Final = Predictor(
    name="everybody",
    frames_ahead=WINDOW_AHEAD,
    version=EverybodyModel.version_of,
    open=EverybodyGrid,
    personalize=personalize,
    features=(*SHARED_FEATURES, FEATURE),
    style_arrays={CORRECTION: _correction_shape},
)
