"""Luma pictures of the render box at the footage's own resolution, kept as JPEG files, one for every frame of a mouth bank.

A render box has 160 pixels a side, and a face in the box is 185 px wide. The footage of a close shot shows more: its fine detail is
kept here, at 2 to 4 times the size of the box. Only the luma is kept. The colour of most footage has half of the resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Array, Int64, UInt8
from services.common.errors import InvalidRequestError
from services.common.face.crops import BOX_SIZE
from services.common.store.tensor_bytes import NamedArrays

MAX_SCALE: Final = 4
"""Largest number of native pixels per box pixel, in each direction: a face 740 px wide."""
JPEG_QUALITY: Final = 95
_COMFORT: Final = 0.2
"""Part of a footage pixel per box pixel that is given up before the next larger scale is chosen."""
_MAX_FILE_BYTES: Final = (MAX_SCALE * BOX_SIZE) ** 2


@dataclass(frozen=True, slots=True)
class NativeFile:
    """JPEG file of the luma of one render box.

    Attributes:
        scale: native pixels per box pixel, 2 to 4.
        data: the file.
    """

    scale: int
    data: bytes


@dataclass(frozen=True, eq=False)
class NativePictures:
    """JPEG files of F frames, one after the other.

    Attributes:
        scale: native pixels per box pixel, 2 to 4.
        files: uint8 [N], the bytes of all files.
        ends: int64 [F], end of every file in `files`, increasing.
    """

    scale: int
    files: UInt8
    ends: Int64

    def luma(self, row: int) -> UInt8:
        """Return the luma of a frame, uint8 [160 scale, 160 scale].

        Raises:
            InvalidRequestError: the file of the frame is damaged.
        """
        begin = int(self.ends[row - 1]) if row else 0
        picture = cv2.imdecode(self.files[begin : int(self.ends[row])], cv2.IMREAD_GRAYSCALE)
        side = self.scale * BOX_SIZE
        if picture is None or picture.shape != (side, side):
            raise InvalidRequestError(f"the mouth bank's native picture {row} is damaged: build the bank anew", field="config.bank")
        return np.asarray(picture, np.uint8)


def native_scale(footage_scale: float) -> int:
    """Return the native pixels per box pixel, 1 to 4, that hold the detail of a face.

    Args:
        footage_scale: pixels of the footage per pixel of the render box (HeadPose.scale).
    """
    return int(np.clip(np.ceil(footage_scale - _COMFORT), 1, MAX_SCALE))


def native_affine(box_affine: npt.NDArray[np.float64], scale: int) -> npt.NDArray[np.float64]:
    """Return the map to native pixels, float64 [2, 3], of a map to box pixels. Pixel centres are at integers.

    Box pixel x is centred on native pixel scale * (x + 0.5) - 0.5.

    Args:
        box_affine: float64 [2, 3].
        scale: native pixels per box pixel.
    """
    affine = box_affine * scale
    affine[:, 2] += 0.5 * (scale - 1)
    return affine


def encoded(luma: UInt8) -> NativeFile:
    """Return the file of a luma picture, uint8 [160 scale, 160 scale]."""
    _, data = cv2.imencode(".jpg", luma, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return NativeFile(len(luma) // BOX_SIZE, bytes(data))


def packed(files: Sequence[NativeFile]) -> NativePictures:
    """Return the pictures of at least one file. All files have the same scale."""
    ends = np.cumsum([len(file.data) for file in files], dtype=np.int64)
    return NativePictures(files[0].scale, np.frombuffer(b"".join(file.data for file in files), np.uint8), ends)


def native_arrays(pictures: NativePictures | None) -> dict[str, Array]:
    """Return the named arrays of the pictures for the artefact of a bank; none without pictures."""
    if pictures is None:
        return {}
    return {
        "native_files": pictures.files,
        "native_ends": pictures.ends,
        "native_scale": np.array([pictures.scale], np.int64),
    }


def native_from_arrays(named: NamedArrays, num_frames: int) -> NativePictures | None:
    """Return the pictures of a bank's artefact; None: the bank has none.

    Args:
        named: arrays of the artefact.
        num_frames: frames of the bank.

    Raises:
        InvalidRequestError: the arrays are damaged.
    """
    names = ("native_files", "native_ends", "native_scale")
    files, ends, scale = (named.arrays.get(name) for name in names)
    if files is None and ends is None and scale is None:
        return None
    whole = (
        files is not None
        and ends is not None
        and scale is not None
        and files.dtype == np.uint8
        and files.ndim == 1
        and ends.dtype == np.int64
        and ends.shape == (num_frames,)
        and scale.dtype == np.int64
        and scale.shape == (1,)
        and 2 <= int(scale[0]) <= MAX_SCALE
    )
    if whole:
        assert files is not None
        assert ends is not None
        assert scale is not None
        lengths = np.diff(ends, prepend=0)
        if lengths.min() > 0 and lengths.max() <= _MAX_FILE_BYTES and int(ends[-1]) == len(files):
            return NativePictures(int(scale[0]), files, ends)
    raise InvalidRequestError(f"the mouth bank's arrays {', '.join(names)} are damaged: build the bank anew", field="bank")
