"""Declaration of the motion predictor `everyone` (the paper's Sec. 3.6)."""

from __future__ import annotations

from typing import Final

from services.motion.models import MotionModels
from services.motion.predictor import Predictor
from services.motion.predictors.everyone.grid import CORRECTION, PERSON_LAYER, EveryoneGrid
from services.motion.predictors.everyone.inputs import WINDOW_AHEAD
from services.motion.predictors.everyone.model import EveryoneModel
from services.motion.predictors.everyone.personalize import personalize
from services.motion.speech_states import NUM_POOLED_STATES, STATES
from services.motion.types import SHARED_FEATURES


def _num_coefficients(models: MotionModels) -> int:
    return len(EveryoneModel.of(models).basis.typical_spread)


PREDICTOR: Final = Predictor(
    name="everyone",
    frames_ahead=WINDOW_AHEAD,
    version=EveryoneModel.version_of,
    open=EveryoneGrid,
    personalize=personalize,
    features=(*SHARED_FEATURES, STATES),
    style_arrays={
        PERSON_LAYER: lambda models: (2, _num_coefficients(models)),
        CORRECTION: lambda models: (_num_coefficients(models), NUM_POOLED_STATES),
    },
)
