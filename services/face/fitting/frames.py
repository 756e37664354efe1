"""Expression and pose of frames whose person is known, by Gauss-Newton steps on landmarks, for many frames or one frame.

For every frame the fit minimises over pose and expression beta (Everybody's Talkin', Sec. 3.1: a non-linear optimisation on the
landmarks, constrained by the linear model):

    sum_n w_n |D (x_n - project(base_n + B_n beta))|^2 / m^2 + ridge |beta / deviation|^2

x are the tracked landmarks. m is the apparent size, so that errors are crop pixels. D = diag(1, 1, sqrt(depth_weight)), because
the tracker's depth is the least certain coordinate. The camera is weak perspective (z in the tracker's unit). The weight w_n is
the product of the trust in the point, of how far the point faces the camera, and of a robust weight of the point's error (Geman
and McClure).

`HeldFrames` keeps a bounded number of frames of one face until the person is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64, UInt8
from services.common.face.crops import CROP_SIZE, HeadPose, apply_affine, crop_from_frame, fit_head_pose
from services.common.face.landmarks import NUM_LANDMARKS
from services.common.face.sampling import sample_patch
from services.common.geometry.alignment import fit_weak_perspective
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.rotations import matrix_from_axis_angle
from services.common.server.call_context import check_not_cancelled
from services.face.fitting.model import ModelLandmarks
from services.face.types import Reason, TrackedFace

MAX_FRAMES: Final = 200
"""Largest number of held frames (200 kB per frame). With more, every second frame is dropped, and later frames are taken half as
often."""
FRAME_BYTES: Final = CROP_SIZE * CROP_SIZE * 3 + NUM_LANDMARKS * 3 * 4
"""Memory of one held frame, bytes."""
_MOST_TURNED_DEGREES: Final = 30.0
"""Largest yaw of a face that is fitted, degrees. If the footage has no such face, the least turned face is fitted: the mesh guesses
the far half of a turned face."""
MIN_RIGID: Final = 8
"""Least number of landmarks that speech does not move. With at least so many, first poses are fitted only to these landmarks."""
DEPTH_WEIGHT: Final = 0.1
"""Weight of z relative to x and y."""
_ITERATIONS: Final = 3
_RIDGE: Final = 0.1
"""Cost of one deviation of a coefficient, as a squared error in crop pixels summed over the landmarks. The value follows from the
tracker's noise (0.13 px, smoothing.py), which neighbouring points share."""
_BLOCK: Final = 64
_POSE: Final = 7
_ROBUST_PX: Final = 4.0
_DAMPING: Final = 1e-6


class PlacedFace(NamedTuple):
    """Face in a crop. Attributes: landmarks float32 [478, 3], crop pixels; crop uint8 [256, 256, 3], RGB."""

    landmarks: Float32
    crop: UInt8


class HeldFrames:
    """Frames of one face, in bounded memory.

    Frames with the reason DUBBED are held, if the measured yaw is at most 30 degrees. If there are no such frames, as for
    a portrait in three-quarter view, the DUBBED frame with the smallest yaw is held as a still picture.
    """

    def __init__(self) -> None:
        self.offered = 0
        """Number of frames that were pushed."""
        self._stride = 1
        self._usable = 0
        self._frames: list[PlacedFace] = []
        self._spare: PlacedFace | None = None
        self._least_turned = np.inf

    @property
    def frames(self) -> list[PlacedFace]:
        """Return the held frames; empty if no frame can be used."""
        return self._frames or ([] if self._spare is None else [self._spare])

    def push(self, picture: UInt8, face: TrackedFace) -> None:
        """Take a frame, uint8 RGB [H, W, 3]. A frame that cannot be used (see `reason`) is skipped."""
        self.offered += 1
        if face.reason is not Reason.DUBBED:
            return
        turned = abs(face.pose.yaw_degrees)
        if turned > _MOST_TURNED_DEGREES:
            if turned < self._least_turned:
                self._least_turned, self._spare = turned, _placed(picture, face)
            return
        if self._usable % self._stride == 0:
            self._frames.append(_placed(picture, face))
            if len(self._frames) > MAX_FRAMES:
                self._stride *= 2
                self._frames = self._frames[::2]
        self._usable += 1


def placed_face(picture: UInt8, landmarks: Float32, pose: HeadPose) -> PlacedFace:
    """Return a face in the crop of a head pose.

    Args:
        picture: uint8 RGB [H, W, 3].
        landmarks: float32 [478, 3], frame pixels.
    """
    affine = crop_from_frame(pose)
    placed = np.concatenate([apply_affine(affine, landmarks), landmarks[:, 2:] / np.float32(pose.scale)], 1)
    return PlacedFace(placed, sample_patch(picture, affine, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_LINEAR))


def _placed(picture: UInt8, face: TrackedFace) -> PlacedFace:
    return placed_face(picture, face.landmarks, fit_head_pose(face.landmarks))


@dataclass(frozen=True, slots=True)
class FrameFits:
    """Results of T fitted frames.

    Attributes:
        expression: float32 [T, E], coefficients of the model.
        camera: T cameras.
        error: float32 [T], mean distance between projected and tracked landmarks, crop pixels (256 x 256).
    """

    expression: Float32
    camera: WeakPerspective
    error: Float32

    def select(self, rows: npt.NDArray[np.intp]) -> FrameFits:
        """Return the frames of the given rows."""
        return FrameFits(self.expression[rows], _of_rows(self.camera, rows), self.error[rows])


