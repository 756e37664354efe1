"""Small face models for tests: a few vertices of the mean head with random bases."""

from types import MappingProxyType

import numpy as np

from services.common.face.crops import head_template
from services.common.geometry.morphable_model import LandmarkSet, MorphableModel


def small_model(identity=3, expression=4, albedo=2, vertices=60):
    """A model on every seventh point of the mean head or so; triangles join neighbours in the list."""
    random = np.random.default_rng(2)
    points = np.linspace(0, 467, vertices).astype(np.int32)
    start = np.arange(vertices - 2, dtype=np.int32)
    triangles = np.stack([start, start + 1, start + 2], -1)
    return MorphableModel(
        name="small",
        licence="made by a test",
        unit="crop pixel",
        mean_shape=head_template()[points],
        identity_basis=random.normal(size=(vertices, 3, identity)).astype(np.float32),
        expression_basis=random.normal(size=(vertices, 3, expression)).astype(np.float32),
        identity_deviation=np.linspace(1, 2, identity).astype(np.float32),
        expression_deviation=np.linspace(1, 0.5, expression).astype(np.float32),
        triangles=triangles,
        uv=random.uniform(size=(vertices, 2)).astype(np.float32),
        uv_triangles=triangles,
        albedo_mean=random.uniform(size=(vertices, 3)).astype(np.float32),
        albedo_basis=0.1 * random.normal(size=(vertices, 3, albedo)).astype(np.float32),
        albedo_deviation=np.ones(albedo, np.float32),
        landmarks=MappingProxyType({"mediapipe": LandmarkSet.of_vertices(np.arange(vertices), points)}),
        regions=MappingProxyType({"chin": np.array([0, 2], np.int32)}),
    )
