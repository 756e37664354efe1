"""A whole face in a request: landmarks, and the head pose that belongs to the landmarks."""

from __future__ import annotations

from typing import Final

import numpy as np

from dubstage.common.v1alpha1 import common_pb2
from services.common.array_types import Float32
from services.common.errors import InvalidRequest
from services.common.face.crops import MAX_FRAME_PX, MAX_HEAD_PX, HeadPose, face_shape_problem, fit_head_pose, to_head_space
from services.common.face.landmarks import NUM_LANDMARKS
from services.common.wire.arrays import from_tensor
from services.common.wire.pose_messages import pose_from_proto

_OTHER_SCALE: Final = 10.0
"""Largest factor between the scale of a pose and the scale of its landmarks. Smoothing makes a few per cent."""


def face_from_proto(points: common_pb2.Tensor, place: common_pb2.HeadPose, field: str) -> tuple[Float32, HeadPose]:
    """Return landmarks of a whole face, float32 [478, 3], frame pixels, and their head pose.

    Raises:
        InvalidRequest: the points are no face, the pose cannot be used, or the pose does not belong to the landmarks.
    """
    where = f"{field}.landmarks"
    landmarks: Float32 = from_tensor(points, where, dtype=np.float32, shape=(NUM_LANDMARKS, 3), limit=MAX_FRAME_PX)
    if problem := face_shape_problem(landmarks):
        raise InvalidRequest(f"{where}: these points are no face: {problem}", field=where)
    pose = pose_from_proto(place, f"{field}.pose")
    own = fit_head_pose(landmarks)
    if not 1.0 / _OTHER_SCALE <= own.scale / pose.scale <= _OTHER_SCALE:
        raise InvalidRequest(
            f"{field}.pose: the pose has scale {pose.scale:g} and the landmarks have scale {own.scale:g}: they are not of one face",
            field=f"{field}.pose.scale",
        )
    if not np.abs(to_head_space(landmarks, pose)).max() <= MAX_HEAD_PX:
        raise InvalidRequest(
            f"{field}.pose: the landmarks lie more than {MAX_HEAD_PX:g} head-space pixels from the head: they are not of one face",
            field=f"{field}.pose.translation",
        )
    return landmarks, pose
