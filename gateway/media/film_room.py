"""Room for a manifest behind the first box of an MP4 or MOV film, kept free while FFmpeg writes the film.

A manifest belongs before the pictures, and is known after them. A film that has room for the manifest is not copied for it.
"""

from __future__ import annotations

import io
import os
from typing import IO, Final

from gateway.media.boxes import Box, Gap, boxes_of, moved_index, pieces_of, read_at

BUFFER_BYTES: Final = 1 << 20
"""FFmpeg's buffer before each write, bytes."""


class RoomyFile:
    """A file as FFmpeg writes it, without the room that lies behind the file's first box.

    FFmpeg knows nothing of the room. When FFmpeg has finished, `settle` corrects the places of the samples.
    """

    name = ""

    def __init__(self, handle: int, room: int) -> None:
        """Write to an open file that is empty.

        Args:
            handle: descriptor of the file, which stays open.
            room: size of the room, bytes.
        """
        self._handle, self._room = handle, room
        self._first = 0
        self._place = self._end = 0

    def write(self, data: bytes) -> int:
        """Write at the current place.

        Raises:
            OSError: the file cannot be written.
        """
        if self._place == 0:
            self._first = int.from_bytes(data[:4], "big")
        view, place = memoryview(data), self._place
        while view:
            before = place < self._first
            part = view[: self._first - place] if before else view
            done = os.pwrite(self._handle, part, place if before else place + self._room)
            view, place = view[done:], place + done
        self._place = place
        self._end = max(self._end, place)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the current place, and return it."""
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._end}[whence]
        return self._place

    def tell(self) -> int:
        """Return the current place."""
        return self._place

    def settle(self) -> None:
        """Turn the room into a box, and correct the places of the samples. FFmpeg has finished the film.

        Raises:
            OSError: the file cannot be written.
            OverflowError: the film is a few bytes smaller than 4 GiB, and the places do not fit any more.
        """
        with open(self._handle, "r+b", closefd=False) as file:
            os.pwrite(self._handle, _header(self._room), self._first)
            _move_samples(file, Gap(self._first, self._room))


def room_of(file: IO[bytes]) -> Box | None:
    """Return the room of a film; None: the film has none."""
    boxes = boxes_of(file)
    next(boxes, None)
    room = next(boxes, None)
    return room if room is not None and room.kind == b"free" and _is_room(file, room) else None


def copy_with_room(old: IO[bytes], new: IO[bytes], room: int) -> None:
    """Copy a film, and give the copy room behind its first box, in place of the room that the film has.

    Args:
        old: the film.
        new: an empty file, open for reading and writing.
        room: size of the room, bytes.

    Raises:
        ValueError: the file is no MP4 or MOV film.
        OSError: the copy cannot be written.
        OverflowError: as `RoomyFile.settle`.
    """
    first = next(boxes_of(old), None)
    if first is None or first.kind != b"ftyp":
        raise ValueError("the film does not begin with a box `ftyp`")
    before = room_of(old)
    rest = before.end if before is not None else first.end
    new.write(read_at(old, 0, first.end))
    new.write(_header(room))
    new.seek(first.end + room)
    for piece in pieces_of(old, rest, old.seek(0, 2)):
        new.write(piece)
    new.flush()
    _move_samples(new, Gap(rest, first.end + room - rest))


def _header(room: int) -> bytes:
    return room.to_bytes(4, "big") + b"free" + _MARK


_MARK: Final = b"room for a manifest"


def _is_room(file: IO[bytes], box: Box) -> bool:
    return read_at(file, box.body, len(_MARK)) == _MARK


def _move_samples(file: IO[bytes], gap: Gap) -> None:
    """Correct the places in the index of a film whose samples have moved."""
    for index in [box for box in boxes_of(file) if box.kind == b"moov"]:
        place = index.start
        for piece in moved_index(file, index, [gap]):
            file.seek(place)
            place += file.write(piece)
    file.flush()
