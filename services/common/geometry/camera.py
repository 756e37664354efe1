"""The camera that projects head space to pixels of a picture."""

from __future__ import annotations

from dataclasses import dataclass

from services.common.geometry.arrays import Array


@dataclass(frozen=True, slots=True)
class WeakPerspective:
    """Weak-perspective camera: image = scale * rotation @ point + translation (six numbers: Everybody's Talkin', Sec. 3.1).

    Leading axes broadcast. x is to the right, y is down, pixel centres are at integers (docs/coordinates.md). Depth grows away from
    the camera.

    Attributes:
        scale: [...], frame pixels per unit of head space.
        rotation: [..., 3, 3].
        translation: [..., 3], frame pixels: position of the origin of head space.
    """

    scale: Array
    rotation: Array
    translation: Array

    def project(self, points: Array) -> Array:
        """Project head space [..., V, 3] to frame pixels with depth [..., V, 3]: s R x + t."""
        return self.scale[..., None, None] * (points @ self.rotation.mT) + self.translation[..., None, :]

    def unproject(self, image: Array) -> Array:
        """Project frame pixels with depth [..., V, 3] back to head space [..., V, 3]: R^T (x - t) / s."""
        return (image - self.translation[..., None, :]) @ self.rotation / self.scale[..., None, None]
