"""States of streams: named arrays that a stage answers, and that another call of the same RPC goes on from.

A state comes back from a caller, so every array is checked against its column before a stage uses the array.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from services.common.array_types import Array
from services.common.errors import InvalidRequestError
from services.common.wire.convert import from_tensor

MAX_STATE_BYTES: Final = 8 << 20
"""Largest state, bytes."""


class StateColumn(NamedTuple):
    """Demands on one array of a state.

    Attributes:
        dtype: data type.
        shape: lengths of the axes. Axes with the same letter have the same length in all arrays of a state.
        low, high: range of the numbers. NaN lies in no range.
        most: greatest length of an axis with a letter.
    """

    dtype: npt.DTypeLike
    shape: tuple[int | str, ...]
    low: float = 0.0
    high: float = 0.0
    most: int = 1 << 20


def state_to_proto(arrays: Mapping[str, Array], layout: int) -> common_pb2.StreamState | None:
    """Return a state as a message; None: it is larger than MAX_STATE_BYTES."""
    tensors = [common_pb2.NamedTensor(name=name, tensor=to_tensor(array)) for name, array in arrays.items()]
    message = common_pb2.StreamState(layout=layout, tensors=tensors)
    return message if message.ByteSize() <= MAX_STATE_BYTES else None


def state_from_proto(
    message: common_pb2.StreamState, layout: int, columns: Mapping[str, StateColumn], field: str
) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a state, read-only.

    Args:
        layout: number of the layout that the stage writes.
        columns: what each array must be.
        field: name of the state in the request, for the error text.

    Raises:
        InvalidRequestError: the layout is another one, the state is too large, an array is missing, unknown or there twice, or an
            array does not fit its column.
    """
    if message.layout != layout:
        raise InvalidRequestError(
            f"{field}.layout: {message.layout}, and this stage takes {layout}: states of other versions cannot be used, so begin a "
            "new stream",
            field=f"{field}.layout",
        )
    if (size := message.ByteSize()) > MAX_STATE_BYTES:
        raise InvalidRequestError(f"{field}: a state has at most {MAX_STATE_BYTES} bytes, got {size}", field=field)
    given = [each.name for each in message.tensors]
    if sorted(given) != sorted(columns):
        wrong = sorted({*columns} ^ {*given}) or sorted(name for name in columns if given.count(name) > 1)
        raise InvalidRequestError(
            f"{field}.tensors: these are not the arrays of a stream with this config, by {', '.join(map(repr, wrong[:4]))}: give "
            "the state of a call with the same config",
            field=f"{field}.tensors",
        )
    lengths: dict[str, int] = {}
    return {each.name: _array(each, columns[each.name], lengths, f"{field}.{each.name}") for each in message.tensors}


def _array(message: common_pb2.NamedTensor, column: StateColumn, lengths: dict[str, int], field: str) -> npt.NDArray[Any]:
    wanted = [lengths.get(axis) if isinstance(axis, str) else axis for axis in column.shape]
    array = from_tensor(message.tensor, field, dtype=column.dtype, shape=wanted)
    for axis, length in zip(column.shape, array.shape, strict=True):
        if isinstance(axis, str):
            lengths[axis] = length
            if length > column.most:
                raise InvalidRequestError(f"{field}: {length} rows, at most {column.most} are possible", field=field)
    if array.size and array.dtype != np.bool_ and not (array.min() >= column.low and array.max() <= column.high):
        raise InvalidRequestError(
            f"{field}: numbers from {column.low:g} to {column.high:g} are expected, got {array.min():g} to {array.max():g}",
            field=field,
        )
    return array
