"""Head pose, crop and render box: where head space, frame pixels, crop pixels and box pixels meet (docs/coordinates.md).

    frame = scale * R @ head + translation   weak perspective (Umeyama 1991), fitted on rigid points only
    crop  = A @ [frame, 1]                   similarity: scale 1 / s, roll removed; MOUTH_ANCHOR lands on ANCHOR_IN_CROP
    box   = crop - BOX_ORIGIN

Head poses are also weak-perspective cameras of services/common/geometry, and vectors of six numbers, which motion predicts and by
which backgrounds are matched:

    (pitch, yaw, roll, x, y, scale)

Angles are radians (Euler angles of docs/coordinates.md). x and y are the position of the head's origin, frame pixels. Scale is
frame pixels per head-space pixel.

The vectors hold no depth of the origin: a weak-perspective picture does not show the depth. Poses of vectors have depth 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64
from services.common.errors import InvalidRequestError
from services.common.face.landmarks import STABLE
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.rotations import euler_from_matrix, matrix_from_euler

CROP_SIZE: Final = 256
"""Side of the square face crop, crop pixels. The face (vertex 234 to 454) is about 185 px wide."""
ANCHOR_IN_CROP: Final = (128.0, 160.0)
"""Place of the origin of head space (between the lips of the mean head) in the crop: x, y."""
BOX_ORIGIN: Final = (48, 96)
"""Left and top of the render box inside the crop."""
BOX_SIZE: Final = 160
"""Side of the square render box: texture bank, warp and renderer see only this part of the crop."""
CHEEKS_BOTTOM: Final = 96
"""Row of the render box down to which the edge of the lower face is cheek, which rests during speech. Below are the moving jaw, the
neck and the collar.
"""

MIN_SCALE: Final = 1e-3
MAX_SCALE: Final = 1e3
"""Largest scale of a head pose, frame pixels per head-space pixel: a face of 185,000 pixels. MIN_SCALE is a face of a fifth of a
pixel."""
MAX_FRAME_PX: Final = 1e6
"""Largest coordinate in a frame, frame pixels. Sums of squares of such numbers stay far below the largest float32."""
MAX_HEAD_PX: Final = 1e4
"""Largest coordinate in head space, crop pixels; a head is about 200 wide."""
MAX_BOX_PX: Final = 1e5
"""Largest coordinate of a landmark in render-box pixels."""

_TEMPLATE_FILE = Path(__file__).with_name("head_template.npy")
_MIN_SPREAD_PX: Final = 1e-3
_MIN_BREADTH: Final = 1e-2
POSE_NUMBERS: Final = 13
"""Numbers of a head pose: scale, rotation by rows, translation."""
POSE_SIZE: Final = 6
"""Numbers per vector."""
_MAX_ANGLE: Final = 10.0
"""Largest angle, radians. Euler angles lie within pi; unwrapped angles can lie a little beyond."""


def head_template() -> Float32:
    """Return the mean head, float32 [468, 3], crop pixels: x right, y down, z away from the camera, origin between the lips."""
    return np.asarray(np.load(_TEMPLATE_FILE), dtype=np.float32)


_STABLE_HEAD = head_template()[list(STABLE)].astype(np.float64)


@dataclass(frozen=True, slots=True)
class HeadPose:
    """Weak-perspective pose of a head: frame = scale * rotation @ head + translation.

    Attributes:
        scale: frame pixels per head-space pixel.
        rotation: float64 [3, 3], proper rotation.
        translation: float64 [3], frame pixels: position of the origin of head space (between the lips).
    """

    scale: float
    rotation: Float64
    translation: Float64

    def in_part(self, left: int, top: int) -> HeadPose:
        """Return the pose in a part of the frame: pixel (0, 0) of the part is pixel (left, top) of the frame."""
        return HeadPose(self.scale, self.rotation, self.translation - np.array([left, top, 0.0]))

    @property
    def yaw_degrees(self) -> float:
        """Turn about the vertical of a head whose tilt is taken out, degrees; positive: the nose points to the image's right."""
        across, _ = self._nose
        return math.degrees(math.atan2(-across, float(self.rotation[2, 2])))

    @property
    def pitch_degrees(self) -> float:
        """Nod of a head whose tilt is taken out, degrees; positive when the nose points down."""
        _, down = self._nose
        return math.degrees(math.asin(min(max(-down, -1.0), 1.0)))

    @property
    def _nose(self) -> tuple[float, float]:
        """x and y of the axis through the nose in `without_tilt`, in a twentieth of the time: a frame asks several times."""
        (right, away_x), (down, away_y) = self.rotation[:2, ::2].tolist()
        length = math.hypot(right, down)
        cos, sin = (right / length, down / length) if length else (1.0, 0.0)
        return cos * away_x + sin * away_y, cos * away_y - sin * away_x

    @property
    def roll_degrees(self) -> float:
        """Tilt in the image plane, degrees; positive is clockwise on the screen."""
        return float(np.degrees(np.arctan2(self.rotation[1, 0], self.rotation[0, 0])))


