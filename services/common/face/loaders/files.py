"""Shared steps of the loaders: errors with file and remedy, axes, triangles, Wavefront OBJ meshes, and landmark correspondences.

Reader for pickles of arrays that runs no code of the pickle.

A pickle names functions, and the standard reader calls the functions. This reader allows a few names (containers of numpy and
Python) and refuses all others, so a malicious model file can only fail. Chumpy arrays (in FLAME's files) and scipy's sparse
matrices are read as inert stand-ins that hold the state of the object. This module unpacks the stand-ins, so chumpy and scipy are
not needed.
"""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Int32
from services.common.errors import InvalidRequestError
from services.common.face.crops import head_template
from services.common.face.landmarks import MOUTH_AREA
from services.common.geometry.alignment import similarity
from services.common.geometry.morphable_model import LandmarkSet, MorphableModel

IBUG_68: Final[tuple[int, ...]] = (
    127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356,  # 0-16 jaw, right ear to left
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # 17-26 brows
    168, 197, 5, 4, 98, 97, 2, 326, 327,  # 27-35 nose: bridge down, then base right to left
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # 36-47 eyes, each from its right corner over the upper lid
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # 48-59 outer lips
    78, 82, 13, 312, 308, 317, 14, 87,  # 60-67 inner lips
)  # fmt: skip
"""MediaPipe's mesh points at the places of the 68-point layout (iBUG 300-W). The jaw points of that layout follow the visible
contour. These are fixed points of the mesh, which agree with the contour on frontal faces only."""

IBUG_INNER_51: Final = tuple(range(17, 68))
"""Rows of the 68-point layout that are fixed places of the face: all but the jaw contour."""
FIELD: Final = "morphable_model"
"""Field that every error of a loader names: the option for a model file."""
Y_UP: Final = np.array([1.0, -1.0, -1.0])
"""Half a turn about the x axis: from x right, y up, z towards the viewer (FLAME, Basel, ICT) to x right, y down, z away."""
_ARRAY: Final = np.zeros(0).__reduce__()[0]
_SCALAR: Final = np.float64(0).__reduce__()[0]
_BUFFER: Final = np.zeros(1).__reduce_ex__(5)[0]


def landmark_sets_of_68(sixty_eight: LandmarkSet) -> MappingProxyType[str, LandmarkSet]:
    """Return the landmark sets of a model's own 68 points: "ibug_68", and "mediapipe" with the 51 fixed places."""
    numbered = dataclasses.replace(sixty_eight, mediapipe=np.array(IBUG_68, np.int32))
    return MappingProxyType({"ibug_68": numbered, "mediapipe": numbered.select(IBUG_INNER_51)})


def mouth_area_of(mediapipe: LandmarkSet) -> LandmarkSet | None:
    """Return the 59 points of MOUTH_AREA in their order, from a "mediapipe" set; None where the set lacks a point."""
    row_of = {int(number): row for row, number in enumerate(mediapipe.mediapipe)}
    return mediapipe.select([row_of[number] for number in MOUTH_AREA]) if all(n in row_of for n in MOUTH_AREA) else None


