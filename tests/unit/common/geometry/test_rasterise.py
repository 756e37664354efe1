"""Tests of the rasteriser, of textures drawn with it, and of the drawn surface and its gradients by both backends."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from services.common.errors import BackendUnavailableError
from services.common.geometry.fragments import Fragments, facing, on_grid, visible_vertices
from services.common.geometry.rasterise import draw_surface, interpolate, rasterise, sample_texture, uv_map
from services.common.geometry.rasterise_pytorch3d import is_installed
from tests.unit.common.geometry.rasterise_reference import hits

SIZE = 7
ONE = np.array([[0, 1, 2]], np.int32)
SURFACE_SIZE = (40, 48)
needs_pytorch3d = pytest.mark.skipif(not is_installed(), reason="pytorch3d is not installed (it is not on PyPI)")


@st.composite
def meshes(draw, values):
    """Vertices [1, V, 2], depth [1, V] and triangles [F, 3] that share vertices and cross each other."""
    count = draw(st.integers(3, 8))
    vertices = draw(arrays.arrays(np.float32, (1, count, 2), elements=values))
    depth = draw(arrays.arrays(np.float32, (1, count), elements=st.floats(0.25, 16.0, width=32)))
    triangles = draw(arrays.arrays(np.int32, (draw(st.integers(1, 8)), 3), elements=st.integers(0, count - 1)))
    return vertices, depth, triangles


def sheet(rows: int, columns: int) -> np.ndarray:
    """The triangles of a sheet whose vertices are numbered row by row, int32 [F, 3]."""
    number = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (part.ravel() for part in (number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]))
    return np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)]).astype(np.int32)


def grid_mesh(side: int, low: float, high: float, jitter: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A square of side x side vertices, moved a little, as [1, V, 2] float32 and [F, 3]."""
    rows = np.linspace(low, high, side)
    points = np.stack(np.meshgrid(rows, rows), -1).reshape(-1, 2)
    points += np.random.default_rng(seed).uniform(-jitter, jitter, points.shape)
    return points[None].astype(np.float32), sheet(side, side)


