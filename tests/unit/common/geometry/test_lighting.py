"""Spherical harmonics: values by hand, orthonormality on the sphere, irradiance by integration, and light that is found again.

Normals against hand-made and analytic surfaces.
"""

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from services.common.geometry import lighting
from services.common.geometry.lighting import face_normals, outwards, vertex_face_table, vertex_normals

RANDOM = np.random.default_rng(7)


def sphere(count=20000):
    """Evenly spread directions (Fibonacci), float64 [count, 3]."""
    i = np.arange(count) + 0.5
    z, angle = 1 - 2 * i / count, np.pi * (1 + np.sqrt(5)) * i
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(angle), r * np.sin(angle), z], -1)


def test_harmonics_at_the_axes():
    """Values at the axes are those of the textbook."""
    at_z = lighting.harmonics(np.array([0.0, 0.0, 1.0]))
    assert at_z == pytest.approx([0.2820948, 0, 0.4886025, 0, 0, 0, 0.6307831, 0, 0], abs=1e-7)
    at_x = lighting.harmonics(np.array([1.0, 0.0, 0.0]))
    assert at_x == pytest.approx([0.2820948, 0, 0, 0.4886025, 0, 0, -0.3153916, 0, 0.5462742], abs=1e-7)
    diagonal = lighting.harmonics(np.array([1.0, 1.0, 0.0]) / np.sqrt(2))
    assert diagonal[4] == pytest.approx(1.0925484 / 2)


def test_the_nine_functions_are_orthonormal_on_the_sphere():
    values = lighting.harmonics(sphere())
    assert 4 * np.pi * values.T @ values / len(values) == pytest.approx(np.eye(9), abs=1e-3)


def test_shading_is_cosine_integral():
    """Shading is the integral of radiance times cosine over pi."""
    light = RANDOM.normal(size=(9, 3))
    directions = sphere()
    radiance = lighting.harmonics(directions) @ light
    for normal in (np.array([0.0, 0.0, -1.0]), np.array([0.6, -0.48, 0.64])):
        cosine = np.maximum(directions @ normal, 0.0)
        irradiance = 4 * np.pi * (radiance * cosine[:, None]).mean(0)
        assert lighting.shading(normal[None], light)[0] == pytest.approx(irradiance / np.pi, abs=2e-3)


def test_a_uniform_environment_shades_everything_with_its_radiance():
    shaded = lighting.shading(sphere(100), lighting.ambient() * np.float32([1.0, 0.5, 0.25]))
    assert shaded == pytest.approx(np.broadcast_to([1.0, 0.5, 0.25], (100, 3)), abs=1e-6)


def test_known_light_is_found():
    """A known light is found from colours and albedo."""
    normals, albedo = sphere(500), RANDOM.uniform(0.2, 0.8, (500, 3))
    light = lighting.ambient() + 0.3 * RANDOM.normal(size=(2, 9, 3))
    colours = albedo * lighting.shading(normals, light)
    found = lighting.estimate_light(
        colours, np.broadcast_to(albedo, colours.shape), np.broadcast_to(normals, colours.shape), ridge=0.0
    )
    assert found == pytest.approx(light, abs=1e-6)


def test_hidden_points_do_not_disturb_the_light():
    normals, albedo = sphere(500), RANDOM.uniform(0.2, 0.8, (500, 3))
    light = lighting.ambient().astype(np.float64)
    colours = albedo * lighting.shading(normals, light)
    colours[:100] = 5.0
    weights = np.ones(500)
    weights[:100] = 0.0
    assert lighting.estimate_light(colours, albedo, normals, weights, ridge=1e-6) == pytest.approx(light, abs=1e-4)


def test_half_sphere_determines_light():
    """Half a sphere of normals still gives a light that explains it."""
    normals = sphere(1000)
    normals = normals[normals[:, 2] < -0.2]
    light = lighting.ambient() + 0.2 * RANDOM.normal(size=(9, 3))
    colours = lighting.shading(normals, light) + 0.01 * RANDOM.normal(size=normals.shape)
    found = lighting.estimate_light(colours, np.ones_like(colours), normals)
    assert np.abs(lighting.shading(normals, found) - lighting.shading(normals, light)).mean() < 0.01
    assert np.abs(found).max() < 3 * np.abs(light).max()


def test_mean_shading_over_half_sphere():
    """Mean shading is the mean over the half sphere that faces the camera."""
    light = RANDOM.normal(size=(9, 3))
    normals = sphere()
    facing = lighting.shading(normals[normals[:, 2] < 0], light).mean(0)
    assert lighting.mean_shading(light) == pytest.approx(facing, abs=1e-3)


def test_scale_moves_to_albedo():
    """The shared factor moves from light to albedo and the colour stays."""
    normals, albedo = sphere(50), RANDOM.uniform(0.2, 0.8, (50, 3))
    light = 0.6 * lighting.ambient() * np.array([1.0, 0.8, 0.6]) + 0.05 * RANDOM.normal(size=(9, 3))
    split = lighting.normalise_light(light, albedo)
    assert lighting.mean_shading(split.light) == pytest.approx(np.ones(3))
    assert split.albedo * lighting.shading(normals, split.light) == pytest.approx(albedo * lighting.shading(normals, light))


def ball(count=800):
    points = sphere(count)
    triangles = ConvexHull(points).simplices
    corners = points[triangles]
    inwards = (np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) * corners[:, 0]).sum(-1) < 0
    triangles[inwards] = triangles[inwards][:, [0, 2, 1]]
    return points, triangles.astype(np.int32)


def test_face_normal_direction_and_area():
    """A face normal is twice the area along the right hand."""
    triangle = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    assert face_normals(triangle, np.array([[0, 1, 2]], np.int32))[0] == pytest.approx([0.0, 0.0, 6.0])


def test_ball_normals_point_outward():
    """Normals of a ball point away from its middle."""
    points, triangles = ball()
    normals = vertex_normals(points, triangles)
    assert np.linalg.norm(normals, axis=1) == pytest.approx(np.ones(len(points)))
    assert (normals * points).sum(1).min() > 0.995


def test_faces_count_by_their_area():
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 3.0]])
    triangles = np.array([[0, 1, 2], [0, 3, 1]], np.int32)
    # Areas .5 and 1.5, normals +z and +y.
    assert vertex_normals(points, triangles)[0] == pytest.approx(np.array([0.0, 3.0, 1.0]) / np.sqrt(10))


def test_vertex_table_lists_faces_once():
    """The table lists every face of every vertex once."""
    _, triangles = ball(60)
    table = vertex_face_table(triangles, 60)
    for vertex in range(60):
        assert sorted(f for f in table[vertex] if f < len(triangles)) == sorted(np.flatnonzero((triangles == vertex).any(1)))


def test_a_vertex_without_faces_has_no_normal():
    normals = vertex_normals(np.eye(4, 3), np.array([[0, 1, 2]], np.int32))
    assert normals[3] == pytest.approx(np.zeros(3))


def test_a_batch_has_each_meshs_normals():
    points, triangles = ball(40)
    batch = np.stack([points, 2.0 * points + 1.0])
    assert vertex_normals(batch, triangles)[1] == pytest.approx(vertex_normals(points, triangles), abs=1e-9)


def test_a_mesh_that_is_inside_out_is_turned():
    points, triangles = ball(200)
    face = triangles[(points[triangles, 2] < 0.2).all(1)]  # the half that faces the camera
    assert np.array_equal(outwards(face, points), face)
    assert np.array_equal(outwards(face[:, [0, 2, 1]], points), face)
