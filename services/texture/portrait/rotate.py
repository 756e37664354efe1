"""Face profiling: a still picture's head turned to wanted poses (Yi et al., Sec. 3.3.2; Zhu et al. 2016, Sec. 4).

The picture becomes a surface with depth (depth.py). Each point moves as the head moves a point of its depth, times the share by
which the point follows the head. The inverse of this smooth displacement is found on a coarse grid by fixed-point iteration, and
the portrait is resampled once. The surface has no holes, so the picture does not tear. Hidden sides are stretched, which looks
right for
small turns only: the turn (pitch and yaw) away from the portrait's own pose is exact up to EXACT_TURN_DEGREES and grows more and
more slowly beyond, up to MAX_TURN_DEGREES. Roll, place and scale are exact.
"""

from __future__ import annotations

from typing import Final, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64, UInt8
from services.common.chassis.calls import check_still_wanted
from services.common.face.crops import HeadPose
from services.common.face.identity import FaceIdentity
from services.common.geometry.morphable_model import MorphableModel
from services.common.geometry.rasterise import Backend
from services.common.geometry.rotations import euler_from_matrix, matrix_from_euler
from services.texture.portrait.depth import portrait_depth
from services.texture.portrait.eyelids import Eye
from services.texture.types import TurnedPortrait

_Number = TypeVar("_Number", np.uint8, np.float32)

EXACT_TURN_DEGREES: Final = 12.0
MAX_TURN_DEGREES: Final = 18.0
DEPTH_GAIN: Final = 1.4
"""Depth of the picture's surface divided by the depth of the mesh. A turned picture shows no new side of the nose and no new
shadow,
so its head looks less turned: tracked again, the heads of six portraits had turned by .69 of the wanted yaw and .67 of the pitch
with the mesh's own depth, and by .92 and .89 with this factor (means)."""
_ITERATIONS: Final = 16
_EYE_MARGIN_PX: Final = 2.0
_FINER: Final = 3
_HUGE_EYE: Final = 1 << 21
"""Largest number of numbers in the map of an eye, two per pixel: a thousand pixels square."""
_SEAM_PX: Final = 0.5


