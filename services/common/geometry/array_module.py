"""Numpy or torch: the functions of this package use the module that their argument belongs to.

Serving runs on numpy alone; fitting and training need torch's gradients of the same formulas. Only what both modules spell the
same is used (`stack(list, -1)`, `x.sum(-1)`, `matrix.mT`), so no formula is written twice.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = Any
"""A floating numpy array or torch tensor; a result called Array is of the same kind as the arguments. (A type variable over both
would say it to the checker too, but numpy's own operators answer it with Any.)"""
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]


def is_tensor(value: object) -> bool:
    """Whether `value` is a torch tensor; asks its class, so torch need not be installed."""
    return any(base.__module__ == "torch" and base.__name__ == "Tensor" for base in type(value).__mro__)


def array_module(value: object) -> Any:
    """The module, `torch` or `numpy`, whose functions take `value`."""
    if is_tensor(value):
        import torch

        return torch
    return np


def constant(values: npt.ArrayLike, like: Array) -> Array:
    """`values` as an array of the kind, floating type and device of `like`; not copied where memory can be shared."""
    array = np.asarray(values)
    if is_tensor(like):
        import torch

        source = array if array.flags.writeable else array.copy()
        return torch.as_tensor(source, dtype=like.dtype, device=like.device)
    return np.asarray(array, dtype=np.result_type(like.dtype, np.float32))


def gather(points: Array, indices: npt.NDArray[np.integer[Any]]) -> Array:
    """`points[..., indices, :]`: rows of the second last axis, for an index array of any shape."""
    return points[..., np.asarray(indices, dtype=np.int64), :]


def dot(a: Array, b: Array) -> Array:
    """Inner product over the last axis: [..., D] and [..., D] to [...]."""
    return (a * b).sum(-1)


def normalised(vectors: Array, floor: float = 1e-12) -> Array:
    """Vectors [..., D] of length 1; those shorter than `floor` stay near zero instead of dividing by it."""
    xp = array_module(vectors)
    squared = dot(vectors, vectors)
    tiny = squared < floor**2
    length = xp.sqrt(xp.where(tiny, xp.ones_like(squared), squared))
    return vectors / length[..., None]
