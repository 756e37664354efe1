"""Named arrays as safetensors bytes. The same arrays always give the same bytes.

The library's own writer keeps the metadata in a hash map, whose order changes from process to process. Content addresses need one
order. The format is a length, a JSON header and the arrays one after another; any safetensors reader opens these bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from services.common.errors import InvalidRequestError

_DTYPE_OF_NAME: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAME_OF_DTYPE = {dtype: name for name, dtype in _DTYPE_OF_NAME.items()}
_METADATA_KEY = "__metadata__"
_LENGTH_BYTES = 8
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class NamedArrays:
    """Arrays by name, read-only and backed by one buffer, with string metadata. Two objects are never equal."""

    arrays: Mapping[str, npt.NDArray[Any]]
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        try:
            return self.arrays[name]
        except KeyError:
            raise InvalidRequestError(f"the artefact has no array {name!r}, only {sorted(self.arrays)}", field="artefact") from None

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    @property
    def size_bytes(self) -> int:
        """Memory of the arrays, bytes."""
        return sum(array.nbytes for array in self.arrays.values())


def encode_arrays(arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return arrays (any shape; float16/32/64, int and uint 8-64, bool) as bytes, little-endian and row-major.

    Raises:
        TypeError: an array's dtype has no safetensors name, or metadata is not str -> str.
        ValueError: an array has the reserved name.
    """
    metadata = metadata or {}
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in metadata.items()):
        raise TypeError("metadata must be strings by strings")
    if _METADATA_KEY in arrays:
        raise ValueError(f"{_METADATA_KEY!r} is a reserved name")
    little: dict[str, npt.NDArray[Any]] = {}
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("<")
        if dtype not in _NAME_OF_DTYPE:
            raise TypeError(f"array {name!r}: dtype {array.dtype} cannot be stored")
        little[name] = np.asarray(array, dtype=dtype, order="C")
    # The widest items come first: every array is aligned to its item size without padding, which the format forbids.
    order = sorted(little, key=lambda name: (-little[name].itemsize, name))
    header: dict[str, Any] = {_METADATA_KEY: dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    for name in order:
        array = little[name]
        header[name] = {
            "dtype": _NAME_OF_DTYPE[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return b"".join([len(text).to_bytes(_LENGTH_BYTES, "little"), text, *(little[name].data for name in order)])


def decode_arrays(data: bytes) -> NamedArrays:
    """Return the arrays of safetensors bytes. The arrays are read-only views of `data`, not copies.

    Raises:
        InvalidRequestError: the bytes are not safetensors, or an array lies outside the bytes.
    """
    try:
        return _decode(data)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidRequestError(f"the artefact does not hold named arrays: {error}", field="artefact") from error


def _decode(data: bytes) -> NamedArrays:
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    if len(data) < _LENGTH_BYTES or start > len(data):
        raise ValueError("the header is cut off")
    header = json.loads(data[_LENGTH_BYTES:start])
    metadata = {str(key): str(value) for key, value in header.pop(_METADATA_KEY, {}).items()}
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, entry in header.items():
        dtype = _DTYPE_OF_NAME[entry["dtype"]]
        shape = _integers(entry["shape"])
        begin, end = _integers(entry["data_offsets"])
        count = math.prod(shape)
        if min(shape, default=0) < 0 or begin < 0 or end - begin != count * dtype.itemsize or start + end > len(data):
            raise ValueError(f"array {name!r} does not fit its bytes")
        arrays[name] = np.frombuffer(data, dtype=dtype, count=count, offset=start + begin).reshape(shape)
    return NamedArrays(MappingProxyType(arrays), MappingProxyType(metadata))


def _integers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError(f"{values!r} is not a list of integers")
    return tuple(values)