def without_tilt(rotations: Float64) -> Float64:
    """Return heads, rotations float64 [..., 3, 3], as the crop shows them: not tilted in the image plane (`roll_degrees` 0)."""
    right = rotations[..., :2, 0]
    length = np.linalg.norm(right, axis=-1)[..., None]
    # In an exact profile, the x axis of the head is not seen, and no tilt either.
    cos, sin = np.moveaxis(np.where(length > 0, right / np.where(length > 0, length, 1.0), (1.0, 0.0)), -1, 0)[..., None]
    across, down, away = np.moveaxis(rotations, -2, 0)
    return np.stack([cos * across + sin * down, cos * down - sin * across, away], axis=-2)


def fit_head_pose(landmarks: npt.NDArray[np.floating]) -> HeadPose:
    """Return the least-squares similarity from the mean head to one face (Umeyama 1991), on STABLE points.

    Args:
        landmarks: float [>= 468, 3], frame pixels, z negative towards the camera.
    """
    return _fitted(landmarks)[0]


def face_shape_problem(landmarks: npt.NDArray[np.floating]) -> str:
    """Return why no head pose can be fitted to landmarks, as the end of a sentence; empty where a head pose can be fitted.

    Args:
        landmarks: float [>= 468, 3], frame pixels, finite.
    """
    if float(np.ptp(np.asarray(landmarks, np.float64)[list(STABLE)], axis=0).max()) < _MIN_SPREAD_PX:
        return "all points lie in one place"
    pose, singular = _fitted(landmarks)
    if not MIN_SCALE <= pose.scale <= MAX_SCALE:
        return f"they are {pose.scale:.3g} times as large as the mean head, not {MIN_SCALE:g} to {MAX_SCALE:g} times"
    if not singular[1] > _MIN_BREADTH * singular[0]:
        return "the points lie on one line"
    return ""


def _fitted(landmarks: npt.NDArray[np.floating]) -> tuple[HeadPose, Float64]:
    """Return the head pose, and the singular values: how far the points stretch along three axes."""
    target = np.asarray(landmarks, dtype=np.float64)[list(STABLE)]
    source_mean, target_mean = _STABLE_HEAD.mean(0), target.mean(0)
    source, target = _STABLE_HEAD - source_mean, target - target_mean
    u, singular, vt = np.linalg.svd(target.T @ source)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float((singular * sign).sum() / (source**2).sum())
    return HeadPose(scale, rotation, target_mean - scale * rotation @ source_mean), singular


def to_head_space(points: npt.NDArray[np.floating], pose: HeadPose) -> Float32:
    """Return frame pixels [..., 3] in head space, float32 [..., 3]: R^T (x - t) / s."""
    return np.asarray((np.asarray(points, np.float64) - pose.translation) @ pose.rotation / pose.scale, np.float32)


def to_frame(points: npt.NDArray[np.floating], pose: HeadPose) -> Float32:
    """Return head-space points [..., 3] in frame pixels, float32 [..., 3]: s R x + t."""
    return np.asarray(pose.scale * np.asarray(points, np.float64) @ pose.rotation.T + pose.translation, np.float32)


def crop_from_frame(pose: HeadPose) -> Float64:
    """Return the similarity frame pixels -> crop pixels, float64 [2, 3]."""
    angle = -np.radians(pose.roll_degrees)
    cos, sin = np.cos(angle) / pose.scale, np.sin(angle) / pose.scale
    linear = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([linear, np.array(ANCHOR_IN_CROP) - linear @ pose.translation[:2]])


def box_from_frame(pose: HeadPose) -> Float64:
    """Return the similarity frame pixels -> render-box pixels, float64 [2, 3]."""
    affine = crop_from_frame(pose)
    affine[:, 2] -= BOX_ORIGIN
    return affine


def corners_of_box(frame_from_box: Float64) -> Float32:
    """Return the four corners of the render box in frame pixels, float32 [4, 2].

    Args:
        frame_from_box: float64 [2, 3], box pixels to frame pixels.
    """
    return apply_affine(frame_from_box, np.array([[0, 0], [BOX_SIZE, 0], [0, BOX_SIZE], [BOX_SIZE, BOX_SIZE]], np.float64))


