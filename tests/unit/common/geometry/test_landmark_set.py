"""Landmarks as vertices and as points of triangles."""

import numpy as np
import pytest
import torch

from services.common.errors import InvalidRequest
from services.common.geometry.landmark_set import LandmarkSet

RANDOM = np.random.default_rng(1)
VERTICES = RANDOM.normal(size=(2, 10, 3))
INSIDE = LandmarkSet(
    np.array([[1, 2, 3], [4, 5, 6]], np.int32), np.array([[0.5, 0.25, 0.25], [0, 0, 1]], np.float32), np.array([7, -1], np.int32)
)


def test_vertices_are_picked_in_their_order():
    landmarks = LandmarkSet.of_vertices([3, 0, 3])
    assert np.array_equal(landmarks.of(VERTICES), VERTICES[:, [3, 0, 3]])
    assert landmarks.mediapipe.tolist() == [-1, -1, -1]


def test_points_of_triangles_are_weighted_means_of_the_corners():
    expected = np.stack([VERTICES[:, 1] / 2 + VERTICES[:, 2] / 4 + VERTICES[:, 3] / 4, VERTICES[:, 6]], 1)
    assert INSIDE.of(VERTICES) == pytest.approx(expected)
    assert INSIDE.of(torch.from_numpy(VERTICES)).numpy() == pytest.approx(expected)


def test_a_landmarks_basis_moves_it_as_the_vertices_bases_do():
    basis, coefficients = RANDOM.normal(size=(10, 3, 4)), RANDOM.normal(size=4)
    assert INSIDE.of_basis(basis) @ coefficients == pytest.approx(INSIDE.of(basis @ coefficients), abs=1e-5)


def test_a_selection_keeps_the_numbers_in_the_face_mesh():
    assert INSIDE.select([0]).mediapipe.tolist() == [7]
    assert len(INSIDE.select(np.array([True, False]))) == 1


def test_arrays_that_do_not_go_together_are_refused():
    with pytest.raises(InvalidRequest, match="must be"):
        LandmarkSet(INSIDE.vertices, INSIDE.weights[:1], INSIDE.mediapipe)
