"""Cameras: head space to pixels of a picture, weak perspective (as HeadPose of services/common/crops.py) and pinhole.

Both give [..., V, 3]: x and y in pixels (x right, y down, pixel centres at integers, docs/coordinates.md) and a depth that grows
away from the camera: in pixels for weak perspective, in model units for the pinhole. Numpy or torch, answered in kind; leading
axes broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from services.common.crops import HeadPose
from services.common.geometry.array_module import Array, array_module, constant


class Camera(Protocol):
    """What renderer and fitting need of a camera."""

    is_perspective: ClassVar[bool]
    """Whether attributes must be interpolated with 1 / depth."""

    @property
    def rotation(self) -> Any:
        """[..., 3, 3], head space to camera axes: normals are turned by it."""

    def project(self, points: Any) -> Any:
        """Head space [..., V, 3] to x, y in pixels and depth, [..., V, 3]."""


@dataclass(frozen=True, slots=True)
class WeakPerspective:
    """image = scale * rotation @ point + translation (six numbers: everybody, Sec. 3.1).

    Attributes:
        scale: [...], frame pixels a unit of head space.
        rotation: [..., 3, 3].
        translation: [..., 3], frame pixels: where the origin of head space lands.
    """

    is_perspective: ClassVar[bool] = False

    scale: Array
    rotation: Array
    translation: Array

    def project(self, points: Array) -> Array:
        """Head space [..., V, 3] to frame pixels [..., V, 3], as `to_frame` of crops.py."""
        return self.scale[..., None, None] * (points @ self.rotation.mT) + self.translation[..., None, :]

    def unproject(self, image: Array) -> Array:
        """Frame pixels with depth [..., V, 3] to head space, as `to_head_space` of crops.py."""
        return (image - self.translation[..., None, :]) @ self.rotation / self.scale[..., None, None]

    def head_poses(self) -> list[HeadPose]:
        """One HeadPose a frame, for a camera of one leading axis T (or none)."""
        scale, rotation, translation = (
            np.asarray(_numpy(part), np.float64) for part in (self.scale, self.rotation, self.translation)
        )
        rows = zip(np.atleast_1d(scale), rotation.reshape(-1, 3, 3), translation.reshape(-1, 3), strict=True)
        return [HeadPose(float(s), r, t) for s, r, t in rows]

    def transformed(self, scale: float, offset: Sequence[float]) -> WeakPerspective:
        """The camera of a picture that was scaled about pixel (0, 0), then moved: x' = scale * x + offset."""
        moved = scale * self.translation + constant([*offset, 0.0], self.translation)
        return WeakPerspective(scale * self.scale, self.rotation, moved)


@dataclass(frozen=True, slots=True)
class Perspective:
    """Pinhole: camera = rotation @ point + translation; x = focal * X / Z + centre (headpose, Sec. 3.1; everyone, supplementary).

    Attributes:
        focal: [...], focal length in pixels.
        centre: [..., 2], principal point in pixels; the middle of a picture W wide is (W - 1) / 2.
        rotation: [..., 3, 3].
        translation: [..., 3], model units; z is the distance of the origin of head space, positive in front of the camera.
    """

    is_perspective: ClassVar[bool] = True

    focal: Array
    centre: Array
    rotation: Array
    translation: Array

    def project(self, points: Array) -> Array:
        """Head space [..., V, 3] to x, y in pixels and depth in model units, [..., V, 3]."""
        xp = array_module(points)
        camera = points @ self.rotation.mT + self.translation[..., None, :]
        depth = camera[..., 2:]
        image = self.focal[..., None, None] * camera[..., :2] / depth + self.centre[..., None, :]
        return xp.concatenate([image, depth + xp.zeros_like(image[..., :1])], -1)

    def unproject(self, image: Array) -> Array:
        """Pixels and depth [..., V, 3] to head space."""
        xp = array_module(image)
        depth = image[..., 2:]
        flat = (image[..., :2] - self.centre[..., None, :]) * depth / self.focal[..., None, None]
        camera = xp.concatenate([flat, depth + xp.zeros_like(flat[..., :1])], -1)
        return (camera - self.translation[..., None, :]) @ self.rotation


def weak_perspective_of(poses: Sequence[HeadPose]) -> WeakPerspective:
    """The camera of a clip, T frames, from its head poses; float64."""
    return WeakPerspective(
        np.array([pose.scale for pose in poses], np.float64),
        np.array([pose.rotation for pose in poses], np.float64).reshape(-1, 3, 3),
        np.array([pose.translation for pose in poses], np.float64).reshape(-1, 3),
    )


def perspective_from_weak(camera: WeakPerspective, focal: float, centre: Sequence[float]) -> Perspective:
    """The pinhole camera that agrees with `camera` at the origin of head space: same place, same size, same *apparent* turn.

    A head off the optical axis is seen along a slanted ray; the rotation takes that slant out, so that the same side of the head
    shows.

    Args:
        camera: weak perspective, leading axes [...].
        focal: focal length in pixels.
        centre: principal point, x and y in pixels.
    """
    xp = array_module(camera.scale)
    middle = constant(list(centre), camera.translation)
    depth = focal / camera.scale
    flat = (camera.translation[..., :2] - middle) / focal
    ones = xp.ones_like(flat[..., :1])
    translation = xp.concatenate([flat * depth[..., None], depth[..., None] * ones], -1)
    slant = _rotation_to_ray(flat)
    focals = xp.ones_like(camera.scale) * focal
    return Perspective(focals, middle + xp.zeros_like(flat), slant @ camera.rotation, translation)


def weak_from_perspective(camera: Perspective) -> WeakPerspective:
    """The weak-perspective camera that agrees with `camera` at the origin of head space; inverts `perspective_from_weak`."""
    xp = array_module(camera.translation)
    depth = camera.translation[..., 2]
    flat = camera.translation[..., :2] / depth[..., None]
    scale = camera.focal / depth
    image = camera.focal[..., None] * flat + camera.centre
    translation = xp.concatenate([image, xp.zeros_like(image[..., :1])], -1)
    return WeakPerspective(scale, _rotation_to_ray(flat).mT @ camera.rotation, translation)


def _rotation_to_ray(flat: Array) -> Array:
    """Smallest rotations [..., 3, 3] that take the optical axis (0, 0, 1) to the direction (x, y, 1) of `flat` [..., 2]."""
    xp = array_module(flat)
    x, y = flat[..., 0], flat[..., 1]
    length = xp.sqrt(x * x + y * y + 1.0)
    x, y, z = x / length, y / length, 1.0 / length
    factor = 1.0 / (1.0 + z)
    rows = [
        xp.stack([1.0 - x * x * factor, -x * y * factor, x], -1),
        xp.stack([-x * y * factor, 1.0 - y * y * factor, y], -1),
        xp.stack([-x, -y, z], -1),
    ]
    return xp.stack(rows, -2)


def _numpy(value: Any) -> Any:
    return value if isinstance(value, np.ndarray | float) else value.detach().cpu().numpy()