class PortraitRotation:
    """One portrait. Each answer depends on the portrait and the wanted pose alone. Threads may share the object."""

    def __init__(
        self,
        portrait: UInt8,
        landmarks: Float32,
        pose: HeadPose,
        identity: FaceIdentity,
        model: MorphableModel,
        *,
        backend: Backend = "numba",
    ) -> None:
        """Prepare the portrait.

        Args:
            portrait: uint8 [H, W, 3], RGB, upright.
            landmarks: float32 [478, 3], pixels of the portrait.
            pose: head pose in the portrait.
            identity: of FitIdentity on this picture: the depth of the face.
            model: the morphable model of the identity.
            backend: rasteriser.

        Raises:
            BackendUnavailable: the rasteriser is not installed.
        """
        self._portrait, self._landmarks, self._pose = portrait, np.asarray(landmarks, np.float32), pose
        depth = portrait_depth(portrait.shape[:2], self._landmarks, pose, identity, model, backend=backend)
        self._step, self._share = depth.step, depth.share.astype(np.float64)
        rows, columns = depth.depth.shape
        across, down = np.meshgrid(np.arange(columns) * self._step, np.arange(rows) * self._step)
        self._grid = np.stack([across, down], -1)
        flat = float(pose.translation[2])
        self._surface = np.dstack([self._grid, flat + DEPTH_GAIN * (depth.depth - flat)])
        self._eyes = tuple(Eye.of(self._landmarks[:, :2].astype(np.float64), side) for side in (0, 1))

    def turn(self, pose: HeadPose, blink: float = 0.0) -> TurnedPortrait:
        """Return the portrait with its head in another pose.

        Args:
            pose: wanted, in the portrait's pixels.
            blink: closure of the eyes, 0 as in the portrait to 1 shut.
        """
        check_still_wanted()
        reached = within_reach(pose, self._pose)
        source = self._map(reached)
        closure = float(np.clip(blink, 0.0, 1.0))
        picture = self._resampled(source)
        if closure:
            self._shut_eyes(picture, source, reached, closure)
        return TurnedPortrait(picture, self._moved_landmarks(reached, closure), reached)

    def _map(self, pose: HeadPose) -> Float32:
        """Return where each pixel comes from, float32 [H, W, 2]."""
        moved = _moved(self._surface, self._pose, pose)[..., :2]
        displacement = (self._share[..., None] * (moved - self._grid)).astype(np.float32)
        grid = self._grid.astype(np.float32)
        source = grid - displacement
        for _ in range(_ITERATIONS):
            check_still_wanted()
            cells = source / np.float32(self._step)
            source = grid - _sampled(displacement, cells, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
        return self._enlarged(source)

    def _enlarged(self, source: Float32) -> Float32:
        height, width = self._portrait.shape[:2]
        scale = 1.0 / self._step
        affine = np.array([[scale, 0.0, 0.0], [0.0, scale, 0.0]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        offset = source - self._grid.astype(np.float32)
        fine = np.asarray(cv2.warpAffine(offset, affine, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE), np.float32)
        fine[..., 0] += np.arange(width, dtype=np.float32)
        fine[..., 1] += np.arange(height, dtype=np.float32)[:, None]
        return fine

    def _shut_eyes(self, picture: UInt8, source: Float32, pose: HeadPose, closure: float) -> None:
        """Draw the parts of `picture` that the lids move in anew."""
        for eye in self._eyes:
            part = self._around(eye, pose, source.shape[:2])
            if not source[part].size:
                continue
            shut = self._resampled(eye.opened(source[part].astype(np.float64), closure).astype(np.float32))
            # What is seen of the eye gets less than a pixel high: finer, and averaged. That of a huge eye does not.
            finer = _FINER if source[part].size <= _HUGE_EYE else 1
            fine = cv2.resize(source[part], None, fx=finer, fy=finer, interpolation=cv2.INTER_LINEAR).astype(np.float64)
            size = (shut.shape[1], shut.shape[0])
            seam = eye.between_lids(fine, closure, _SEAM_PX).astype(np.float32)
            weight = cv2.resize(seam, size, interpolation=cv2.INTER_AREA)[..., None]
            smooth = cv2.resize(self._resampled(eye.opened(fine, closure).astype(np.float32)), size, interpolation=cv2.INTER_AREA)
            picture[part] = np.rint(shut * (1.0 - weight) + smooth * weight).astype(np.uint8)

    def _around(self, eye: Eye, pose: HeadPose, size: tuple[int, int]) -> tuple[slice, slice]:
        """Return rows and columns of a picture of this height and width that hold an eye in this pose."""
        left, top, right, bottom = eye.box(_EYE_MARGIN_PX)
        corners = np.array([[x, y, self._landmarks[168, 2]] for x in (left, right) for y in (top, bottom)])
        moved = _moved(corners, self._pose, pose)[:, :2]
        margin = 0.25 * (right - left)
        low = np.floor(moved.min(0) - margin).astype(int).clip(0)
        high = np.minimum(np.ceil(moved.max(0) + margin).astype(int) + 1, [size[1], size[0]])
        return slice(low[1], max(high[1], low[1])), slice(low[0], max(high[0], low[0]))

    def _resampled(self, source: Float32) -> UInt8:
        # OpenCV reflects in a loop, once for every side that a place lies beyond the border; at a side of one pixel it never ends.
        sides = np.array(self._portrait.shape[1::-1], np.float32)
        border = cv2.BORDER_REFLECT_101 if sides.min() > 1 else cv2.BORDER_REPLICATE
        return _sampled(self._portrait, np.clip(source, -sides, 2.0 * sides), cv2.INTER_CUBIC, border)

    def _moved_landmarks(self, pose: HeadPose, closure: float) -> Float32:
        points = self._landmarks.astype(np.float64)
        for eye in self._eyes:
            points[:468, :2] = eye.shut(points[:468, :2], closure)
        return _moved(points, self._pose, pose).astype(np.float32)


def within_reach(wanted: HeadPose, portrait: HeadPose) -> HeadPose:
    """Return the wanted pose with its turn (pitch and yaw together) kept within MAX_TURN_DEGREES of the portrait's.

    Up to EXACT_TURN_DEGREES it is as wanted; roll, place and scale always are.
    """
    angles = np.stack([np.asarray(euler_from_matrix(pose.rotation), np.float64) for pose in (portrait, wanted)])
    turn = angles[1, :2] - angles[0, :2]
    size = float(np.linalg.norm(turn))
    exact, room = np.radians(EXACT_TURN_DEGREES), np.radians(MAX_TURN_DEGREES - EXACT_TURN_DEGREES)
    if size <= exact:
        return wanted
    reached = exact + room * np.tanh((size - exact) / room)
    rotation = matrix_from_euler(np.array([*(angles[0, :2] + turn * (reached / size)), angles[1, 2]]))
    return HeadPose(wanted.scale, np.asarray(rotation, np.float64), wanted.translation)


def _sampled(values: npt.NDArray[_Number], places: Float32, interpolation: int, border: int) -> npt.NDArray[_Number]:
    """Return `values` [h, w, C] at places [H, W, 2]."""
    taken = cv2.remap(values, places[..., 0], places[..., 1], interpolation, borderMode=border)
    return np.asarray(taken, values.dtype)


def _moved(points: Float64, portrait: HeadPose, wanted: HeadPose) -> Float64:
    """Return points [..., 3] of the portrait's pixels that follow the head from one pose to the other."""
    head = (points - portrait.translation) @ portrait.rotation / portrait.scale
    moved: Float64 = wanted.scale * head @ wanted.rotation.T + wanted.translation
    return moved
