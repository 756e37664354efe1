"""Tests of OBJ files, and of correspondences: the 68-point layout on the mesh, and the way to head space."""

import dataclasses
from types import MappingProxyType

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from services.common.errors import InvalidRequest
from services.common.face.crops import head_template
from services.common.face.landmarks import MOUTH_AREA
from services.common.face.loaders.files import (
    IBUG_68,
    align_to_head_space,
    landmark_sets_of_68,
    mouth_area_of,
    read_obj,
    read_obj_vertices,
)
from services.common.geometry.morphable_model import LandmarkSet
from tests.unit.common.geometry.small_models import small_model

LEFT_RIGHT_68 = [
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    *range(45, 41, -1), 47, 46, *range(39, 35, -1), 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
]  # fmt: skip


def test_68_points_are_symmetric():
    """The 68 points are symmetric on the mean head."""
    points = head_template()[list(IBUG_68)]
    assert np.abs(points[LEFT_RIGHT_68] * [-1, 1, 1] - points).max() < 3.0
    assert len(set(IBUG_68)) == 68


def test_foreign_axes_reach_head_space():
    """A model of other axes units and place comes to head space."""
    model = small_model()
    turn = Rotation.from_rotvec([np.pi, 0.1, 0]).as_matrix().astype(np.float32)
    scale, shift = np.float32(0.01), np.array([1, 2, 3], np.float32)
    foreign = dataclasses.replace(
        model,
        unit="metre",
        mean_shape=scale * model.mean_shape @ turn.T + shift,
        expression_basis=scale * np.einsum("ij,vjk->vik", turn, model.expression_basis).astype(np.float32),
        identity_basis=scale * np.einsum("ij,vjk->vik", turn, model.identity_basis).astype(np.float32),
    )
    aligned = align_to_head_space(foreign)
    assert aligned.unit == "crop pixel"
    assert aligned.mean_shape == pytest.approx(model.mean_shape, abs=1e-3)
    coefficients = np.random.default_rng(0).normal(size=7)
    assert aligned.shape(coefficients[:3], coefficients[3:]) == pytest.approx(
        model.shape(coefficients[:3], coefficients[3:]), abs=1e-3
    )


def test_too_few_landmarks_cannot_align():
    three = MappingProxyType({"mediapipe": LandmarkSet.of_vertices([0, 1, 2, 3], [5, 6, 7, -1])})
    with pytest.raises(InvalidRequest, match="only 3"):
        align_to_head_space(dataclasses.replace(small_model(), landmarks=three))


def test_68_points_give_51():
    """68 points give the 51 fixed places of the mesh."""
    sets = landmark_sets_of_68(LandmarkSet.of_vertices(np.arange(100, 168)))
    assert sets["mediapipe"].mediapipe.tolist() == list(IBUG_68[17:])
    assert sets["mediapipe"].vertices[0, 0] == 117
    assert len(sets["ibug_68"]) == 68


def test_mouth_area_any_order():
    """The mouth area is found in any order, and only when it is whole."""
    shuffled = np.random.default_rng(0).permutation(np.array(MOUTH_AREA))
    landmarks = LandmarkSet.of_vertices(shuffled, shuffled)
    assert mouth_area_of(landmarks).mediapipe.tolist() == list(MOUTH_AREA)
    assert mouth_area_of(landmarks.select(np.arange(58))) is None


def test_obj_quads_normals_negative_indices(tmp_path):
    """Quadrilaterals normals and numbers from the end are read."""
    path = tmp_path / "a.obj"
    path.write_text(
        "o thing\nv 0 0 0\nv 1 0 0\nv 1 1 0 1.0\nv 0 1 0\nvn 0 0 1\n"
        "vt 0 0\nvt 1 0\nvt 1 1\nf 1/1/1 2/2/1 3/3/1 4/3/1\nf -4/1 -3/2 -2/3\n"
    )
    mesh = read_obj(path)
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]
    assert mesh.uv_triangles.tolist() == [[0, 1, 2], [0, 2, 2], [0, 1, 2]]
    assert mesh.uv.tolist() == [[0, 0], [1, 0], [1, 1]]
    assert read_obj_vertices(path).tolist() == mesh.vertices.tolist()


def test_a_mesh_without_texture_has_none(tmp_path):
    path = tmp_path / "a.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nf 1//1 2//1 3//1\n")
    assert len(read_obj(path).uv) == len(read_obj(path).uv_triangles) == 0


@pytest.mark.parametrize("text", ["", "hello\n", "v 1 two 3\n", "v 0 0 0\nf a b c\n"])
def test_what_is_no_mesh_is_refused(tmp_path, text):
    path = tmp_path / "a.obj"
    path.write_text(text)
    with pytest.raises(ValueError, match=r".+"):
        read_obj(path)
