"""Tests of OBJ files, and of correspondences: the 68-point layout on the mesh, and the way to head space.

The restricted reader: arrays come through, everything else is refused.
"""

import dataclasses
import io
import os
import pickle
import sys
import types
from types import MappingProxyType

import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix
from scipy.spatial.transform import Rotation

from services.common.errors import InvalidRequestError
from services.common.face.crops import head_template
from services.common.face.landmarks import MOUTH_AREA
from services.common.face.loaders import files
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
    with pytest.raises(InvalidRequestError, match="only 3"):
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


def dump(value, protocol=2):
    return io.BytesIO(pickle.dumps(value, protocol=protocol))


@pytest.fixture
def chumpy(monkeypatch):
    """A module named chumpy.ch whose class Ch pickles as the real one does: its state is a dictionary with x."""
    module = types.ModuleType("chumpy.ch")

    class Ch:
        def __init__(self, x):
            self.x = x
            self._dirty_vars = {"x"}  # the real class keeps such a set, and pickles it

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    setattr(module, "Ch", Ch)  # noqa: B010 - a module made here has no such name to the checker
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    return Ch


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_dictionaries_of_arrays_come_through_every_protocol(protocol):
    content = {"v": np.arange(6.0).reshape(2, 3), "n": np.float64(3), "name": "head", "list": [np.array([1, 2], np.uint32), None]}
    back = files.load(dump(content, protocol))
    assert np.array_equal(back["v"], content["v"])
    assert back["name"] == "head"
    assert back["list"][0].tolist() == [1, 2]


def test_chumpy_arrays_are_read_without_chumpy(chumpy):
    data = dump({"shapedirs": chumpy(np.ones((2, 3)))})
    del sys.modules["chumpy.ch"]
    assert np.array_equal(files.load(data)["shapedirs"], np.ones((2, 3)))


def test_a_chumpy_expression_says_what_to_do(chumpy):
    wrapped = chumpy(None)
    wrapped.__dict__ = {"a": 1}
    with pytest.raises(files.PickleRefusedError, match="save its value"):
        files.load(dump(wrapped))


@pytest.mark.parametrize("kind", [csc_matrix, csr_matrix])
def test_sparse_matrices_become_dense_without_scipy(kind):
    dense = np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]])
    assert np.array_equal(files.load(dump(kind(dense))), dense)


class Harmful:
    def __reduce__(self):
        return os.system, ("touch /tmp/this-must-never-exist",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickled_command_never_runs(protocol, tmp_path, monkeypatch):
    """A pickle that runs a command is refused and runs nothing."""
    ran: list[str] = []
    monkeypatch.setattr(os, "system", ran.append)
    with pytest.raises(files.PickleRefusedError):
        files.load(dump({"v": Harmful()}, protocol))
    assert ran == []


@pytest.mark.parametrize(
    "name", ["builtins\neval", "builtins\ngetattr", "numpy.testing\nassert_equal", "numpy\nload", "copyreg\n__newobj__"]
)
def test_no_function_of_any_module_can_be_had(name):
    with pytest.raises(files.PickleRefusedError):
        files.load(io.BytesIO(f"c{name}\n.".encode()))


def test_copy_module_builds_no_foreigners():
    """Foreign objects cannot be rebuilt through the copy module."""
    data = b"ccopyreg\n_reconstructor\n(cnumpy\nndarray\ncbuiltins\nobject\nNtR."
    with pytest.raises(files.PickleRefusedError, match="ndarray"):
        files.load(io.BytesIO(data))


def test_a_dictionary_in_a_npy_file_is_read(tmp_path):
    np.save(tmp_path / "a.npy", {"x": np.arange(3)}, allow_pickle=True)
    assert files.load_npy_object(tmp_path / "a.npy")["x"].tolist() == [0, 1, 2]


def test_a_harmful_npy_file_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array(Harmful(), dtype=object), allow_pickle=True)
    with pytest.raises(files.PickleRefusedError):
        files.load_npy_object(tmp_path / "a.npy")