def align_to_head_space(model: MorphableModel) -> MorphableModel:
    """Return the same model in head space: moved by the similarity of its "mediapipe" landmarks to the mean head, unit crop pixel.

    The coefficients keep their meaning. Tracked head poses (HeadPose) fit the shapes of the returned model.

    Raises:
        InvalidRequestError: fewer than four landmarks are known in MediaPipe's mesh.
    """
    landmarks = model.landmark_set("mediapipe")
    in_template = (landmarks.mediapipe >= 0) & (landmarks.mediapipe < len(head_template()))
    if in_template.sum() < 4:
        raise InvalidRequestError(
            f"only {in_template.sum()} landmarks of {model.name!r} are known; 4 are needed", field="landmarks"
        )
    chosen = landmarks.select(in_template)
    alignment = similarity(chosen.of(model.mean_shape), head_template()[chosen.mediapipe])
    turn = float(alignment.scale) * alignment.rotation

    def turned(basis: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return np.asarray(np.einsum("ij,vjk->vik", turn, basis, optimize=True), np.float32)

    return dataclasses.replace(
        model,
        unit="crop pixel",
        mean_shape=alignment.apply(model.mean_shape).astype(np.float32),
        identity_basis=turned(model.identity_basis),
        expression_basis=turned(model.expression_basis),
    )


@contextmanager
def reading(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Turn every failure of a block that reads a foreign file into an InvalidRequestError.

    The error names the file, the expected kind and the remedy.

    Raises:
        InvalidRequestError: the file is missing, or the block raised. An InvalidRequestError with the field FIELD names the
            file already, and passes unchanged.
    """
    if not path.exists():
        raise InvalidRequestError(f"there is no {what} at {path}; {remedy}", field=FIELD)
    try:
        yield
    except InvalidRequestError as error:
        if error.field == FIELD:
            raise
        raise InvalidRequestError(f"{path} is no {what}: {error.message}; {remedy}", field=FIELD) from error
    except KeyError as error:
        raise InvalidRequestError(f"{path} is no {what}: it has no {error.args[0]!r}; {remedy}", field=FIELD) from error
    except Exception as error:
        raise InvalidRequestError(
            f"{path} is no {what}, or is damaged ({type(error).__name__}: {error}); {remedy}", field=FIELD
        ) from error


def vertices_of(values: Any) -> Float32:
    """Return a file's positions or colours (3 V numbers, the coordinate changes fastest) as float32 [V, 3]."""
    return np.asarray(values, np.float32).reshape(-1, 3)


def basis_of(values: Any, deviations: Any = None) -> Float32:
    """Return a file's basis [3 V, K] or [V, 3, K] as float32 [V, 3, K].

    If `deviations` [K] is given, each column is multiplied by the column's standard deviation.
    """
    array = np.asarray(values, np.float32)
    basis = array.reshape(-1, 3, array.shape[-1])
    return basis if deviations is None else np.asarray(basis * np.asarray(deviations, np.float32).reshape(-1), np.float32)


def turned(values: Float32) -> Float32:
    """Return positions [V, 3] or a basis [V, 3, K], given with y up, in the axes of head space."""
    return np.asarray(values * (Y_UP if values.ndim == 2 else Y_UP[:, None]), np.float32)


def cropped(triangles: npt.NDArray[np.integer[Any]], kept: npt.NDArray[np.integer[Any]], num_vertices: int) -> Int32:
    """Return the triangles whose corners are all kept, int32 [F', 3]. The corners are renumbered to positions in `kept`."""
    position = np.full(num_vertices, -1, np.int32)
    position[kept] = np.arange(len(kept), dtype=np.int32)
    renumbered = position[triangles]
    return np.ascontiguousarray(renumbered[(renumbered >= 0).all(1)])


def read_sixty_eight(path: Path, num_vertices: int) -> LandmarkSet:
    """Return the vertex numbers (from 0) of the 68 points of iBUG 300-W, from a JSON list or a text file with one number per line.

    Raises:
        InvalidRequestError: the file does not hold 68 numbers of the model's vertices.
    """
    with reading(path, "list of 68 vertex numbers", "give a JSON list or a text file with one number a line, counted from 0"):
        text = path.read_text(encoding="utf-8")
        numbers = json.loads(text) if text.lstrip().startswith("[") else text.split()
        indices = np.array([int(number) for number in numbers], np.int32)
        if len(indices) != 68 or indices.min() < 0 or indices.max() >= num_vertices:
            raise InvalidRequestError(f"{path} names {len(indices)} vertices, not 68 of the model's {num_vertices}", field=FIELD)
        return LandmarkSet.of_vertices(indices)


def require(values: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    """Raise KeyError for the first missing key."""
    for key in keys:
        values[key]


@dataclass(frozen=True, slots=True)
class ObjMesh:
    """Mesh from an OBJ file.

    Attributes:
        vertices: float32 [V, 3].
        uv: float32 [U, 2], v up; empty where the file has none.
        triangles: int32 [F, 3].
        uv_triangles: int32 [F, 3]; empty where the faces name no texture coordinates.
    """

    vertices: Float32
    uv: Float32
    triangles: Int32
    uv_triangles: Int32


def read_obj(path: Path) -> ObjMesh:
    """Return the mesh in an OBJ file. Groups, normals and materials are ignored.

    Raises:
        ValueError: a line cannot be read, or the file has no vertices.
    """
    vertices: list[list[float]] = []
    uv: list[list[float]] = []
    triangles: list[tuple[int, ...]] = []
    uv_triangles: list[tuple[int, ...]] = []
    with path.open(encoding="utf-8", errors="strict") as lines:
        for line in lines:
            kind, _, rest = line.partition(" ")
            if kind == "v":
                vertices.append([float(value) for value in rest.split()[:3]])
            elif kind == "vt":
                uv.append([float(value) for value in rest.split()[:2]])
            elif kind == "f":
                corners = [corner.split("/") for corner in rest.split()]
                indices = [_index(corner[0], len(vertices)) for corner in corners]
                triangles += [(indices[0], indices[i], indices[i + 1]) for i in range(1, len(indices) - 1)]
                if all(len(corner) > 1 and corner[1] for corner in corners):
                    texture = [_index(corner[1], len(uv)) for corner in corners]
                    uv_triangles += [(texture[0], texture[i], texture[i + 1]) for i in range(1, len(texture) - 1)]
    if not vertices:
        raise ValueError("it has no vertices")
    complete = len(uv_triangles) == len(triangles) and uv
    return ObjMesh(
        np.array(vertices, np.float32),
        np.array(uv, np.float32).reshape(-1, 2) if complete else np.zeros((0, 2), np.float32),
        np.array(triangles, np.int32).reshape(-1, 3),
        np.array(uv_triangles, np.int32).reshape(-1, 3) if complete else np.zeros((0, 3), np.int32),
    )


def read_obj_vertices(path: Path) -> Float32:
    """Return only the positions, float32 [V, 3]. This is much faster for hundreds of shapes that share one topology."""
    with path.open(encoding="utf-8", errors="strict") as lines:
        rows = [line[2:] for line in lines if line.startswith("v ")]
    if not rows:
        raise ValueError("it has no vertices")
    return np.array([[float(value) for value in row.split()[:3]] for row in rows], np.float32)


def _index(number: str, count: int) -> int:
    """Return an index in the file (from 1, or negative from the end) as an index from 0."""
    value = int(number)
    return value - 1 if value > 0 else count + value


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
