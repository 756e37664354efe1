"""Declaration of the motion predictor `ugc` (UGC paper, Sec. III-A and III-C)."""

from __future__ import annotations

from typing import Final

from services.motion.models import MotionModels
from services.motion.pooled_speech import NUM_POOLED
from services.motion.predictor import Predictor
from services.motion.predictors.ugc.grid import CORRECTION, UgcGrid
from services.motion.predictors.ugc.inputs import WINDOW_AHEAD
from services.motion.predictors.ugc.memory import MEMORY, MOMENTS, NUM_MOMENTS
from services.motion.predictors.ugc.personalize import personalize


def _version(models: MotionModels) -> str:
    """Return the shared networks' digest: the motion network of `ugc` is exported together with the shared networks."""
    return models.version


PREDICTOR: Final = Predictor(
    name="ugc",
    frames_ahead=WINDOW_AHEAD,
    version=_version,
    open=UgcGrid,
    personalize=personalize,
    style_arrays={
        CORRECTION: lambda models: (models.num_coefficients, NUM_POOLED),
        MOMENTS: lambda _: (NUM_MOMENTS, NUM_POOLED - 1),
        MEMORY: lambda models: (models.num_coefficients, NUM_MOMENTS),
    },
)
