"""Data that a decoded frame carries besides its samples."""

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
    """Return the side data of a kind; None: the picture has none.

    Call this for single frames only. PyAV ties a frame whose side data was read into a reference cycle, so the frame's memory stays
    until the garbage collector runs.
    """
    # By number: looking a kind up raises for frames that carry kinds unknown to the library's table.
    items = cast(Any, picture.side_data)
    _leave_metadata_to_the_frame(items)
    for number in range(len(items)):
        if items[number].type == kind:
            return bytes(items[number])
    return None


def _leave_metadata_to_the_frame(items: Any) -> None:
    """Keep PyAV 18 from freeing metadata of side data, such as the name of a colour profile. The frame frees the metadata too, and
    the second time crashes.

    The wrapper of each such metadata takes a few bytes until the process ends.
    """
    for number in range(len(items)):
        for found in gc.get_referents(items[number]):
            if isinstance(found, Dictionary) and len(found):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(found))


def display_matrix(picture: av.VideoFrame) -> tuple[int, ...] | None:
    """Return the nine numbers of the container's display matrix for a picture; None: there is none.

    PyAV 18 cannot list the side data of a picture with a kind that PyAV does not know, such as a photograph's EXIF. Then only the
    angle is known, and a mirrored picture is taken for a turned one.
    """
    try:
        found = side_data(picture, Type.DISPLAYMATRIX)
    except ValueError:
        return _QUARTER_TURNS[round(picture.rotation / 90) % 4]
    return None if found is None else tuple(int(value) for value in np.frombuffer(found, "<i4"))
