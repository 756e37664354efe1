"""Declaration of the motion predictor `headpose` (headpose paper, Sec. 3.2)."""

from __future__ import annotations

from typing import Final

from services.motion.predictor import Predictor
from services.motion.predictors.headpose.grid import HeadposeGrid
from services.motion.predictors.headpose.model import MOUTH, HeadposeModel
from services.motion.predictors.headpose.personalize import personalize
from services.motion.predictors.headpose.style import STYLE_ARRAYS, encode_head_style, mean_head_speaker
from services.motion.types import SHARED_FEATURES

PREDICTOR: Final = Predictor(
    name="headpose",
    frames_ahead=MOUTH.ahead,
    version=HeadposeModel.version_of,
    open=HeadposeGrid,
    personalize=personalize,
    features=(*SHARED_FEATURES, MOUTH.feature),
    moves_head=True,
    style_arrays=STYLE_ARRAYS,
    encode_style=encode_head_style,
    mean_style=mean_head_speaker,
)
