"""Reader for pickles of arrays that runs no code of the pickle.

A pickle names functions, and the standard reader calls the functions. This reader allows a few names (containers of numpy and
Python) and refuses all others, so a malicious model file can only fail. Chumpy arrays (in FLAME's files) and scipy's sparse
matrices are read as inert stand-ins that hold the state of the object. This module unpacks the stand-ins, so chumpy and scipy are
not needed.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np


class PickleRefusedError(ValueError):
    """Error of a pickle that asks for a type or function that is not allowed."""


class StandIn:
    """Object of a foreign class: the state without the behaviour."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class ChumpyArray(StandIn):
    """Stand-in for any class of chumpy."""


class SparseMatrix(StandIn):
    """Stand-in for scipy's compressed sparse columns and rows."""


def _codecs_encode(text: str, encoding: str = "latin1") -> bytes:
    """Return bytes as Python 2 wrote them in protocol 2: `_codecs.encode(text, "latin1")`. No other codec is allowed."""
    if encoding != "latin1":
        raise PickleRefusedError(f"the pickle decodes bytes by {encoding!r}")
    return text.encode("latin1")


def _reconstructor(cls: type, base: type, state: Any) -> Any:
    """Do the work of `copyreg._reconstructor`, only for stand-ins."""
    if not issubclass(cls, StandIn) or base is not object:
        raise PickleRefusedError(f"the pickle rebuilds {cls.__name__} from {base.__name__}")
    return cls()


_ARRAY: Final = np.zeros(0).__reduce__()[0]
_SCALAR: Final = np.float64(0).__reduce__()[0]
_BUFFER: Final = np.zeros(1).__reduce_ex__(5)[0]
_ALLOWED: Final[dict[tuple[str, str], Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _codecs_encode,
    ("copy_reg", "_reconstructor"): _reconstructor,
    ("copyreg", "_reconstructor"): _reconstructor,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
    ("__builtin__", "set"): set,
    ("builtins", "set"): set,
    ("collections", "OrderedDict"): OrderedDict,
}
for _module in ("numpy.core.numeric", "numpy._core.numeric"):
    _ALLOWED[_module, "_frombuffer"] = _BUFFER
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _ALLOWED[_module, "_reconstruct"] = _ARRAY
    _ALLOWED[_module, "scalar"] = _SCALAR


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module.split(".", maxsplit=1)[0] == "chumpy":
            return ChumpyArray
        if module.startswith("scipy.sparse") and name in {"csc_matrix", "csr_matrix", "csc_array", "csr_array"}:
            return type(name, (SparseMatrix,), {})
        raise PickleRefusedError(f"the pickle asks for {module}.{name}, which no array needs")


def load(file: BinaryIO) -> Any:
    """Return the content of a pickle, with numpy arrays. Strings of Python 2 are read as latin1.

    Raises:
        PickleRefusedError: the pickle asks for anything other than arrays.
        pickle.UnpicklingError: the bytes are not a pickle, or are cut off.
    """
    return _plain(_Unpickler(file, encoding="latin1").load())


def load_npy_object(path: Path) -> Any:
    """Return the object in a .npy file of dtype object (`numpy.save` of a dictionary), through the restricted reader."""
    data = path.read_bytes()
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read(stream)
    if dtype.kind != "O":
        raise ValueError(f"it holds an array of {dtype}, not a dictionary")
    content = load(stream)
    return content.item() if isinstance(content, np.ndarray) else content


def _plain(value: Any) -> Any:
    """Return `value` with every stand-in replaced by an array, also inside dictionaries, lists and tuples."""
    if isinstance(value, ChumpyArray):
        state = value.state
        if not isinstance(state, dict) or "x" not in state:
            raise PickleRefusedError("a chumpy expression instead of a plain array: save its value (.r) as numpy and load that")
        return np.asarray(_plain(state["x"]))
    if isinstance(value, SparseMatrix):
        return _dense(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return value


def _dense(matrix: SparseMatrix) -> np.ndarray[Any, Any]:
    state = matrix.state
    rows, columns = (int(size) for size in state.get("_shape", state.get("shape")))
    compressed_rows = type(matrix).__name__.startswith("csr")
    pointers, indices, data = (np.asarray(state[key]) for key in ("indptr", "indices", "data"))
    outer = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
    dense = np.zeros((rows, columns), data.dtype)
    dense[(outer, indices) if compressed_rows else (indices, outer)] = data
    return dense
