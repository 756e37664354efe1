"""Figures of a face model for its card: variance explained, and landmark errors of people that were not learned from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from services.common.array_types import Float32, Float64
from services.common.face.neutral import neutral_shape, own_shape
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.common.geometry.morphable_model import MorphableModel

DEPTH_WEIGHT: Final = 0.5
"""Weight of z in the principal components: the tracker's depth is the least certain."""
ERROR_COUNTS: Final = (8, 16, 29, 64)
"""Numbers of expression coefficients for which the report has landmark errors."""


@dataclass(frozen=True, slots=True)
class Basis:
    """Principal components.

    Attributes:
        directions: float64 [K, 468, 3], one standard deviation each.
        variances: float64 [all], variance of every component, largest first.
    """

    directions: Float64
    variances: Float64


def explained(offsets: Float64, basis: Basis, counts: list[int]) -> list[float]:
    """Return, for each number in `counts`, the share of variance (metric of DEPTH_WEIGHT) that so many components explain."""
    root = np.sqrt([1.0, 1.0, DEPTH_WEIGHT])
    data = (offsets * root).reshape(len(offsets), -1)
    directions = (basis.directions * root).reshape(len(basis.directions), -1)
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    energy = np.concatenate([[0.0], np.cumsum(((data @ directions.T) ** 2).sum(0))])
    return [float(energy[min(count, len(directions))] / (data**2).sum()) for count in counts]


def landmark_errors(model: MorphableModel, shapes: Float32) -> dict[str, list[float]]:
    """Return the mean distance between one person's fitted and tracked landmarks, crop pixels of a frontal view.

    Args:
        model: the model.
        shapes: float32 [T, 468, 3], head space.

    Returns:
        "basis": identity from the basis alone; "own_shape": with the person's neutral shape too. Each list has one value per number
        of expression coefficients in ERROR_COUNTS.
    """
    frames = len(shapes)
    frontal = WeakPerspective(np.ones(frames), np.broadcast_to(np.eye(3), (frames, 3, 3)), np.zeros((frames, 3)))
    errors: dict[str, list[float]] = {"basis": [], "own_shape": []}
    for count in ERROR_COUNTS:
        short = model.truncated(expression=count)
        fitted = coefficients_from_landmarks(short, shapes, frontal)
        own = own_shape(short, fitted.identity, neutral_shape(shapes))
        better = coefficients_from_landmarks(short, shapes, frontal, identity=fitted.identity, offset=own)
        errors["basis"].append(float(fitted.error.mean()))
        errors["own_shape"].append(float(better.error.mean()))
    return errors
