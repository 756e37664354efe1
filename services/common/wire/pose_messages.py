"""HeadPose messages to and from head poses."""

from __future__ import annotations

from typing import Final

import numpy as np

from dubstage.common.v1alpha1 import common_pb2
from services.common.errors import InvalidRequest
from services.common.face.crops import MAX_FRAME_PX, MAX_SCALE, MIN_SCALE, HeadPose

_ROTATION_TOLERANCE: Final = 1e-3


def pose_from_proto(message: common_pb2.HeadPose, field: str) -> HeadPose:
    """Return a head pose.

    Raises:
        InvalidRequest: numbers are missing or not finite, the scale is outside MIN_SCALE to MAX_SCALE, the translation is further
            than MAX_FRAME_PX from the frame's corner, or the matrix is no rotation.
    """
    if len(message.rotation) != 9 or len(message.translation) != 3:
        raise InvalidRequest(
            f"{field}: 9 numbers of rotation and 3 of translation are needed, "
            f"got {len(message.rotation)} and {len(message.translation)}",
            field=field,
        )
    rotation = np.array(message.rotation, dtype=np.float64).reshape(3, 3)
    translation = np.array(message.translation, dtype=np.float64)
    # NaN fails each of these comparisons.
    if not MIN_SCALE <= message.scale <= MAX_SCALE:
        raise InvalidRequest(
            f"{field}.scale: {message.scale:g} frame pixels a head-space pixel are not between {MIN_SCALE:g} and {MAX_SCALE:g}",
            field=f"{field}.scale",
        )
    if not (np.abs(translation) <= MAX_FRAME_PX).all():
        raise InvalidRequest(
            f"{field}.translation: {translation.tolist()} is not within {MAX_FRAME_PX:g} pixels of the frame's corner",
            field=f"{field}.translation",
        )
    bounded = bool((np.abs(rotation) <= 1.0 + _ROTATION_TOLERANCE).all())
    if not bounded or np.abs(rotation @ rotation.T - np.eye(3)).max() > _ROTATION_TOLERANCE or np.linalg.det(rotation) < 0:
        raise InvalidRequest(f"{field}.rotation is not a rotation matrix", field=f"{field}.rotation")
    return HeadPose(message.scale, rotation, translation)


def pose_to_proto(pose: HeadPose) -> common_pb2.HeadPose:
    """Return a head pose as a message."""
    return common_pb2.HeadPose(scale=pose.scale, rotation=pose.rotation.ravel().tolist(), translation=pose.translation.tolist())