def start_cameras(face: ModelLandmarks, base: Float64, image: Float64) -> WeakPerspective:
    """Return first cameras for tracked landmarks [T, N, 3].

    The cameras follow from the points that speech does not move, or from all points if there are fewer than MIN_RIGID such points.
    """
    rigid = face.stable if face.stable.sum() >= MIN_RIGID else np.ones(len(base), bool)
    return fit_weak_perspective(base[rigid], image[:, rigid])


def fit_frames(
    face: ModelLandmarks,
    base: Float64,
    image: Float64,
    camera: WeakPerspective,
    expression: npt.NDArray[np.floating] | None = None,
) -> FrameFits:
    """Fit expression and pose of T frames.

    Args:
        face: the model's landmarks.
        base: float64 [N, 3], the person's landmarks without expression.
        image: float64 [T, N, 3], tracked landmarks, frame pixels (z in the same unit).
        camera: T cameras to start from.
        expression: [T, E], expressions to start from; None: zeros.
    """
    beta = np.zeros((len(image), face.expression.shape[-1])) if expression is None else expression / face.model.expression_deviation
    parts = [
        _fit_block(face, base, image[rows], _of_rows(camera, rows), np.asarray(beta[rows], np.float64))
        for rows in (slice(begin, begin + _BLOCK) for begin in range(0, len(image), _BLOCK))
    ]
    cameras = [part.camera for part in parts]
    return FrameFits(
        np.concatenate([part.expression for part in parts]),
        WeakPerspective(
            np.concatenate([each.scale for each in cameras]),
            np.concatenate([each.rotation for each in cameras]),
            np.concatenate([each.translation for each in cameras]),
        ),
        np.concatenate([part.error for part in parts]),
    )


def landmark_errors(projected: Float64, image: Float64, pixels_a_unit: Float64) -> Float32:
    """Return the mean distance between projected and tracked landmarks [T, N, >= 2] in crop pixels, float32 [T]."""
    distance = np.linalg.norm(projected[..., :2] - image[..., :2], axis=-1).mean(-1)
    return np.asarray(distance / pixels_a_unit, np.float32)


def _fit_block(face: ModelLandmarks, base: Float64, image: Float64, camera: WeakPerspective, beta: Float64) -> FrameFits:
    count, basis = len(image), face.expression
    size = basis.shape[-1]
    axes = np.sqrt(np.array([1.0, 1.0, DEPTH_WEIGHT]))
    prior = np.concatenate([np.full(_POSE, _DAMPING), np.full(size, _RIDGE)])
    flat = basis.reshape(-1, size).astype(np.float64)
    for step in range(_ITERATIONS):
        check_not_cancelled()
        turned = (base + (beta @ flat.T).reshape(count, -1, 3)) @ camera.rotation.mT
        residual = (image - _projected(camera, turned)) / camera.scale[:, None, None]
        weights = face.facing(camera.rotation)
        if step > 0:
            weights = weights / (1.0 + (residual[..., :2] ** 2).sum(-1) / _ROBUST_PX**2) ** 2
        # The rows are float32, which is precise enough for a step: their products take most of a frame's time.
        root = (np.sqrt(weights)[..., None] * axes).astype(np.float32)
        jacobian = np.empty((count, len(base), 3, _POSE + size), np.float32)
        jacobian[..., :_POSE] = pose_columns(turned)
        jacobian[..., _POSE:] = np.matmul(camera.rotation[:, None].astype(np.float32).reshape(count, -1, 3, 3), basis)
        jacobian *= root[..., None]
        rows = jacobian.reshape(count, -1, _POSE + size)
        right = (rows.mT @ (residual.astype(np.float32) * root).reshape(count, -1, 1))[..., 0].astype(np.float64)
        right[:, _POSE:] -= _RIDGE * beta
        change = np.linalg.solve((rows.mT @ rows).astype(np.float64) + np.diag(prior), right[..., None])[..., 0]
        beta = beta + change[:, _POSE:]
        camera = moved_cameras(camera, change[:, :_POSE])
    turned = (base + (beta @ flat.T).reshape(count, -1, 3)) @ camera.rotation.mT
    error = landmark_errors(_projected(camera, turned), image, camera.scale)
    return FrameFits((beta * face.model.expression_deviation).astype(np.float32), camera, error)


def pose_columns(turned: Float64) -> Float64:
    """Return the derivatives [T, N, 3, 7] of the projection of turned points [T, N, 3] by the pose, crop pixels.

    The columns are rotations about the three axes, shift x, y, z, and log size.
    """
    columns = np.zeros((*turned.shape, _POSE))
    x, y, z = (turned[..., i] for i in range(3))
    columns[..., 1, 0], columns[..., 2, 0] = -z, y
    columns[..., 0, 1], columns[..., 2, 1] = z, -x
    columns[..., 0, 2], columns[..., 1, 2] = -y, x
    columns[..., [0, 1, 2], [3, 4, 5]] = 1.0
    columns[..., 6] = turned
    return columns


def moved_cameras(camera: WeakPerspective, change: Float64) -> WeakPerspective:
    """Return the cameras after a step [T, 7]."""
    rotation = matrix_from_axis_angle(change[:, :3]) @ camera.rotation
    shift = camera.scale[:, None] * change[:, 3:6]
    return WeakPerspective(camera.scale * np.exp(change[:, 6]), rotation, camera.translation + shift)


def _projected(camera: WeakPerspective, turned: Float64) -> Float64:
    return np.asarray(camera.scale[:, None, None] * turned + camera.translation[:, None])


def _of_rows(camera: WeakPerspective, rows: slice | npt.NDArray[np.intp]) -> WeakPerspective:
    return WeakPerspective(camera.scale[rows], camera.rotation[rows], camera.translation[rows])
