"""Head poses as vectors of six numbers. Motion predicts such vectors, and backgrounds are matched by them.

    (pitch, yaw, roll, x, y, scale)

Angles are radians (Euler angles of docs/coordinates.md). x and y are the place of the head's origin, frame pixels. Scale is frame
pixels per head-space pixel.

The vectors hold no depth of the origin: a weak-perspective picture does not show the depth. Poses of vectors have depth 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from services.common.array_types import Float64
from services.common.errors import InvalidRequest
from services.common.face.crops import MAX_FRAME_PX, MAX_SCALE, MIN_SCALE, HeadPose
from services.common.geometry.rotations import euler_from_matrix, matrix_from_euler

POSE_SIZE: Final = 6
"""Numbers per vector."""
_MAX_ANGLE: Final = 10.0
"""Largest angle, radians. Euler angles lie within pi; unwrapped angles can lie a little beyond."""


def check_pose_vectors(vectors: Float64, field: str) -> None:
    """Raise InvalidRequest where a vector of [T, 6] has an angle beyond 10 rad, a place beyond MAX_FRAME_PX, or a scale out of
    range."""
    limits = np.array([_MAX_ANGLE] * 3 + [MAX_FRAME_PX] * 2 + [MAX_SCALE])
    # NaN fails these comparisons.
    fits = (np.abs(vectors) <= limits) & (vectors >= np.array([-np.inf] * 5 + [MIN_SCALE]))
    if not fits.all():
        row, column = np.argwhere(~fits)[0].tolist()
        wanted = f"{MIN_SCALE:g} to {MAX_SCALE:g}" if column == POSE_SIZE - 1 else f"{-limits[column]:g} to {limits[column]:g}"
        name = ("pitch", "yaw", "roll", "x", "y", "scale")[column]
        raise InvalidRequest(f"{field}: {name} of frame {row} is {vectors[row, column]:g}, not {wanted}", field=field)


def pose_vectors(poses: Sequence[HeadPose]) -> Float64:
    """Return head poses as vectors, float64 [T, 6]."""
    rotations = np.array([pose.rotation for pose in poses]).reshape(-1, 3, 3)
    places = np.array([(*pose.translation[:2], pose.scale) for pose in poses], np.float64).reshape(-1, 3)
    return np.concatenate([np.asarray(euler_from_matrix(rotations), np.float64), places], axis=1)


def pose_of_vector(vector: Float64) -> HeadPose:
    """Return the head pose of one vector, float64 [6]."""
    rotation = matrix_from_euler(np.asarray(vector[:3], np.float64))
    return HeadPose(float(vector[5]), np.asarray(rotation), np.array([vector[3], vector[4], 0.0]))
