from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from services.common.geometry.fragments import Fragments, on_grid
from services.common.geometry.rasterise import interpolate, rasterise
from tests.unit.common.geometry.rasterise_reference import hits

SIZE = 7
ONE = np.array([[0, 1, 2]], np.int32)


@st.composite
def meshes(draw, values):
    """Vertices [1, V, 2], depth [1, V] and triangles [F, 3] that share vertices and cross each other."""
    count = draw(st.integers(3, 8))
    vertices = draw(arrays.arrays(np.float32, (1, count, 2), elements=values))
    depth = draw(arrays.arrays(np.float32, (1, count), elements=st.floats(0.25, 16.0, width=32)))
    triangles = draw(arrays.arrays(np.int32, (draw(st.integers(1, 8)), 3), elements=st.integers(0, count - 1)))
    return vertices, depth, triangles


def grid_mesh(side: int, low: float, high: float, jitter: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A square of side x side vertices, moved a little, as [1, V, 2] float32 and [F, 3]."""
    rows = np.linspace(low, high, side)
    points = np.stack(np.meshgrid(rows, rows), -1).reshape(-1, 2)
    points += np.random.default_rng(seed).uniform(-jitter, jitter, points.shape)
    number = np.arange(side * side).reshape(side, side)
    a, b, c, d = (part.ravel() for part in (number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]))
    triangles = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)]).astype(np.int32)
    return points[None].astype(np.float32), triangles


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
@given(meshes(st.floats(-4.0, 10.0, width=32)), st.booleans(), st.sampled_from(["none", "back"]))
def test_equals_the_definition_on_any_mesh(mesh, perspective, cull) -> None:
    options = {"perspective": perspective, "cull": cull}
    assert_equals_definition(rasterise(*mesh, SIZE, SIZE, **options), *mesh, **options)


@settings(max_examples=15, deadline=None)
@given(meshes(st.integers(-1, 2 * SIZE).map(lambda value: value / 2)), st.booleans())
def test_equals_the_definition_where_edges_and_vertices_lie_on_centres(mesh, perspective) -> None:
    assert_equals_definition(rasterise(*mesh, SIZE, SIZE, perspective=perspective), *mesh, perspective=perspective)


@settings(max_examples=15, deadline=None)
@given(
    meshes(st.sampled_from([0.0, 1e-30, 3.0, np.float32(3.0000002), np.float32(2.9999998), 6.0, -1e5, 1e6, 4e8, np.inf, np.nan]))
)
def test_equals_the_definition_for_slivers_and_values_out_of_range(mesh) -> None:
    assert_equals_definition(rasterise(*mesh, SIZE, SIZE), *mesh)


@pytest.mark.parametrize("jitter", [0.0, 0.4])
def test_a_triangulated_square_covers_each_centre_inside_exactly_once(jitter: float) -> None:
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


def test_interpolation_is_right_for_the_point_in_space_and_not_linear_on_the_screen() -> None:
    focal, centre = 40.0, 15.5
    space = np.array([[-1.0, -1.0, 2.0], [-1.0, 1.0, 2.0], [2.0, 0.0, 6.0]])
    pixels = (focal * space[None, :, :2] / space[None, :, 2:] + centre).astype(np.float32)
    fragments = rasterise(pixels, space[None, :, 2].astype(np.float32), ONE, 32, 32)
    found = interpolate(fragments, space[None].astype(np.float32), ONE)[fragments.covered]
    rows, columns = np.nonzero(fragments.covered[0])
    assert len(rows) > 50
    np.testing.assert_allclose(focal * found[:, 0] / found[:, 2] + centre, columns, atol=1e-3)
    np.testing.assert_allclose(focal * found[:, 1] / found[:, 2] + centre, rows, atol=1e-3)
    np.testing.assert_allclose(found[:, 2], fragments.depth[fragments.covered], rtol=1e-6)
    linear = rasterise(pixels, space[None, :, 2].astype(np.float32), ONE, 32, 32, perspective=False)
    assert np.abs(linear.depth[linear.covered] - fragments.depth[fragments.covered]).max() > 0.2


def test_corners_of_their_own_keep_both_sides_of_a_texture_seam() -> None:
    vertices, triangles = grid_mesh(2, 0.0, 8.0, 0.0, seed=0)
    texture = np.array([[[0.0], [0.0], [0.0], [1.0], [1.0], [1.0]]], np.float32)
    fragments = rasterise(vertices, np.ones((1, 4)), triangles, 8, 8)
    values = interpolate(fragments, texture, np.array([[0, 1, 2], [3, 4, 5]], np.int32))
    np.testing.assert_array_equal(values[..., 0], fragments.triangle_index.astype(np.float32))


def test_a_triangle_that_reaches_the_near_plane_is_left_out_only_in_perspective() -> None:
    vertices = np.array([[[0, 0], [0, 8], [8, 0]]], np.float32)
    for depth in ([1.0, 1.0, 0.0], [1.0, -2.0, 1.0], [1.0, 0.5, 1.0]):
        row = np.array([depth], np.float32)
        assert not rasterise(vertices, row, ONE, 8, 8, near=0.5).covered.any()
        assert rasterise(vertices, row, ONE, 8, 8, near=0.5, perspective=False).covered.sum() == 36


def test_culling_keeps_what_turns_counter_clockwise_on_screen() -> None:
    vertices = np.array([[[0, 0], [0, 8], [8, 0]]], np.float32)
    assert rasterise(vertices, np.ones((1, 3)), ONE, 8, 8, cull="back").covered.any()
    assert not rasterise(vertices, np.ones((1, 3)), ONE[:, ::-1], 8, 8, cull="back").covered.any()


def test_of_equally_near_triangles_the_first_is_shown() -> None:
    vertices = np.array([[[0, 0], [0, 8], [8, 0]]], np.float32)
    twice = np.concatenate([ONE, ONE])
    assert set(np.unique(rasterise(vertices, np.full((1, 3), 2.0), twice, 8, 8).triangle_index)) == {-1, 0}


@pytest.mark.parametrize("threads", [2, 3, 16])
@pytest.mark.parametrize("count", [1, 5])
def test_threads_change_nothing(threads: int, count: int) -> None:
    rng = np.random.default_rng(4)
    vertices = rng.uniform(-5, 45, (count, 30, 2)).astype(np.float32)
    depth = rng.uniform(1, 5, (count, 30)).astype(np.float32)
    triangles = rng.integers(0, 30, (60, 3)).astype(np.int32)
    alone = rasterise(vertices, depth, triangles, 37, 41)
    shared = rasterise(vertices, depth, triangles, 37, 41, num_threads=threads)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(alone, shared, strict=True))


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
def test_what_does_not_fit_is_refused_before_the_kernel_sees_it(vertices, depth, triangles, height) -> None:
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
