"""The restricted reader: arrays come through, everything else is refused."""

import io
import os
import pickle
import sys
import types

import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from services.common.face.loaders import restricted_pickle


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
    back = restricted_pickle.load(dump(content, protocol))
    assert np.array_equal(back["v"], content["v"])
    assert back["name"] == "head"
    assert back["list"][0].tolist() == [1, 2]


def test_chumpy_arrays_are_read_without_chumpy(chumpy):
    data = dump({"shapedirs": chumpy(np.ones((2, 3)))})
    del sys.modules["chumpy.ch"]
    assert np.array_equal(restricted_pickle.load(data)["shapedirs"], np.ones((2, 3)))


def test_a_chumpy_expression_says_what_to_do(chumpy):
    wrapped = chumpy(None)
    wrapped.__dict__ = {"a": 1}
    with pytest.raises(restricted_pickle.PickleRefusedError, match="save its value"):
        restricted_pickle.load(dump(wrapped))


@pytest.mark.parametrize("kind", [csc_matrix, csr_matrix])
def test_sparse_matrices_become_dense_without_scipy(kind):
    dense = np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]])
    assert np.array_equal(restricted_pickle.load(dump(kind(dense))), dense)


class Harmful:
    def __reduce__(self):
        return os.system, ("touch /tmp/this-must-never-exist",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickled_command_never_runs(protocol, tmp_path, monkeypatch):
    """A pickle that runs a command is refused and runs nothing."""
    ran: list[str] = []
    monkeypatch.setattr(os, "system", ran.append)
    with pytest.raises(restricted_pickle.PickleRefusedError):
        restricted_pickle.load(dump({"v": Harmful()}, protocol))
    assert ran == []


@pytest.mark.parametrize(
    "name", ["builtins\neval", "builtins\ngetattr", "numpy.testing\nassert_equal", "numpy\nload", "copyreg\n__newobj__"]
)
def test_no_function_of_any_module_can_be_had(name):
    with pytest.raises(restricted_pickle.PickleRefusedError):
        restricted_pickle.load(io.BytesIO(f"c{name}\n.".encode()))


def test_copy_module_builds_no_foreigners():
    """Foreign objects cannot be rebuilt through the copy module."""
    data = b"ccopyreg\n_reconstructor\n(cnumpy\nndarray\ncbuiltins\nobject\nNtR."
    with pytest.raises(restricted_pickle.PickleRefusedError, match="ndarray"):
        restricted_pickle.load(io.BytesIO(data))


def test_a_dictionary_in_a_npy_file_is_read(tmp_path):
    np.save(tmp_path / "a.npy", {"x": np.arange(3)}, allow_pickle=True)
    assert restricted_pickle.load_npy_object(tmp_path / "a.npy")["x"].tolist() == [0, 1, 2]


def test_a_harmful_npy_file_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array(Harmful(), dtype=object), allow_pickle=True)
    with pytest.raises(restricted_pickle.PickleRefusedError):
        restricted_pickle.load_npy_object(tmp_path / "a.npy")
