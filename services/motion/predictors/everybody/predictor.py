"""Declarations of the motion predictors `everybody` (Everybody's Talkin', Sec. 3.2.2) and `everybody_live`.

Both read the same style, and differ in the speech map that answers the larger part of the mouth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from services.motion.constraints import ConstraintConfig
from services.motion.grid import MotionGrid
from services.motion.models import MotionModels
from services.motion.personalization import Step
from services.motion.predictor import Predictor
from services.motion.predictors.everybody.grid import CORRECTION, EverybodyGrid
from services.motion.predictors.everybody.inputs import FEATURE, WINDOW_AHEAD
from services.motion.predictors.everybody.model import EverybodyModel
from services.motion.predictors.everybody.personalize import personalized
from services.motion.speech_map import FILES, LIVE, Hearing, SpeechMapModel, correction_shape
from services.motion.style import Style
from services.motion.types import SHARED_FEATURES, Footage, SpeechFeatures


def predictor_of(name: str, hearing: Hearing) -> Predictor:
    """Return the predictor that hears the states of files, or of live speech."""

    def open_grid(models: MotionModels, style: Style, constraints: ConstraintConfig | None) -> MotionGrid:
        return EverybodyGrid(models, style, constraints, hearing)

    def personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[Step]:
        return personalized(hearing, style, features, footage, models)

    def version(models: MotionModels) -> str:
        return f"{EverybodyModel.version_of(models)}-{SpeechMapModel.of(models).maps[hearing.feature].version}"

    return Predictor(
        name=name,
        frames_ahead=WINDOW_AHEAD,
        version=version,
        open=open_grid,
        personalize=personalize,
        features=(*SHARED_FEATURES, FEATURE, hearing.feature),
        style_arrays={CORRECTION: correction_shape},
    )


PREDICTOR: Final = predictor_of("everybody", FILES)
PREDICTOR_LIVE: Final = predictor_of("everybody_live", LIVE)
