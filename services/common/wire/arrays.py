"""Tensor and Image messages to and from numpy, with validation of shape, type and length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2 as pb
from services.common.errors import InvalidRequest

_DTYPES: Final[dict[pb.DataType.ValueType, np.dtype[Any]]] = {
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
    pb.DATA_TYPE_UINT16: np.dtype("<u2"),
    pb.DATA_TYPE_INT32: np.dtype("<i4"),
    pb.DATA_TYPE_INT64: np.dtype("<i8"),
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_FLOAT64: np.dtype("<f8"),
    pb.DATA_TYPE_BOOL: np.dtype("?"),
}
_MAX_LENGTH: Final = 1 << 31
_TYPES: Final = {dtype: number for number, dtype in _DTYPES.items()}


def to_tensor(array: npt.NDArray[Any]) -> pb.Tensor:
    """Return a Tensor message of an array of one of the contract's data types.

    Raises:
        TypeError: the contract has no such data type. Our own code is wrong.
    """
    if array.dtype not in _TYPES:
        raise TypeError(f"no contract data type for {array.dtype}")
    return pb.Tensor(data_type=_TYPES[array.dtype], shape=array.shape, data=np.ascontiguousarray(array).tobytes())


def from_tensor(
    message: pb.Tensor,
    field: str,
    *,
    dtype: npt.DTypeLike,
    shape: Sequence[int | None],
    finite: bool = True,
    limit: float | None = None,
) -> npt.NDArray[Any]:
    """Return the array of a Tensor message, read-only.

    Args:
        message: the tensor.
        field: name of the tensor in the request, for the error text.
        dtype: required data type.
        shape: required lengths; None where any length is allowed.
        finite: refuse NaN and infinity in floats.
        limit: largest magnitude of a number; None: any.

    Raises:
        InvalidRequest: the type, shape or byte count is another one, a number is not finite or beyond the limit, or a bool is
            neither 0 nor 1.
    """
    wanted = np.dtype(dtype)
    actual = _DTYPES.get(message.data_type)
    if actual != wanted:
        raise InvalidRequest(f"{field}: expected {wanted}, got {actual or 'no data type'}", field=field)
    got = tuple(message.shape)
    fits = len(got) == len(shape) and all(length >= 0 for length in got)
    if not fits or any(want is not None and want != have for want, have in zip(shape, got, strict=True)):
        expected = "[" + ", ".join("any" if length is None else str(length) for length in shape) + "]"
        raise InvalidRequest(f"{field}: expected shape {expected}, got {list(got)}", field=field)
    # In Python's integers: a product in 64 bits could overflow.
    size = math.prod(got) * wanted.itemsize
    data = message.data  # each access to a message's bytes copies the bytes
    if len(data) != size or (not size and max(got, default=0) > _MAX_LENGTH):
        raise InvalidRequest(f"{field}: shape {list(got)} needs {size} bytes, got {len(data)}", field=field)
    array: npt.NDArray[Any] = np.frombuffer(data, dtype=wanted).reshape(got)
    if finite and wanted.kind == "f" and not np.isfinite(array).all():
        first = np.argwhere(~np.isfinite(array))[0].tolist()
        raise InvalidRequest(f"{field}: value at {first} is not a finite number ({array[tuple(first)]})", field=field)
    if limit is not None and array.size and not (array.min() >= -limit and array.max() <= limit):
        first = np.argwhere(np.abs(array) > limit)[0].tolist()
        raise InvalidRequest(
            f"{field}: value at {first} is {array[tuple(first)]:g}; numbers from {-limit:g} to {limit:g} are expected", field=field
        )
    if wanted.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise InvalidRequest(f"{field}: a bool is a byte 0 or 1", field=field)
    return array


def to_rgb_image(pixels: npt.NDArray[np.uint8]) -> pb.Image:
    """Return an RGB8 Image of uint8 [H, W, 3]."""
    height, width, _ = pixels.shape
    return pb.Image(width=width, height=height, encoding=pb.IMAGE_ENCODING_RGB8, data=np.ascontiguousarray(pixels).tobytes())


def to_gray_image(pixels: npt.NDArray[np.uint8]) -> pb.Image:
    """Return a GRAY8 Image of uint8 [H, W]."""
    height, width = pixels.shape
    return pb.Image(width=width, height=height, encoding=pb.IMAGE_ENCODING_GRAY8, data=np.ascontiguousarray(pixels).tobytes())


def from_image(message: pb.Image, field: str, *, channels: int, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
    """Return the pixels of an 8-bit Image: uint8 [H, W, 3] for channels=3, [H, W] for channels=1; read-only.

    Raises:
        InvalidRequest: the encoding is another one, the size is not `size` (width, height), or the number of bytes is wrong.
    """
    encoding = pb.IMAGE_ENCODING_RGB8 if channels == 3 else pb.IMAGE_ENCODING_GRAY8
    if message.encoding != encoding:
        known = message.encoding in pb.ImageEncoding.values()
        got = pb.ImageEncoding.Name(message.encoding) if known else f"encoding {message.encoding}"
        raise InvalidRequest(f"{field}: expected {pb.ImageEncoding.Name(encoding)}, got {got}", field=field)
    width, height = message.width, message.height
    if size is not None and (width, height) != size:
        raise InvalidRequest(f"{field}: expected {size[0]} x {size[1]} pixels, got {width} x {height}", field=field)
    data = message.data  # each access to a message's bytes copies the bytes
    if not width or not height or len(data) != width * height * channels:
        needed = width * height * channels
        raise InvalidRequest(f"{field}: {width} x {height} needs {needed} bytes, got {len(data)}", field=field)
    pixels = np.frombuffer(data, dtype=np.uint8)
    return pixels.reshape((height, width, 3) if channels == 3 else (height, width))
