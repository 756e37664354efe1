"""A small head in the axes that other models use (y up, z towards the viewer), for files of their formats."""

import numpy as np
from scipy.spatial import Delaunay

from services.common.face.loaders.files import IBUG_68
from services.common.geometry.morphable_model import default_model

Y_UP = np.array([1.0, -1.0, -1.0])
RANDOM = np.random.default_rng(6)
SIXTY_EIGHT = np.array(IBUG_68)
"""Vertices of the 68 points on this head."""


def head(scale=1.0):
    """The default model's mean face in foreign axes, float64 [468, 3]."""
    return scale * default_model().mean_shape.astype(np.float64) * Y_UP


def triangles():
    """Its triangles, int64 [898, 3]."""
    return default_model().triangles.astype(np.int64)


def basis(count, scale=1.0):
    """Random directions, float64 [468, 3, count]."""
    return scale * RANDOM.normal(size=(468, 3, count))


def few_triangles(count):
    """Some triangles for the first `count` vertices of any mesh, int64 [F, 3]."""
    return Delaunay(RANDOM.normal(size=(count, 2))).simplices.astype(np.int64)


def in_head_space(model, expected_vertices=468):
    """Whether a loaded copy of `head` is back where the default model is."""
    mean = default_model().mean_shape
    return model.unit == "crop pixel" and len(model.mean_shape) == expected_vertices and np.abs(model.mean_shape - mean).max() < 4.0
