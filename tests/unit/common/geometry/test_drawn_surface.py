"""The drawn surface and its gradients, by both backends."""

import importlib.util

import numpy as np
import pytest

from services.common.errors import BackendUnavailable
from services.common.geometry.drawn_surface import draw_surface
from services.common.geometry.rasterise import interpolate, rasterise
from services.common.geometry.rasterise_pytorch3d import is_installed

SIZE = (40, 48)
needs_pytorch3d = pytest.mark.skipif(not is_installed(), reason="pytorch3d is not installed (it is not on PyPI)")


def bowl():
    """A relief of 8 x 9 vertices that faces the camera, away from pixel centres: points, depth, triangles, colours."""
    random = np.random.default_rng(0)
    rows, columns = np.meshgrid(np.linspace(4.3, 35.1, 8), np.linspace(5.2, 41.7, 9), indexing="ij")
    points = np.stack([columns.ravel(), rows.ravel()], 1) + random.uniform(-0.8, 0.8, (72, 2))
    number = np.arange(72).reshape(8, 9)
    a, b, c, d = (part.ravel() for part in (number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]))
    triangles = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)]).astype(np.int32)
    return points, random.uniform(0, 4, 72), triangles, random.uniform(0, 255, (72, 3))


def test_the_drawn_values_are_those_of_the_rasteriser():
    points, depth, triangles, colours = bowl()
    drawn = draw_surface(points, depth, triangles, colours, SIZE)
    fragments = rasterise(points[None], depth[None], triangles, *SIZE, perspective=False, cull="back")
    assert np.array_equal(drawn.covered, fragments.covered[0])
    assert drawn.covered.mean() > 0.5
    np.testing.assert_allclose(drawn.values, interpolate(fragments, colours[None], triangles)[0], atol=1e-3)


def test_the_gradient_is_the_slope_inside_the_surface():
    points, depth, triangles, colours = bowl()
    drawn = draw_surface(points, depth, triangles, colours, SIZE)
    random = np.random.default_rng(1)
    inside = np.zeros((*SIZE, 1))
    inside[10:30, 12:36] = 1.0  # the outline has no gradient
    wanted = random.normal(size=drawn.values.shape) * inside
    found = drawn.gradient(wanted)
    way, shade, step = random.normal(size=points.shape), random.normal(size=colours.shape), 1e-6

    def value(share):
        values = draw_surface(points + share * way, depth, triangles, colours + share * shade, SIZE).values
        return (wanted * values).sum()

    slope = (value(step) - value(-step)) / (2 * step)
    assert slope == pytest.approx((found.points * way).sum() + (found.attributes * shade).sum(), rel=1e-5)


def test_triangles_that_are_turned_away_are_not_drawn():
    points, depth, triangles, colours = bowl()
    drawn = draw_surface(points, depth, np.ascontiguousarray(triangles[:, ::-1]), colours, SIZE)
    assert not drawn.covered.any()
    assert not drawn.gradient(np.ones_like(drawn.values)).points.any()


@needs_pytorch3d
def test_pytorch3d_draws_the_same_with_the_same_gradients():
    points, depth, triangles, colours = bowl()
    wanted = np.random.default_rng(2).normal(size=(*SIZE, 3))
    ours, theirs = (draw_surface(points, depth, triangles, colours, SIZE, backend=each) for each in ("numba", "pytorch3d"))
    assert np.array_equal(ours.covered, theirs.covered)
    np.testing.assert_allclose(ours.values, theirs.values, atol=0.01)
    for one, other in zip(ours.gradient(wanted), theirs.gradient(wanted), strict=True):
        assert np.linalg.norm(one - other) < 1e-4 * np.linalg.norm(one)


@needs_pytorch3d
def test_pytorch3d_draws_nothing_where_nothing_faces_the_camera():
    points, depth, triangles, colours = bowl()
    drawn = draw_surface(points, depth, np.ascontiguousarray(triangles[:, ::-1]), colours, SIZE, backend="pytorch3d")
    assert not drawn.covered.any()
    assert not drawn.gradient(np.ones_like(drawn.values)).attributes.any()


def test_a_missing_pytorch3d_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match=r"install a wheel of pytorch3d.*numba"):
        draw_surface(*bowl(), SIZE, backend="pytorch3d")


def test_attributes_must_be_of_the_vertices():
    points, depth, triangles, colours = bowl()
    with pytest.raises(ValueError, match="71 rows"):
        draw_surface(points, depth, triangles, colours[1:], SIZE)
