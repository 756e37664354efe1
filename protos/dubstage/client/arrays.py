"""Arrays and plain values as the messages that several contracts share, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from dubstage.common.v1 import common_pb2 as pb

DTYPES: Final[dict[int, np.dtype[Any]]] = {
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
    pb.DATA_TYPE_UINT16: np.dtype("<u2"),
    pb.DATA_TYPE_INT32: np.dtype("<i4"),
    pb.DATA_TYPE_INT64: np.dtype("<i8"),
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_FLOAT64: np.dtype("<f8"),
    pb.DATA_TYPE_BOOL: np.dtype("?"),
}
"""Data types of the contracts, by DataType."""
_TYPES: Final = {dtype: number for number, dtype in DTYPES.items()}

Float32 = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Tensor = npt.ArrayLike | pb.Tensor
"""An array, or a Tensor message that is sent as it is."""
Picture = npt.NDArray[np.uint8] | pb.Image
"""Pixels, uint8 RGB [H, W, 3] or grey [H, W], or an Image message that is sent as it is."""
Times = Fraction | int | pb.Timeline
"""Frames per second of a constant rate, or a Timeline message such as `explicit_timeline` makes."""


class HasArtefact(Protocol):
    """A result that refers to an artefact of the stages' store."""

    @property
    def artefact(self) -> pb.ArtefactRef | None:
        """The reference."""
        ...


Artefact = pb.ArtefactRef | HasArtefact
"""A reference to an artefact, or a result that has one."""


def to_tensor(array: npt.NDArray[Any]) -> pb.Tensor:
    """Return the Tensor message of an array.

    Raises:
        TypeError: the contracts have no such data type.
    """
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if little.dtype not in _TYPES:
        raise TypeError(f"the contracts have no data type for {array.dtype}")
    return pb.Tensor(data_type=_TYPES[little.dtype], shape=array.shape, data=np.ascontiguousarray(little).tobytes())  # type: ignore[arg-type]


def as_tensor(value: Tensor, dtype: npt.DTypeLike) -> pb.Tensor:
    """Return a Tensor message: of an array, converted to `dtype`, or the message that was given.

    Raises:
        TypeError: `dtype` is bool and the array holds floats: every number but 0 would be true.
    """
    if isinstance(value, pb.Tensor):
        return value
    array = np.asarray(value)
    # An empty list is an array of floats.
    if np.dtype(dtype) == np.bool_ and array.dtype.kind not in "biu" and array.size:
        raise TypeError(f"flags are bool, not {array.dtype}: compare the numbers with a threshold, such as blink > 0.5")
    return to_tensor(np.asarray(array, dtype))


def from_tensor(message: pb.Tensor) -> npt.NDArray[Any]:
    """Return the array of a Tensor message, read-only.

    Raises:
        ValueError: the message has no data type, or a shape that does not fit its data.
    """
    if message.data_type not in DTYPES:
        raise ValueError(f"a tensor of data type {message.data_type}")
    return np.frombuffer(message.data, DTYPES[message.data_type]).reshape(tuple(message.shape))


def to_image(pixels: Pixels) -> pb.Image:
    """Return the Image message of a picture: uint8 RGB [H, W, 3] or grey [H, W].

    Raises:
        TypeError: the array has another dtype or shape.
    """
    image = pb.Image()
    put_image(pixels, image)
    return image


def put_image(value: Picture, into: pb.Image) -> None:
    """Fill an Image message in place: a message that is put into another message is copied, and pictures are megabytes.

    Raises:
        TypeError: the array has another dtype or shape than a picture.
    """
    if isinstance(value, pb.Image):
        into.CopyFrom(value)
        return
    if value.dtype != np.uint8 or not (value.ndim == 2 or (value.ndim == 3 and value.shape[2] == 3)):
        raise TypeError(f"a picture is uint8 [H, W, 3] or [H, W], not {value.dtype} {list(value.shape)}")
    into.height, into.width = value.shape[:2]
    into.encoding = pb.IMAGE_ENCODING_GRAY8 if value.ndim == 2 else pb.IMAGE_ENCODING_RGB8
    into.data = value.tobytes()


