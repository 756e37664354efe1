"""Normals against hand-made and analytic surfaces."""

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull

from services.common.geometry.normals import face_normals, outwards, vertex_face_table, vertex_normals


def ball(count=800):
    i = np.arange(count) + 0.5
    z, angle = 1 - 2 * i / count, np.pi * (1 + np.sqrt(5)) * i
    r = np.sqrt(1 - z * z)
    points = np.stack([r * np.cos(angle), r * np.sin(angle), z], -1)
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


def test_batches_torch_and_gradients():
    """Batches and torch give the same and gradients are right."""
    points, triangles = ball(40)
    batch = np.stack([points, 2.0 * points + 1.0])
    assert vertex_normals(batch, triangles)[1] == pytest.approx(vertex_normals(points, triangles), abs=1e-9)
    tensor = torch.from_numpy(points).requires_grad_()
    assert vertex_normals(tensor, triangles).detach().numpy() == pytest.approx(vertex_normals(points, triangles))
    assert torch.autograd.gradcheck(lambda v: vertex_normals(v, triangles[:6]), (tensor,), eps=1e-6, atol=1e-6)


def test_a_mesh_that_is_inside_out_is_turned():
    points, triangles = ball(200)
    face = triangles[(points[triangles, 2] < 0.2).all(1)]  # the half that faces the camera
    assert np.array_equal(outwards(face, points), face)
    assert np.array_equal(outwards(face[:, [0, 2, 1]], points), face)