def assert_equals_definition(fragments: Fragments, vertices, depth, triangles, **options) -> None:
    for row in range(SIZE):
        for column in range(SIZE):
            expected = hits(vertices[0], depth[0], triangles, row, column, **options)
            index = int(fragments.triangle_index[0, row, column])
            if not expected:
                assert index == -1
                assert np.isinf(fragments.depth[0, row, column])
                assert not fragments.barycentrics[0, row, column].any()
                continue
            by_triangle = {hit.triangle: hit for hit in expected}
            shown = by_triangle[index]
            # Two orders of rounding may differ about which of two equally near triangles is nearer, and about nothing else.
            assert index == expected[0].triangle or abs(shown.depth - expected[0].depth) <= 1e-6 * abs(shown.depth)
            np.testing.assert_allclose(fragments.barycentrics[0, row, column], shown.barycentrics, atol=1e-5, rtol=0)
            np.testing.assert_allclose(fragments.depth[0, row, column], shown.depth, rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(meshes(st.floats(-4.0, 10.0, width=32)), st.sampled_from(["none", "back"]))
def test_equals_the_definition_on_any_mesh(mesh, cull) -> None:
    assert_equals_definition(rasterise(*mesh, SIZE, SIZE, cull=cull), *mesh, cull=cull)


@settings(max_examples=15, deadline=None)
@given(meshes(st.integers(-1, 2 * SIZE).map(lambda value: value / 2)))
def test_exact_on_edges_and_vertices(mesh) -> None:
    """The result equals the definition where edges and vertices lie on pixel centres."""
    assert_equals_definition(rasterise(*mesh, SIZE, SIZE), *mesh)


@settings(max_examples=15, deadline=None)
@given(
    meshes(st.sampled_from([0.0, 1e-30, 3.0, np.float32(3.0000002), np.float32(2.9999998), 6.0, -1e5, 1e6, 4e8, np.inf, np.nan]))
)
def test_exact_for_slivers_and_extremes(mesh) -> None:
    """The result equals the definition for slivers and values out of range."""
    assert_equals_definition(rasterise(*mesh, SIZE, SIZE), *mesh)


@pytest.mark.parametrize("jitter", [0.0, 0.4])
def test_square_covers_centres_once(jitter: float) -> None:
    """A triangulated square covers each centre inside exactly once."""
    vertices, triangles = grid_mesh(13, 2.0, 26.0, jitter, seed=1)
    times = np.zeros((32, 32), int)
    for triangle in triangles:
        times += rasterise(vertices, np.ones(vertices.shape[:2]), triangle[None], 32, 32).covered[0]
    assert times.max() == 1
    assert (times[3:26, 3:26] == 1).all()
    if jitter == 0.0:  # upper and left border belong to it, lower and right don't
        expected = np.zeros((32, 32), int)
        expected[2:26, 2:26] = 1
        np.testing.assert_array_equal(times, expected)


def test_seam_corners_keep_both_sides() -> None:
    """Corners of their own keep both sides of a texture seam."""
    vertices, triangles = grid_mesh(2, 0.0, 8.0, 0.0, seed=0)
    texture = np.array([[[0.0], [0.0], [0.0], [1.0], [1.0], [1.0]]], np.float32)
    fragments = rasterise(vertices, np.ones((1, 4)), triangles, 8, 8)
    values = interpolate(fragments, texture, np.array([[0, 1, 2], [3, 4, 5]], np.int32))
    np.testing.assert_array_equal(values[..., 0], fragments.triangle_index.astype(np.float32))


def test_depth_may_have_any_sign() -> None:
    vertices = np.array([[[0, 0], [0, 8], [8, 0]]], np.float32)
    for depth in ([1.0, 1.0, 0.0], [1.0, -2.0, 1.0], [-3.0, -2.0, -1.0]):
        assert rasterise(vertices, np.array([depth], np.float32), ONE, 8, 8).covered.sum() == 36


def test_culling_keeps_what_turns_counter_clockwise_on_screen() -> None:
    vertices = np.array([[[0, 0], [0, 8], [8, 0]]], np.float32)
    assert rasterise(vertices, np.ones((1, 3)), ONE, 8, 8, cull="back").covered.any()
    assert not rasterise(vertices, np.ones((1, 3)), ONE[:, ::-1], 8, 8, cull="back").covered.any()


def test_of_equally_near_triangles_the_first_is_shown() -> None:
    vertices = np.array([[[0, 0], [0, 8], [8, 0]]], np.float32)
    twice = np.concatenate([ONE, ONE])
    assert set(np.unique(rasterise(vertices, np.full((1, 3), 2.0), twice, 8, 8).triangle_index)) == {-1, 0}


def test_an_empty_mesh_is_all_background() -> None:
    fragments = rasterise(np.zeros((2, 0, 2)), np.zeros((2, 0)), np.zeros((0, 3), np.int32), 3, 4)
    assert fragments.triangle_index.shape == (2, 3, 4)
    assert not fragments.covered.any()


@pytest.mark.parametrize(
    ("vertices", "depth", "triangles", "height"),
    [
        (np.zeros((3, 2)), np.ones((1, 3)), ONE, 4),
        (np.zeros((1, 3, 3)), np.ones((1, 3)), ONE, 4),
        (np.zeros((1, 3, 2)), np.ones((1, 4)), ONE, 4),
        (np.zeros((1, 3, 2)), np.ones((1, 3)), ONE + 1, 4),
        (np.zeros((1, 3, 2)), np.ones((1, 3)), ONE - 1, 4),
        (np.zeros((1, 3, 2)), np.ones((1, 3)), ONE.astype(np.float32), 4),
        (np.zeros((1, 3, 2)), np.ones((1, 3)), ONE, 0),
    ],
)
def test_invalid_input_refused_before_kernel(vertices, depth, triangles, height) -> None:
    """Input that does not fit is refused before the kernel sees it."""
    with pytest.raises(ValueError, match=r"vertices|triangles|picture"):
        rasterise(vertices, depth, triangles, height, 4)


def test_attributes_that_do_not_fit_are_refused() -> None:
    fragments = rasterise(np.zeros((2, 3, 2)), np.ones((2, 3)), ONE, 4, 4)
    square = rasterise(np.array([[[0, 0], [0, 4], [4, 0], [4, 4]]]), np.ones((1, 4)), np.array([[0, 1, 2], [2, 1, 3]]), 4, 4)
    with pytest.raises(ValueError, match="fragments"):
        interpolate(square, np.zeros((1, 3, 1)), ONE)
    with pytest.raises(ValueError, match="attributes"):
        interpolate(fragments, np.zeros((3, 3, 1)), ONE)
    with pytest.raises(ValueError, match="triangles"):
        interpolate(fragments, np.zeros((1, 2, 1)), ONE)


def test_the_grid_holds_float32_beyond_one_pixel_exactly() -> None:
    values = np.random.default_rng(0).uniform(1, 4000, (1, 200, 2)).astype(np.float32)
    np.testing.assert_array_equal(on_grid(values), values.astype(np.float64))


def sphere(rings: int, segments: int, radius: float, centre: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices [V, 3] (z away from the camera), triangles with outward right-handed normals, and each vertex's outward normal."""
    polar, around = np.meshgrid(
        np.linspace(0.02, np.pi - 0.02, rings), np.linspace(0, 2 * np.pi, segments, endpoint=False), indexing="ij"
    )
    normal = np.stack([np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)], -1).reshape(-1, 3)
    number = np.arange(rings * segments).reshape(rings, segments)
    a, b = number[:-1].ravel(), np.roll(number, -1, 1)[:-1].ravel()
    c, d = number[1:].ravel(), np.roll(number, -1, 1)[1:].ravel()
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]).astype(np.int32)
    return normal * radius + centre, triangles, normal


