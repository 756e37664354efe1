"""What the loaders share: errors that name the file and the remedy, axes, triangles and landmark numbers of foreign files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.common.errors import InvalidRequest
from services.common.geometry.array_module import Float32, Int32
from services.common.geometry.landmark_set import LandmarkSet

FIELD: Final = "morphable_model"
"""Field of every error of a loader: the option with which a user names a model file."""
Y_UP: Final = np.array([1.0, -1.0, -1.0])
"""Half a turn about x: from x right, y up, z towards the viewer (FLAME, Basel, ICT) to x right, y down, z away."""


@contextmanager
def reading(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Turn whatever goes wrong while a foreign file is read into one InvalidRequest that names it, what it should be and the
    remedy.

    Raises:
        InvalidRequest: the file is not there, or the block raised; errors of other loaders pass unchanged.
    """
    if not path.exists():
        raise InvalidRequest(f"there is no {what} at {path}; {remedy}", field=FIELD)
    try:
        yield
    except InvalidRequest as error:
        if str(path) in error.message or error.field == FIELD:
            raise
        raise InvalidRequest(f"{path} is no {what}: {error.message}; {remedy}", field=FIELD) from error
    except KeyError as error:
        raise InvalidRequest(f"{path} is no {what}: it has no {error.args[0]!r}; {remedy}", field=FIELD) from error
    except Exception as error:
        raise InvalidRequest(
            f"{path} is no {what}, or is damaged ({type(error).__name__}: {error}); {remedy}", field=FIELD
        ) from error


def vertices_of(values: Any) -> Float32:
    """Positions or colours of a file, any shape of 3 V numbers with the coordinate fastest, as float32 [V, 3]."""
    return np.asarray(values, np.float32).reshape(-1, 3)


def basis_of(values: Any, deviations: Any = None) -> Float32:
    """A file's basis [3 V, K] or [V, 3, K] as float32 [V, 3, K], each column times its standard deviation where given."""
    array = np.asarray(values, np.float32)
    basis = array.reshape(-1, 3, array.shape[-1])
    return basis if deviations is None else np.asarray(basis * np.asarray(deviations, np.float32).reshape(-1), np.float32)


def turned(values: Float32) -> Float32:
    """Positions [V, 3] or a basis [V, 3, K] from y up to head space's axes."""
    return np.asarray(values * (Y_UP if values.ndim == 2 else Y_UP[:, None]), np.float32)


def cropped(triangles: npt.NDArray[np.integer[Any]], kept: npt.NDArray[np.integer[Any]], num_vertices: int) -> Int32:
    """The triangles whose corners are all kept, renumbered to places in `kept`, int32 [F', 3]."""
    place = np.full(num_vertices, -1, np.int32)
    place[kept] = np.arange(len(kept), dtype=np.int32)
    renumbered = place[triangles]
    return np.ascontiguousarray(renumbered[(renumbered >= 0).all(1)])


def read_sixty_eight(path: Path, num_vertices: int) -> LandmarkSet:
    """Vertex numbers (from 0) of the 68 points of iBUG 300-W: a JSON list, or a text file with one number a line.

    Raises:
        InvalidRequest: not 68 numbers of the model's vertices.
    """
    with reading(path, "list of 68 vertex numbers", "give a JSON list or a text file with one number a line, counted from 0"):
        text = path.read_text(encoding="utf-8")
        numbers = json.loads(text) if text.lstrip().startswith("[") else text.split()
        indices = np.array([int(number) for number in numbers], np.int32)
        if len(indices) != 68 or indices.min() < 0 or indices.max() >= num_vertices:
            raise InvalidRequest(f"{path} names {len(indices)} vertices, not 68 of the model's {num_vertices}", field=FIELD)
        return LandmarkSet.of_vertices(indices)


def require(values: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    """Look up every key, for the KeyError that names the first that is missing."""
    for key in keys:
        values[key]