def as_image(value: Picture) -> pb.Image:
    """Return an Image message: of pixels, or the message that was given."""
    return value if isinstance(value, pb.Image) else to_image(value)


def from_image(message: pb.Image) -> Pixels:
    """Return the pixels of an 8-bit Image message: uint8 [H, W, 3] or [H, W], read-only.

    Raises:
        ValueError: the message has another encoding, or a size that does not fit its data.
    """
    shapes: dict[int, tuple[int, ...]] = {
        pb.IMAGE_ENCODING_RGB8: (message.height, message.width, 3),
        pb.IMAGE_ENCODING_GRAY8: (message.height, message.width),
    }
    if message.encoding not in shapes:
        raise ValueError(f"a picture of encoding {message.encoding}")
    return np.frombuffer(message.data, np.uint8).reshape(shapes[message.encoding])


def as_pcm(piece: npt.NDArray[Any], channels: int) -> bytes:
    """Return the bytes of a piece of sound, [n] or [n, channels]: float32, little-endian, the channels of a sample side by side.

    Raises:
        TypeError: the piece is not of floats, or has another number of channels.
    """
    if piece.dtype.kind != "f":
        raise TypeError(f"a sound is float32 in [-1, 1], not {piece.dtype}: divide samples of int16 by 32768")
    if piece.ndim not in (1, 2) or (piece.shape[1] if piece.ndim == 2 else 1) != channels:
        raise TypeError(
            f"a sound of {channels} channels comes in pieces [n, {channels}], such as audio.pieces(samples) cuts, "
            f"not {list(piece.shape)}"
        )
    return np.ascontiguousarray(piece, "<f4").tobytes()


def rational(value: Fraction | int) -> pb.Rational:
    """Return the Rational message of a number."""
    return pb.Rational(num=value.numerator, den=value.denominator)


def as_timeline(value: Times) -> pb.Timeline:
    """Return a Timeline message: of a constant number of frames per second, or the message that was given."""
    return value if isinstance(value, pb.Timeline) else pb.Timeline(frame_rate=rational(value))


def explicit_timeline(pts: Iterable[int], time_base: Fraction) -> pb.Timeline:
    """Return the Timeline message of frames at varying times.

    Args:
        pts: presentation time of each frame in ticks, strictly increasing.
        time_base: seconds per tick.
    """
    return pb.Timeline(explicit=pb.FrameTimes(time_base=rational(time_base), pts=pts))


def head_pose(scale: float, rotation: npt.ArrayLike, translation: Sequence[float] | npt.NDArray[Any]) -> pb.HeadPose:
    """Return the HeadPose message of frame = scale * rotation @ head + translation (docs/coordinates.md).

    Args:
        scale: frame pixels per head-space pixel.
        rotation: float [3, 3], a proper rotation.
        translation: float [3], frame pixels.
    """
    return pb.HeadPose(scale=scale, rotation=np.asarray(rotation, np.float64).ravel(), translation=translation)


def as_artefact(value: Artefact | None) -> pb.ArtefactRef | None:
    """Return the reference to an artefact; None for None."""
    return value if value is None or isinstance(value, pb.ArtefactRef) else value.artefact


def number_of(enum: Any, prefix: str, name: str | int) -> Any:
    """Return the number of an enum's value, which is given by its number or by its name, with or without the prefix, in any case.

    Raises:
        ValueError: the enum has no such name; the message lists the names.
    """
    if isinstance(name, int):
        return name
    full_name = prefix + name.upper().replace("-", "_").removeprefix(prefix)
    if full_name not in enum.keys():  # noqa: SIM118 - an enum wrapper is no container
        names = ", ".join(key.removeprefix(prefix).lower() for key in enum.keys()[1:])
        raise ValueError(f"no {name!r}; there are: {names}")
    return enum.Value(full_name)


def reason_name(reason: int) -> str:
    """Return the name of a FrameReason without its prefix, such as DUBBED or NO_FACE."""
    return pb.FrameReason.Name(reason).removeprefix("FRAME_REASON_")  # type: ignore[arg-type]
