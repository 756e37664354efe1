"""Parts of formulas over arrays with any leading axes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Array

_SHORTEST: Final = 1e-12


def constant(values: npt.ArrayLike, like: Array) -> Array:
    """Return `values` in the floating type of `like`, at least float32. Memory is shared where possible."""
    return np.asarray(values, dtype=np.result_type(like.dtype, np.float32))


def gather(points: Array, indices: npt.NDArray[np.integer[Any]]) -> Array:
    """Return `points[..., indices, :]`: rows of the second last axis, for an index array of any shape."""
    return points[..., np.asarray(indices, dtype=np.int64), :]


def dot(a: Array, b: Array) -> Array:
    """Return the inner product over the last axis: [..., D] and [..., D] to [...]."""
    return np.asarray((a * b).sum(-1))


def normalised(vectors: Array) -> Array:
    """Return vectors [..., D] of length 1. Vectors shorter than 1e-12 stay near zero."""
    squared = dot(vectors, vectors)
    tiny = squared < _SHORTEST**2
    length = np.sqrt(np.where(tiny, np.ones_like(squared), squared))
    return vectors / length[..., None]
