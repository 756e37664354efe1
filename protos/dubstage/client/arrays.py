"""numpy arrays as the contracts' Tensor and Image messages."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2 as pb

_DTYPES: Final[dict[int, np.dtype[Any]]] = {
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
    pb.DATA_TYPE_UINT16: np.dtype("<u2"),
    pb.DATA_TYPE_INT32: np.dtype("<i4"),
    pb.DATA_TYPE_INT64: np.dtype("<i8"),
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_FLOAT64: np.dtype("<f8"),
    pb.DATA_TYPE_BOOL: np.dtype("?"),
}
_TYPES: Final = {dtype: number for number, dtype in _DTYPES.items()}


def to_tensor(array: npt.NDArray[Any]) -> pb.Tensor:
    """A Tensor of an array.

    Raises:
        TypeError: the contracts have no such data type.
    """
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if little.dtype not in _TYPES:
        raise TypeError(f"the contracts have no data type for {array.dtype}")
    return pb.Tensor(data_type=_TYPES[little.dtype], shape=array.shape, data=np.ascontiguousarray(little).tobytes())  # type: ignore[arg-type]


def from_tensor(message: pb.Tensor) -> npt.NDArray[Any]:
    """The array of a Tensor, read-only.

    Raises:
        ValueError: no data type, or a shape that does not fit the data.
    """
    if message.data_type not in _DTYPES:
        raise ValueError(f"a tensor of data type {message.data_type}")
    return np.frombuffer(message.data, _DTYPES[message.data_type]).reshape(tuple(message.shape))


def to_image(pixels: npt.NDArray[np.uint8]) -> pb.Image:
    """An Image of uint8 RGB [H, W, 3] or grey [H, W].

    Raises:
        TypeError: another dtype or shape.
    """
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise TypeError(f"a picture is uint8 [H, W, 3] or [H, W], not {pixels.dtype} {list(pixels.shape)}")
    encoding = pb.IMAGE_ENCODING_GRAY8 if pixels.ndim == 2 else pb.IMAGE_ENCODING_RGB8
    data = np.ascontiguousarray(pixels).tobytes()
    return pb.Image(width=pixels.shape[1], height=pixels.shape[0], encoding=encoding, data=data)


def from_image(message: pb.Image) -> npt.NDArray[np.uint8]:
    """The pixels of an 8-bit Image, uint8 [H, W, 3] or [H, W], read-only.

    Raises:
        ValueError: another encoding, or a size that does not fit the data.
    """
    shapes: dict[int, tuple[int, ...]] = {
        pb.IMAGE_ENCODING_RGB8: (message.height, message.width, 3),
        pb.IMAGE_ENCODING_GRAY8: (message.height, message.width),
    }
    if message.encoding not in shapes:
        raise ValueError(f"a picture of encoding {message.encoding}")
    return np.frombuffer(message.data, np.uint8).reshape(shapes[message.encoding])
