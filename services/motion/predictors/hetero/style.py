"""The style of a person for `hetero`: the arrays that every style holds, and the vectors of reference mouths and pose landmarks.

Xie et al. 2021, Sec. 3.2.1: the reference is a global condition, the mean over any number of landmark frames. Here the reference
is the enrolment, so the vector is part of the style.

The paper's pose landmarks come from the frame that is dubbed, and show the head pose of this frame. All landmarks of this stage are
in head space, where the head pose is taken out. What is left is the shape of the person's upper face. So we take the mean of the
pose landmarks over the enrolment, and their vector is part of the style too.
"""

from __future__ import annotations

from typing import Final

from services.common.array_types import Float32
from services.common.errors import InvalidRequest
from services.motion.models import MotionModels
from services.motion.predictor import encode_mouths
from services.motion.predictors.hetero.model import HeteroModel
from services.motion.style import Style
from services.motion.types import Footage

REFERENCE: Final = "reference_embedding"
"""Name of the style's array with the vector of the reference mouths, float32 [C]."""
POSE: Final = "pose_embedding"
"""Name of the style's array with the vector of the pose landmarks, float32 [C]."""


def encode_hetero_style(footage: Footage, models: MotionModels) -> Style:
    """Return the style of a person from tracked footage.

    Args:
        footage: T frames. Without pose landmarks, the pose landmarks are those of the mean face.
        models: the networks.

    Raises:
        NoUsableFootage: fewer than 25 usable frames.
    """
    return with_person(encode_mouths(footage, models), footage, models)


def with_person(style: Style, footage: Footage, models: MotionModels) -> Style:
    """Return a style with the person's vectors from footage with at least one usable frame."""
    upper = footage.pose_landmarks
    reference, pose = HeteroModel.of(models).encode(
        footage.mouth_landmarks[footage.usable], None if upper is None else upper[footage.usable]
    )
    return style.adding(**{REFERENCE: reference, POSE: pose})


def knows_person(style: Style) -> bool:
    """Return whether a style has the person's vectors."""
    return REFERENCE in style.added and POSE in style.added


def person_of(style: Style) -> tuple[Float32, Float32]:
    """Return the vectors of the person's reference mouths and pose landmarks, float32 [C] each.

    Raises:
        InvalidRequest: the style was encoded for another method.
    """
    if not knows_person(style):
        raise InvalidRequest("style: the style has no reference landmarks: encode the style with method `hetero`", field="style")
    return style.added[REFERENCE], style.added[POSE]


def mean_hetero_speaker(style: Style, models: MotionModels) -> Style:
    """Return the style for the ablation: the person's own mouths with the vectors of the mean training speaker."""
    model = HeteroModel.of(models)
    return models.mean_speaker(style).adding(**{REFERENCE: model.mean_reference, POSE: model.mean_pose})
