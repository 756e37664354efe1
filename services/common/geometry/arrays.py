"""Parts of formulas over arrays with any leading axes."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = Any
"""A floating numpy array of any type. (A type variable over the types would not help the type checker, because numpy's operators
return Any for such a variable.)"""
_SHORTEST: Final = 1e-12


def constant(values: npt.ArrayLike, like: Array) -> Array:
    """Return `values` in the floating type of `like`, at least float32. Memory is shared where possible."""
    return np.asarray(values, dtype=np.result_type(like.dtype, np.float32))


def gather(points: Array, indices: npt.NDArray[np.integer[Any]]) -> Array:
    """Return `points[..., indices, :]`: rows of the second last axis, for an index array of any shape."""
    return points[..., np.asarray(indices, dtype=np.int64), :]


def dot(a: Array, b: Array) -> Array:
    """Return the inner product over the last axis: [..., D] and [..., D] to [...]."""
    return (a * b).sum(-1)


def normalised(vectors: Array) -> Array:
    """Return vectors [..., D] of length 1. Vectors shorter than 1e-12 stay near zero."""
    squared = dot(vectors, vectors)
    tiny = squared < _SHORTEST**2
    length = np.sqrt(np.where(tiny, np.ones_like(squared), squared))
    return vectors / length[..., None]