def region_around_box(pose: HeadPose, margin: float) -> tuple[int, int, int, int]:
    """Return the left, top, right and bottom edge of the frame pixels within a margin, pixels, around the render box of a face.

    Right and bottom are outside. The edges may lie outside of the frame.
    """
    corners = corners_of_box(invert(box_from_frame(pose))).astype(np.float64)
    left, top = np.floor(corners.min(axis=0) - margin).astype(int).tolist()
    right, bottom = np.ceil(corners.max(axis=0) + margin).astype(int).tolist()
    return left, top, right, bottom


def invert(affine: Float64) -> Float64:
    """Return the inverse of a 2 x 3 affine map, float64 [2, 3]."""
    linear = np.linalg.inv(affine[:, :2])
    return np.column_stack([linear, -linear @ affine[:, 2]])


def apply_affine(affine: Float64, points: npt.NDArray[np.floating]) -> Float32:
    """Return `affine` [2, 3] of points [..., >= 2] (x, y first), float32 [..., 2]."""
    return np.asarray(np.asarray(points, np.float64)[..., :2] @ affine[:, :2].T + affine[:, 2], np.float32)


def head_to_box(points: npt.NDArray[np.floating], pose: HeadPose) -> Float32:
    """Return head-space points [..., 3] in render-box pixels, float32 [..., 2].

    Scale, roll and position cancel: only yaw and pitch of the pose act. The same mouth in the same head orientation lies at the
    same position in the box in any footage.
    """
    return apply_affine(box_from_frame(pose), to_frame(points, pose))


def weak_perspective_of(poses: Sequence[HeadPose]) -> WeakPerspective:
    """Return the camera of a clip of T frames, float64, from the clip's head poses."""
    return WeakPerspective(
        np.array([pose.scale for pose in poses], np.float64),
        np.array([pose.rotation for pose in poses], np.float64).reshape(-1, 3, 3),
        np.array([pose.translation for pose in poses], np.float64).reshape(-1, 3),
    )


def numbers_of_poses(poses: Sequence[HeadPose]) -> Float64:
    """Return head poses as float64 [N, 13]: scale, rotation by rows, translation."""
    numbers = [(pose.scale, *pose.rotation.ravel(), *pose.translation) for pose in poses]
    return np.array(numbers, np.float64).reshape(-1, POSE_NUMBERS)


def poses_of_numbers(numbers: Float64) -> list[HeadPose]:
    """Return the head poses of `numbers_of_poses`, exactly."""
    return [HeadPose(float(row[0]), row[1:10].reshape(3, 3), row[10:]) for row in numbers]


def head_poses_of(camera: WeakPerspective) -> list[HeadPose]:
    """Return one HeadPose per frame of a camera with one leading axis T, or with none."""
    scale, rotation, translation = (
        np.asarray(_numpy(part), np.float64) for part in (camera.scale, camera.rotation, camera.translation)
    )
    rows = zip(np.atleast_1d(scale), rotation.reshape(-1, 3, 3), translation.reshape(-1, 3), strict=True)
    return [HeadPose(float(s), r, t) for s, r, t in rows]


def _numpy(value: Any) -> Any:
    return value if isinstance(value, np.ndarray | float) else value.detach().cpu().numpy()


def check_pose_vectors(vectors: Float64, field: str) -> None:
    """Raise InvalidRequestError where a vector of [T, 6] has an angle beyond 10 rad, a position beyond MAX_FRAME_PX, or a scale out
    of range."""
    limits = np.array([_MAX_ANGLE] * 3 + [MAX_FRAME_PX] * 2 + [MAX_SCALE])
    # NaN fails these comparisons.
    fits = (np.abs(vectors) <= limits) & (vectors >= np.array([-np.inf] * 5 + [MIN_SCALE]))
    if not fits.all():
        row, column = np.argwhere(~fits)[0].tolist()
        expected = f"{MIN_SCALE:g} to {MAX_SCALE:g}" if column == POSE_SIZE - 1 else f"{-limits[column]:g} to {limits[column]:g}"
        name = ("pitch", "yaw", "roll", "x", "y", "scale")[column]
        raise InvalidRequestError(f"{field}: {name} of frame {row} is {vectors[row, column]:g}, not {expected}", field=field)


def pose_vectors(poses: Sequence[HeadPose]) -> Float64:
    """Return head poses as vectors, float64 [T, 6]."""
    rotations = np.array([pose.rotation for pose in poses]).reshape(-1, 3, 3)
    translations = np.array([(*pose.translation[:2], pose.scale) for pose in poses], np.float64).reshape(-1, 3)
    return np.concatenate([np.asarray(euler_from_matrix(rotations), np.float64), translations], axis=1)


def pose_of_vector(vector: Float64) -> HeadPose:
    """Return the head pose of one vector, float64 [6]."""
    rotation = matrix_from_euler(np.asarray(vector[:3], np.float64))
    return HeadPose(float(vector[5]), np.asarray(rotation), np.array([vector[3], vector[4], 0.0]))
