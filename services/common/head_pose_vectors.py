"""Head poses as vectors of six numbers: what motion predicts, and by which backgrounds are matched.

    (pitch, yaw, roll, x, y, scale)

Angles in radians (Euler angles of docs/coordinates.md); x and y where the head's origin lies in the frame, in its pixels; scale in
frame pixels a head-space pixel.

Depth of the origin is left out: a weak-perspective picture does not tell it, and it is 0 in the poses that come back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.crops import MAX_FRAME_PX, MAX_SCALE, MIN_SCALE, HeadPose
from services.common.errors import InvalidRequest
from services.common.geometry.rotations import euler_from_matrix, matrix_from_euler

Float64 = npt.NDArray[np.float64]

POSE_SIZE: Final = 6
"""Numbers of a vector."""
_MAX_ANGLE: Final = 10.0
"""Radians. Euler angles lie within pi; angles that were unwrapped go a little beyond."""


def check_pose_vectors(vectors: Float64, field: str) -> None:
    """Raises InvalidRequest where vectors [T, 6] hold angles beyond 10 rad, places beyond MAX_FRAME_PX, or scales out of range."""
    limits = np.array([_MAX_ANGLE] * 3 + [MAX_FRAME_PX] * 2 + [MAX_SCALE])
    # Written so that NaN fails.
    fits = (np.abs(vectors) <= limits) & (vectors >= np.array([-np.inf] * 5 + [MIN_SCALE]))
    if not fits.all():
        row, column = np.argwhere(~fits)[0].tolist()
        wanted = f"{MIN_SCALE:g} to {MAX_SCALE:g}" if column == POSE_SIZE - 1 else f"{-limits[column]:g} to {limits[column]:g}"
        name = ("pitch", "yaw", "roll", "x", "y", "scale")[column]
        raise InvalidRequest(f"{field}: {name} of frame {row} is {vectors[row, column]:g}, not {wanted}", field=field)


def pose_vectors(poses: Sequence[HeadPose]) -> Float64:
    """Vectors of head poses, float64 [T, 6]."""
    rotations = np.array([pose.rotation for pose in poses]).reshape(-1, 3, 3)
    places = np.array([(*pose.translation[:2], pose.scale) for pose in poses], np.float64).reshape(-1, 3)
    return np.concatenate([np.asarray(euler_from_matrix(rotations), np.float64), places], axis=1)


def pose_of_vector(vector: Float64) -> HeadPose:
    """The head pose of one vector, float64 [6]."""
    rotation = matrix_from_euler(np.asarray(vector[:3], np.float64))
    return HeadPose(float(vector[5]), np.asarray(rotation), np.array([vector[3], vector[4], 0.0]))
