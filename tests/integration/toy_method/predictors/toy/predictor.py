"""The toy's motion predictor: the mouth opens as far as the speech probability says, by an amount that a person's style holds."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.common.face.landmarks import INNER_LOWER_MIDDLE, mouth_area_positions
from services.common.methods import PREDICTORS
from services.motion.constraints import CONTEXT_AHEAD, CONTEXT_PAST, ConstraintConfig
from services.motion.features import silence
from services.motion.models import MotionModels
from services.motion.person_predictor import PersonPredictor
from services.motion.predictor import Predictor, StyleStep
from services.motion.style import Style
from services.motion.types import Footage, Motion, SpeechFeatures

DROP: Final = "toy_drop"
"""Name of the style's array, float32 [1]: head-space pixels that the lower lip drops in speech."""
_DROP_PX: Final = 6.0
_PERSONAL_DROP_PX: Final = 12.0


class ToyPredictor(PersonPredictor):
    """The toy predictor of one person on the 25 frames/s grid."""

    def __init__(self, models: MotionModels, style: Style, constraints: ConstraintConfig | None) -> None:
        super().__init__(style, constraints, self._inputs_of(silence(CONTEXT_PAST)), CONTEXT_AHEAD)
        self._drop_px = float(style.added.get(DROP, np.full(1, _DROP_PX))[0])

    def _inputs_of(self, features: SpeechFeatures) -> Float32:
        return features.mel

    def _predict(self, first: int, heard: Float32, speaking: Float32, voiced: Float32) -> Motion:
        mouths = np.repeat(self._style.closed_mouth[None], len(speaking), axis=0)
        mouths[:, mouth_area_positions(INNER_LOWER_MIDDLE), 1] += self._drop_px * speaking[:, None]
        return Motion(first, mouths, speaking)


def _personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[StyleStep]:
    yield StyleStep(1, 1, 0.0, style.adding(**{DROP: np.full(1, _PERSONAL_DROP_PX, np.float32)}))


PREDICTOR: Final = Predictor(
    spec=PREDICTORS["toy"],
    version=lambda _: "toy-1",
    open=ToyPredictor,
    personalize=_personalize,
    style_arrays={DROP: lambda _: (1,)},
)
