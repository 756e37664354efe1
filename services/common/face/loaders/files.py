"""Shared steps of the loaders: errors that name file and remedy; axes, triangles and landmark numbers of foreign files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Int32
from services.common.errors import InvalidRequest
from services.common.geometry.landmark_set import LandmarkSet

FIELD: Final = "morphable_model"
"""Field that every error of a loader names: the option for a model file."""
Y_UP: Final = np.array([1.0, -1.0, -1.0])
"""Half a turn about the x axis: from x right, y up, z towards the viewer (FLAME, Basel, ICT) to x right, y down, z away."""


@contextmanager
def reading(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Turn every failure of a block that reads a foreign file into an InvalidRequest.

    The error names the file, the expected kind and the remedy.

    Raises:
        InvalidRequest: the file is missing, or the block raised. An InvalidRequest that already names the file or has the field
            FIELD passes unchanged.
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
    place = np.full(num_vertices, -1, np.int32)
    place[kept] = np.arange(len(kept), dtype=np.int32)
    renumbered = place[triangles]
    return np.ascontiguousarray(renumbered[(renumbered >= 0).all(1)])


def read_sixty_eight(path: Path, num_vertices: int) -> LandmarkSet:
    """Return the vertex numbers (from 0) of the 68 points of iBUG 300-W, from a JSON list or a text file with one number per line.

    Raises:
        InvalidRequest: the file does not hold 68 numbers of the model's vertices.
    """
    with reading(path, "list of 68 vertex numbers", "give a JSON list or a text file with one number a line, counted from 0"):
        text = path.read_text(encoding="utf-8")
        numbers = json.loads(text) if text.lstrip().startswith("[") else text.split()
        indices = np.array([int(number) for number in numbers], np.int32)
        if len(indices) != 68 or indices.min() < 0 or indices.max() >= num_vertices:
            raise InvalidRequest(f"{path} names {len(indices)} vertices, not 68 of the model's {num_vertices}", field=FIELD)
        return LandmarkSet.of_vertices(indices)


def require(values: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    """Raise KeyError for the first missing key."""
    for key in keys:
        values[key]
