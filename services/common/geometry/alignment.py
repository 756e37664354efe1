"""Rigid and similarity alignments of point sets, vectorised over frames: cameras of tracked landmarks in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.common.array_types import Float64, Floating
from services.common.geometry.camera import WeakPerspective


@dataclass(frozen=True, slots=True)
class Similarity:
    """Similarity transform: target = scale * rotation @ source + translation.

    Attributes:
        scale: float64 [...].
        rotation: float64 [..., 3, 3].
        translation: float64 [..., 3].
    """

    scale: Float64
    rotation: Float64
    translation: Float64

    def apply(self, points: Floating) -> Float64:
        """Return transformed points [..., N, 3], float64."""
        moved = np.asarray(points, np.float64) @ self.rotation.mT
        return np.asarray(self.scale[..., None, None] * moved + self.translation[..., None, :])


def similarity(source: Floating, target: Floating) -> Similarity:
    """Return the least-squares similarity between two sets of 3D points (Umeyama 1991), for any leading axes.

    Args:
        source: [..., N, 3].
        target: [..., N, 3].
    """
    a, b = np.broadcast_arrays(np.asarray(source, np.float64), np.asarray(target, np.float64))
    share = 1.0 / a.shape[-2]
    mean_a, mean_b = ((points * share).sum(-2) for points in (a, b))
    a, b = a - mean_a[..., None, :], b - mean_b[..., None, :]
    u, singular, vt = np.linalg.svd((b * share).mT @ a)
    sign = np.ones_like(singular)
    sign[..., 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[..., None, :]) @ vt
    scale = (singular * sign).sum(-1) / (a * a * share).sum((-2, -1))
    return Similarity(scale, rotation, mean_b - scale[..., None] * (rotation @ mean_a[..., None])[..., 0])


def fit_weak_perspective(points: Floating, image: Floating) -> WeakPerspective:
    """Return one weak-perspective camera, float64, for each frame whose landmarks have depth.

    The fit is the same as in `fit_head_pose` (crops.py), on the given points.

    Args:
        points: [N, 3] or [T, N, 3], head space.
        image: [T, N, 3], frame pixels with z in the same unit, as the tracker gives.
    """
    fit = similarity(points, image)
    return WeakPerspective(fit.scale, fit.rotation, fit.translation)
