"""What a decoded frame carries beside its samples."""

from __future__ import annotations

import ctypes
import gc
from typing import Any, Final, cast

import av
import numpy as np
from av.dictionary import Dictionary
from av.sidedata.sidedata import Type

_ONE: Final = 1 << 16
_QUARTER_TURNS: Final[tuple[tuple[int, ...] | None, ...]] = (
    None,
    (0, -_ONE, 0, _ONE, 0, 0, 0, 0, 1 << 30),
    (-_ONE, 0, 0, 0, -_ONE, 0, 0, 0, 1 << 30),
    (0, _ONE, 0, -_ONE, 0, 0, 0, 0, 1 << 30),
)
"""Display matrices by quarter turns, counter-clockwise."""


def side_data(picture: av.VideoFrame, kind: Type) -> bytes | None:
    """The side data of this kind, or None.

    To be used on single frames only: PyAV ties a frame whose side data was read into a reference cycle, so that its
    memory stays until the garbage collector runs.
    """
    # By number: looking a kind up raises for frames that carry kinds unknown to the library's table.
    items = cast(Any, picture.side_data)
    _leave_metadata_to_the_frame(items)
    for number in range(len(items)):
        if items[number].type == kind:
            return bytes(items[number])
    return None


def _leave_metadata_to_the_frame(items: Any) -> None:
    """Keep PyAV 18 from freeing side data's metadata, such as a colour profile's name, which the frame frees too: a crash.

    The wrapper of each such metadata, some bytes, lives for as long as the process, and is never looked into again.
    """
    for number in range(len(items)):
        for found in gc.get_referents(items[number]):
            if isinstance(found, Dictionary) and len(found):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(found))


def display_matrix(picture: av.VideoFrame) -> tuple[int, ...] | None:
    """The nine numbers of the display matrix that the container has for this picture, or None.

    PyAV 18 can't list the side data of a picture that has a kind it does not know, such as a photograph's EXIF: the angle is all
    that it tells then, and a mirrored picture passes for a turned one.
    """
    try:
        found = side_data(picture, Type.DISPLAYMATRIX)
    except ValueError:
        return _QUARTER_TURNS[round(picture.rotation / 90) % 4]
    return None if found is None else tuple(int(value) for value in np.frombuffer(found, "<i4"))
