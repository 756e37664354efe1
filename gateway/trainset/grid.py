"""Tracks of any frame rate on the motion grid of 25 frames/s."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2
from services.common.array_types import Bool, Float32, Float64, UInt8
from services.common.face.crops import head_template
from services.common.face.landmarks import NUM_LANDMARKS, NUM_MOUTH_AREA
from services.common.wire.timeline import MOTION_RATE

_STEP_S: Final = float(1 / MOTION_RATE)
_SAME_MOMENT_S: Final = 1e-6
LONGEST_GAP_S: Final = 2.5 * _STEP_S
"""Grid frames between two readings further apart than this are not interpolated."""
_EARS: Final = (234, 454)
"""Landmarks in front of both ears: their distance is the width of the face."""


@dataclass(frozen=True, slots=True)
class GridTrack:
    """One face on the motion grid; frame n at n / 25 s. Rows without a face are zero (scale 1, rotation the identity).

    Attributes:
        landmarks: float32 [T, 478, 3], frame pixels.
        scale, rotation, translation: float64 [T], [T, 3, 3], [T, 3]: head pose.
        mouth_landmarks: float32 [T, 59, 3], head space.
        usable: bool [T]: the mouth is seen well.
        boxes: uint8 [T, 160, 160, 3], RGB: the render box of the nearest frame.
    """

    landmarks: Float32
    scale: Float64
    rotation: Float64
    translation: Float64
    mouth_landmarks: Float32
    usable: Bool
    boxes: UInt8


def on_grid(records: npt.NDArray[Any], seconds: Float64, num_frames: int, first_frame: int = 0) -> GridTrack:
    """Return the track of one face on the motion grid.

    Values are interpolated linearly in time. Rotations are means of the matrices, made orthogonal. At 25 frames/s, values are
    copied.

    Args:
        records: FACE_RECORDs of one face in the order of their frames, at least one.
        seconds: float64 [frames of the film], presentation times from the first frame.
        num_frames: T.
        first_frame: number of the first grid frame.
    """
    times = seconds[records["frame"]]
    grid = np.arange(first_frame, first_frame + num_frames) * _STEP_S
    right = np.clip(np.searchsorted(times, grid - _SAME_MOMENT_S), 0, len(times) - 1)
    exact = np.abs(times[right] - grid) <= _SAME_MOMENT_S
    left = np.where(exact, right, np.maximum(right - 1, 0))
    gap = times[right] - times[left]
    inside = exact | ((times[left] <= grid) & (grid <= times[right]) & (gap > 0) & (gap <= LONGEST_GAP_S))
    weight = np.where(gap > 0, (grid - times[left]) / np.where(gap > 0, gap, 1.0), 0.0)
    nearest = np.where(weight > 0.5, right, left)
    seen = records["reason"] == common_pb2.FRAME_REASON_DUBBED

    def between(name: str) -> npt.NDArray[Any]:
        values = records[name]
        share = weight.reshape(-1, *[1] * (values.ndim - 1))
        mixed = np.where(share == 0.0, values[left], (1.0 - share) * values[left] + share * values[right])
        mixed[~inside] = 0
        return np.asarray(mixed, dtype=values.dtype)

    scale, rotation = between("scale"), between("rotation")
    scale[~inside], rotation[~inside] = 1.0, np.eye(3)
    mixed = inside & (weight > 0.0)
    u, _, vt = np.linalg.svd(rotation[mixed])
    rotation[mixed] = u @ vt
    boxes = records["pixels"][nearest]
    boxes[~inside] = 0
    return GridTrack(
        landmarks=between("landmarks").reshape(-1, NUM_LANDMARKS, 3),
        scale=scale,
        rotation=rotation,
        translation=between("translation"),
        mouth_landmarks=between("mouth").reshape(-1, NUM_MOUTH_AREA, 3),
        usable=inside & seen[left] & seen[right],
        boxes=boxes,
    )


def face_width(track: GridTrack) -> float:
    """Return the median width of the face over usable frames, pixels of the footage. 185 px is the resolution of the render box."""
    template = head_template()
    width = math.dist(template[_EARS[0]].tolist(), template[_EARS[1]].tolist())
    return round(float(np.median(track.scale[track.usable])) * width, 1)