def test_texel_shows_its_surface_point() -> None:
    """A texel shows the point of the surface with its texture coordinates."""
    uv, triangles = grid_mesh(6, 0.1, 0.9, 0.03, seed=2)
    surface = np.stack([3.0 * uv[..., 0], uv[..., 1] - 2.0, uv.sum(-1)], -1)
    unwrapped = uv_map(uv[0], triangles, triangles, 20, 32)
    covered = unwrapped.fragments.covered[0]
    found = unwrapped.positions(surface)[0]
    rows, columns = np.nonzero(covered)
    assert covered.mean() > 0.5
    u, v = (columns + 0.5) / 32, (rows + 0.5) / 20
    np.testing.assert_allclose(found[covered], np.stack([3 * u, v - 2, u + v], 1), atol=1e-5)
    assert not found[~covered].any()


def test_texture_drawn_at_coordinates() -> None:
    """A texture on a mesh is drawn where its coordinates say."""
    uv, triangles = grid_mesh(5, 0.0, 1.0, 0.0, seed=0)
    texture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    fragments = rasterise(uv * 16 - 0.5, np.ones(uv.shape[:2]), triangles, 16, 16)
    drawn = sample_texture(texture, interpolate(fragments, uv, triangles)[0])
    np.testing.assert_allclose(drawn, texture, atol=1e-3)


def test_bilinear_inside_constant_outside() -> None:
    """Sampling is bilinear inside and constant beyond the outermost centres."""
    texture = np.array([[[0.0], [10.0]], [[20.0], [30.0]]], np.float32)
    uv = np.array([[0.5, 0.5], [0.25, 0.25], [0.75, 0.5], [-3.0, 0.0], [2.0, 2.0]])
    np.testing.assert_allclose(sample_texture(texture, uv)[:, 0], [15.0, 0.0, 20.0, 0.0, 30.0])


def test_tables_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="corners"):
        uv_map(np.zeros((3, 2)), np.zeros((1, 3), np.int32), np.zeros((2, 3), np.int32), 4, 4)


def test_facing_half_sphere_visible() -> None:
    """The half of a sphere that faces the camera is visible."""
    vertices, triangles, normal = sphere(24, 40, 20.0, 31.5)
    points, depth = vertices[None, :, :2], vertices[None, :, 2]
    fragments = rasterise(points, depth, triangles, 64, 64)
    seen = visible_vertices(fragments, points, depth, triangles)[0]
    clear = np.abs(normal[:, 2]) > 0.15  # one ring of triangles around the outline may count either way
    np.testing.assert_array_equal(seen[clear], normal[clear, 2] < 0)
    np.testing.assert_array_equal(facing(points[0], triangles)[clear], normal[clear, 2] < 0)


