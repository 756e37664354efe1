"""Declaration of the motion predictor `hetero` (Realistic Visual Dubbing, Xie et al. 2021, Sec. 3.2)."""

from __future__ import annotations

from typing import Final

from services.motion.models import MotionModels
from services.motion.predictor import Predictor
from services.motion.predictors.hetero.grid import CORRECTION, HeteroGrid
from services.motion.predictors.hetero.inputs import WINDOW_AHEAD
from services.motion.predictors.hetero.model import HeteroModel
from services.motion.predictors.hetero.personalize import personalize
from services.motion.predictors.hetero.style import POSE, REFERENCE, encode_hetero_style, mean_hetero_speaker
from services.motion.speech_states import NUM_POOLED_STATES, STATES
from services.motion.types import SHARED_FEATURES


def _vector_shape(models: MotionModels) -> tuple[int, ...]:
    return HeteroModel.of(models).mean_reference.shape


PREDICTOR: Final = Predictor(
    name="hetero",
    frames_ahead=WINDOW_AHEAD,
    version=HeteroModel.version_of,
    open=HeteroGrid,
    personalize=personalize,
    features=(*SHARED_FEATURES, STATES),
    style_arrays={
        REFERENCE: _vector_shape,
        POSE: _vector_shape,
        CORRECTION: lambda models: (models.num_coefficients, NUM_POOLED_STATES),
    },
    encode_style=encode_hetero_style,
    mean_style=mean_hetero_speaker,
)
