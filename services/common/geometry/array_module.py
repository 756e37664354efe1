"""Numpy or torch: functions of this package use the module that their argument comes from.

Serving runs only on numpy. Fitting and training need torch's gradients of the same formulas. Only names that both modules share
are used (`stack(list, -1)`, `x.sum(-1)`, `matrix.mT`), so no formula is written twice.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = Any
"""A floating numpy array or torch tensor. A result of type Array is of the same kind as the arguments.
(A type variable over both kinds would not help the type checker, because numpy's operators return Any for such a variable.)"""
_SHORTEST: Final = 1e-12


def is_tensor(value: object) -> bool:
    """Return whether `value` is a torch tensor. Only the value's class is looked at, so torch need not be installed."""
    return any(base.__module__ == "torch" and base.__name__ == "Tensor" for base in type(value).__mro__)


def array_module(value: object) -> Any:
    """Return the module, `torch` or `numpy`, whose functions take `value`."""
    if is_tensor(value):
        import torch

        return torch
    return np


def constant(values: npt.ArrayLike, like: Array) -> Array:
    """Return `values` as an array of the kind, floating type and device of `like`. Memory is shared where possible."""
    array = np.asarray(values)
    if is_tensor(like):
        import torch

        source = array if array.flags.writeable else array.copy()
        return torch.as_tensor(source, dtype=like.dtype, device=like.device)
    return np.asarray(array, dtype=np.result_type(like.dtype, np.float32))


def gather(points: Array, indices: npt.NDArray[np.integer[Any]]) -> Array:
    """Return `points[..., indices, :]`: rows of the second last axis, for an index array of any shape."""
    return points[..., np.asarray(indices, dtype=np.int64), :]


def dot(a: Array, b: Array) -> Array:
    """Return the inner product over the last axis: [..., D] and [..., D] to [...]."""
    return (a * b).sum(-1)


def normalised(vectors: Array) -> Array:
    """Return vectors [..., D] of length 1. Vectors shorter than 1e-12 stay near zero."""
    xp = array_module(vectors)
    squared = dot(vectors, vectors)
    tiny = squared < _SHORTEST**2
    length = xp.sqrt(xp.where(tiny, xp.ones_like(squared), squared))
    return vectors / length[..., None]
