from __future__ import annotations

import numpy as np
import pytest

from services.common.errors import BackendUnavailableError
from services.common.geometry.rasterise import rasterise
from services.common.geometry.rasterise_pytorch3d import is_installed, to_device_coordinates, usable

ONE = np.array([[0, 1, 2]], np.int32)


@pytest.mark.skipif(not is_installed(), reason="pytorch3d is not installed (it is not on PyPI)")
@pytest.mark.parametrize(("height", "width"), [(48, 48), (48, 64), (64, 48)])
def test_equals_the_numba_backend_away_from_edges(height: int, width: int) -> None:
    rng = np.random.default_rng(2)
    vertices = rng.uniform(-8, 72, (3, 24, 2)).astype(np.float32)
    depth = rng.uniform(2, 9, (3, 24)).astype(np.float32)
    triangles = rng.integers(0, 24, (30, 3)).astype(np.int32)
    ours = rasterise(vertices, depth, triangles, height, width, cull="back")
    theirs = rasterise(vertices, depth, triangles, height, width, cull="back", backend="pytorch3d")
    same = ours.triangle_index == theirs.triangle_index
    assert same.mean() > 0.998
    np.testing.assert_allclose(ours.barycentrics[same], theirs.barycentrics[same], atol=1e-3)
    shown = same & ours.covered
    np.testing.assert_allclose(ours.depth[shown], theirs.depth[shown], rtol=1e-3)


@pytest.mark.skipif(is_installed(), reason="pytorch3d is installed")
def test_its_absence_is_told_with_the_remedy() -> None:
    with pytest.raises(BackendUnavailableError, match="numba"):
        rasterise(np.zeros((1, 3, 2)), np.ones((1, 3)), ONE, 4, 4, backend="pytorch3d")


def test_pixel_centres_map_onto_its_device_coordinates() -> None:
    # Its documentation says: x left, y up, the outer edges of the outermost pixels of the shorter side at -1 and 1.
    corners = np.array([[[-0.5, -0.5], [31.5, 15.5], [15.5, 7.5]]], np.float32)
    found = to_device_coordinates(corners, np.ones((1, 3), np.float32), 16, 32)
    np.testing.assert_allclose(found[0], [[2.0, 1.0, 1.0], [-2.0, -1.0, 1.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize("cull", ["none", "back"])
def test_backends_omit_same_triangles(cull) -> None:
    """Both backends leave out the same triangles."""
    values = np.array([-1.0, 3.0, 9.0, np.nan, np.inf, 4e8])
    rng = np.random.default_rng(0)
    for _ in range(60):
        vertices = rng.choice(values, (1, 3, 2), p=[0.3, 0.3, 0.25, 0.05, 0.05, 0.05]).astype(np.float32)
        depth = rng.choice([-1.0, 0.5, 2.0, np.nan], (1, 3), p=[0.1, 0.2, 0.6, 0.1]).astype(np.float32)
        shown = rasterise(vertices, depth, ONE, 9, 9, cull=cull).covered.any()
        assert usable(vertices[0], depth[0], ONE, cull=cull)[0] == shown
