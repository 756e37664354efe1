from __future__ import annotations

import numpy as np
import pytest

from services.common.geometry.rasterise import interpolate, rasterise
from services.common.geometry.rasterise_uv import sample_texture, uv_map
from services.common.geometry.rasterise_visibility import facing, visible_vertices
from tests.unit.common.geometry.test_rasterise import grid_mesh


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


def test_a_texel_shows_the_point_of_the_surface_with_its_texture_coordinates() -> None:
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


def test_a_texture_on_a_mesh_is_drawn_where_its_coordinates_say() -> None:
    uv, triangles = grid_mesh(5, 0.0, 1.0, 0.0, seed=0)
    texture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    fragments = rasterise(uv * 16 - 0.5, np.ones(uv.shape[:2]), triangles, 16, 16)
    drawn = sample_texture(texture, interpolate(fragments, uv, triangles)[0])
    np.testing.assert_allclose(drawn, texture, atol=1e-3)


def test_sampling_is_bilinear_inside_and_constant_beyond_the_outermost_centres() -> None:
    texture = np.array([[[0.0], [10.0]], [[20.0], [30.0]]], np.float32)
    uv = np.array([[0.5, 0.5], [0.25, 0.25], [0.75, 0.5], [-3.0, 0.0], [2.0, 2.0]])
    np.testing.assert_allclose(sample_texture(texture, uv)[:, 0], [15.0, 0.0, 20.0, 0.0, 30.0])


def test_tables_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="corners"):
        uv_map(np.zeros((3, 2)), np.zeros((1, 3), np.int32), np.zeros((2, 3), np.int32), 4, 4)


def test_the_half_of_a_sphere_that_faces_the_camera_is_visible() -> None:
    vertices, triangles, normal = sphere(24, 40, 20.0, 31.5)
    points, depth = vertices[None, :, :2], vertices[None, :, 2]
    fragments = rasterise(points, depth, triangles, 64, 64, perspective=False)
    seen = visible_vertices(fragments, points, depth, triangles)[0]
    clear = np.abs(normal[:, 2]) > 0.15  # one ring of triangles around the outline may count either way
    np.testing.assert_array_equal(seen[clear], normal[clear, 2] < 0)
    np.testing.assert_array_equal(facing(points[0], triangles)[clear], normal[clear, 2] < 0)


def test_what_lies_behind_another_part_or_outside_the_picture_is_not_visible() -> None:
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