def test_occluded_and_outside_invisible() -> None:
    """Parts behind another part or outside the picture are not visible."""
    front, triangles = grid_mesh(5, 10.0, 20.0, 0.0, seed=0)
    back, _ = grid_mesh(5, 2.0, 40.0, 0.0, seed=0)
    points = np.concatenate([front, back], 1)
    depth = np.concatenate([np.full((1, 25), 1.0), np.full((1, 25), 2.0)], 1)
    both = np.concatenate([triangles, triangles + 25])
    seen = visible_vertices(rasterise(points, depth, both, 32, 32), points, depth, both)[0]
    assert seen[:25].all()
    x, y = back[0].T
    covered = (x > 10) & (x < 20) & (y > 10) & (y < 20)
    outside = (x > 31.5) | (y > 31.5)
    assert covered.sum() == 1
    np.testing.assert_array_equal(seen[25:], ~covered & ~outside)


def bowl():
    """A relief of 8 x 9 vertices that faces the camera, away from pixel centres: points, depth, triangles, colours."""
    random = np.random.default_rng(0)
    rows, columns = np.meshgrid(np.linspace(4.3, 35.1, 8), np.linspace(5.2, 41.7, 9), indexing="ij")
    points = np.stack([columns.ravel(), rows.ravel()], 1) + random.uniform(-0.8, 0.8, (72, 2))
    return points, random.uniform(0, 4, 72), sheet(8, 9), random.uniform(0, 255, (72, 3))


def test_the_drawn_values_are_those_of_the_rasteriser():
    points, depth, triangles, colours = bowl()
    drawn = draw_surface(points, depth, triangles, colours, SURFACE_SIZE)
    fragments = rasterise(points[None], depth[None], triangles, *SURFACE_SIZE, cull="back")
    assert np.array_equal(drawn.covered, fragments.covered[0])
    assert drawn.covered.mean() > 0.5
    np.testing.assert_allclose(drawn.values, interpolate(fragments, colours[None], triangles)[0], atol=1e-3)


def test_the_gradient_is_the_slope_inside_the_surface():
    points, depth, triangles, colours = bowl()
    drawn = draw_surface(points, depth, triangles, colours, SURFACE_SIZE)
    random = np.random.default_rng(1)
    inside = np.zeros((*SURFACE_SIZE, 1))
    inside[10:30, 12:36] = 1.0  # the outline has no gradient
    wanted = random.normal(size=drawn.values.shape) * inside
    found = drawn.gradient(wanted)
    way, shade, step = random.normal(size=points.shape), random.normal(size=colours.shape), 1e-6

    def value(share):
        values = draw_surface(points + share * way, depth, triangles, colours + share * shade, SURFACE_SIZE).values
        return (wanted * values).sum()

    slope = (value(step) - value(-step)) / (2 * step)
    assert slope == pytest.approx((found.points * way).sum() + (found.attributes * shade).sum(), rel=1e-5)


@pytest.mark.parametrize("backend", ["numba", pytest.param("pytorch3d", marks=needs_pytorch3d)])
def test_triangles_that_are_turned_away_are_not_drawn(backend):
    points, depth, triangles, colours = bowl()
    drawn = draw_surface(points, depth, np.ascontiguousarray(triangles[:, ::-1]), colours, SURFACE_SIZE, backend=backend)
    assert not drawn.covered.any()
    assert not any(part.any() for part in drawn.gradient(np.ones_like(drawn.values)))


@needs_pytorch3d
def test_pytorch3d_draws_the_same_with_the_same_gradients():
    points, depth, triangles, colours = bowl()
    wanted = np.random.default_rng(2).normal(size=(*SURFACE_SIZE, 3))
    ours, theirs = (draw_surface(points, depth, triangles, colours, SURFACE_SIZE, backend=each) for each in ("numba", "pytorch3d"))
    assert np.array_equal(ours.covered, theirs.covered)
    np.testing.assert_allclose(ours.values, theirs.values, atol=0.01)
    for one, other in zip(ours.gradient(wanted), theirs.gradient(wanted), strict=True):
        assert np.linalg.norm(one - other) < 1e-4 * np.linalg.norm(one)


def test_a_missing_pytorch3d_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailableError, match=r"install a wheel of pytorch3d.*numba"):
        draw_surface(*bowl(), SURFACE_SIZE, backend="pytorch3d")


def test_attributes_must_be_of_the_vertices():
    points, depth, triangles, colours = bowl()
    with pytest.raises(ValueError, match="71 rows"):
        draw_surface(points, depth, triangles, colours[1:], SURFACE_SIZE)
