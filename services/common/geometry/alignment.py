"""Rigid and similarity alignments of point sets, vectorised over frames: the cameras that tracked landmarks tell in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.common.geometry.array_module import Float64
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.rotations import nearest_rotation

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Similarity:
    """target = scale * rotation @ source + translation.

    Attributes:
        scale: float64 [...].
        rotation: float64 [..., 3, 3].
        translation: float64 [..., 3].
    """

    scale: Float64
    rotation: Float64
    translation: Float64

    def apply(self, points: Floats) -> Float64:
        """Points [..., N, 3], float64."""
        moved = np.asarray(points, np.float64) @ self.rotation.mT
        return np.asarray(self.scale[..., None, None] * moved + self.translation[..., None, :])


def similarity(source: Floats, target: Floats, weights: Floats | None = None) -> Similarity:
    """Least-squares similarity of point sets in three dimensions (Umeyama 1991), for any leading axes.

    Args:
        source: [..., N, 3].
        target: [..., N, 3].
        weights: [N], 1 each when not given.
    """
    a, b = np.broadcast_arrays(np.asarray(source, np.float64), np.asarray(target, np.float64))
    share = _shares(weights, a.shape[-2])
    mean_a, mean_b = ((points * share[:, None]).sum(-2) for points in (a, b))
    a, b = a - mean_a[..., None, :], b - mean_b[..., None, :]
    u, singular, vt = np.linalg.svd((b * share[:, None]).mT @ a)
    sign = np.ones_like(singular)
    sign[..., 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[..., None, :]) @ vt
    scale = (singular * sign).sum(-1) / (a * a * share[:, None]).sum((-2, -1))
    return Similarity(scale, rotation, mean_b - scale[..., None] * (rotation @ mean_a[..., None])[..., 0])


def fit_weak_perspective(points: Floats, image: Floats, weights: Floats | None = None) -> WeakPerspective:
    """Cameras of frames whose landmarks have depth, float64 (the same map as `fit_head_pose` of crops.py, on these points).

    Args:
        points: [N, 3] or [T, N, 3], head space.
        image: [T, N, 3], frame pixels with z in the same unit, as the tracker gives.
        weights: [N].
    """
    found = similarity(points, image, weights)
    return WeakPerspective(found.scale, found.rotation, found.translation)


def fit_weak_perspective_2d(points: Floats, image: Floats, weights: Floats | None = None) -> WeakPerspective:
    """Cameras of frames whose landmarks have no depth, float64: the linear map to the picture, brought to the nearest scaled
    rotation.

    Args:
        points: [N, 3] or [T, N, 3], head space; not all in one plane.
        image: [T, N, 2], frame pixels.
        weights: [N].
    """
    a, b = np.asarray(points, np.float64), np.asarray(image, np.float64)
    share = _shares(weights, a.shape[-2])
    mean_a, mean_b = ((values * share[:, None]).sum(-2) for values in (a, b))
    a, b = a - mean_a[..., None, :], b - mean_b[..., None, :]
    linear = np.linalg.solve((a * share[:, None]).mT @ a, (a * share[:, None]).mT @ b).mT
    third = np.cross(linear[..., 0, :], linear[..., 1, :])
    third /= np.sqrt(np.linalg.norm(third, axis=-1, keepdims=True))
    rotation = nearest_rotation(np.concatenate([linear, third[..., None, :]], -2))
    projected = (a @ rotation.mT)[..., :2]
    scale = (projected * b * share[:, None]).sum((-2, -1)) / (projected**2 * share[:, None]).sum((-2, -1))
    offset = mean_b - scale[..., None] * (rotation[..., :2, :] @ mean_a[..., None])[..., 0]
    return WeakPerspective(scale, rotation, np.concatenate([offset, np.zeros_like(offset[..., :1])], -1))


def _shares(weights: Floats | None, count: int) -> Float64:
    values = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    return np.asarray(values / values.sum())
