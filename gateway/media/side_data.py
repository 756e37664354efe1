"""What a decoded frame carries beside its samples."""

from __future__ import annotations

import ctypes
import gc
from typing import Any, cast

import av
import numpy as np
from av.dictionary import Dictionary
from av.sidedata.sidedata import Type


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
    """The nine numbers of the display matrix that the container has for this picture, or None."""
    found = side_data(picture, Type.DISPLAYMATRIX)
    return None if found is None else tuple(int(value) for value in np.frombuffer(found, "<i4"))
