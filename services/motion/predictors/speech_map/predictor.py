"""Declarations of the motion predictors `speech_map` (files) and `speech_map_live`.

Both read the same style. A person who was enrolled before these predictors has a style without a correction, and is predicted
without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from services.motion.constraints import ConstraintConfig
from services.motion.grid import MotionGrid
from services.motion.models import MotionModels
from services.motion.personalization import Step
from services.motion.predictor import Predictor
from services.motion.predictors.speech_map.grid import CORRECTION, GAINS, SpeechMapGrid
from services.motion.predictors.speech_map.personalize import personalized
from services.motion.speech_map import FILES, LIVE, Hearing, SpeechMapModel, correction_shape
from services.motion.style import Style
from services.motion.types import SHARED_FEATURES, Footage, SpeechFeatures


def predictor_of(name: str, hearing: Hearing) -> Predictor:
    """Return the predictor that hears the states of files, or of live speech."""

    def open_grid(models: MotionModels, style: Style, constraints: ConstraintConfig | None) -> MotionGrid:
        return SpeechMapGrid(SpeechMapModel.of(models), hearing, models, style, constraints)

    def personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[Step]:
        return personalized(SpeechMapModel.of(models), hearing, style, features, footage, models)

    return Predictor(
        name=name,
        frames_ahead=hearing.ahead,
        version=lambda models: SpeechMapModel.of(models).maps[hearing.feature].version,
        open=open_grid,
        personalize=personalize,
        features=(*SHARED_FEATURES, hearing.feature),
        style_arrays={CORRECTION: correction_shape, GAINS: lambda _: (2,)},
    )


PREDICTOR: Final = predictor_of("speech_map", FILES)
PREDICTOR_LIVE: Final = predictor_of("speech_map_live", LIVE)
