"""Cameras that project head space to pixels of a picture: weak perspective and pinhole.

Both cameras return [..., V, 3]: x and y in pixels (x right, y down, pixel centres at integers, docs/coordinates.md) and a depth
that grows away from the camera, in pixels for weak perspective and in model units for the pinhole. Arguments are numpy arrays or
torch tensors, and results are of the same kind. Leading axes broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from services.common.geometry.array_module import Array, array_module, constant


class Camera(Protocol):
    """Camera that the renderer and the fitting use."""

    is_perspective: ClassVar[bool]
    """Whether attributes must be interpolated with 1 / depth."""

    @property
    def rotation(self) -> Any:
        """Rotation [..., 3, 3] from head space to camera axes. The rotation also turns normals."""

    def project(self, points: Any) -> Any:
        """Project head space [..., V, 3] to x, y in pixels and depth, [..., V, 3]."""


@dataclass(frozen=True, slots=True)
class WeakPerspective:
    """Weak-perspective camera: image = scale * rotation @ point + translation (six numbers: Everybody's Talkin', Sec. 3.1).

    Attributes:
        scale: [...], frame pixels per unit of head space.
        rotation: [..., 3, 3].
        translation: [..., 3], frame pixels: position of the origin of head space.
    """

    is_perspective: ClassVar[bool] = False

    scale: Array
    rotation: Array
    translation: Array

    def project(self, points: Array) -> Array:
        """Project head space [..., V, 3] to frame pixels with depth [..., V, 3]: s R x + t."""
        return self.scale[..., None, None] * (points @ self.rotation.mT) + self.translation[..., None, :]

    def unproject(self, image: Array) -> Array:
        """Project frame pixels with depth [..., V, 3] back to head space [..., V, 3]: R^T (x - t) / s."""
        return (image - self.translation[..., None, :]) @ self.rotation / self.scale[..., None, None]


@dataclass(frozen=True, slots=True)
class Perspective:
    """Pinhole camera: camera = rotation @ point + translation; x = focal * X / Z + centre (Yi et al., Sec. 3.1).

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
        """Project head space [..., V, 3] to x, y in pixels and depth in model units, [..., V, 3]."""
        xp = array_module(points)
        camera = points @ self.rotation.mT + self.translation[..., None, :]
        depth = camera[..., 2:]
        image = self.focal[..., None, None] * camera[..., :2] / depth + self.centre[..., None, :]
        return xp.concatenate([image, depth + xp.zeros_like(image[..., :1])], -1)

    def unproject(self, image: Array) -> Array:
        """Project pixels and depth [..., V, 3] back to head space."""
        xp = array_module(image)
        depth = image[..., 2:]
        flat = (image[..., :2] - self.centre[..., None, :]) * depth / self.focal[..., None, None]
        camera = xp.concatenate([flat, depth + xp.zeros_like(flat[..., :1])], -1)
        return (camera - self.translation[..., None, :]) @ self.rotation


def perspective_from_weak(camera: WeakPerspective, focal: float, centre: Sequence[float]) -> Perspective:
    """Return the pinhole camera that agrees with `camera` at the origin of head space in position, size and *apparent* rotation.

    A pinhole sees a head off the optical axis along a slanted ray. The rotation takes that slant out, so that both cameras show
    the same side of the head.

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


def _rotation_to_ray(flat: Array) -> Array:
    """Return the smallest rotations [..., 3, 3] that take the optical axis (0, 0, 1) to (x, y, 1), for (x, y) = `flat` [..., 2]."""
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
