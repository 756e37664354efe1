"""Boxes of MP4 and MOV files, and the places of samples that they hold. Source: ISO/IEC 14496-12, 4.2 and 8.7.5."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

import numpy as np

LARGEST_INDEX: Final = 1 << 30
"""Largest box `moov` that is read, bytes."""
_HOLDS_OFFSETS: Final = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}
_OFFSETS: Final = {b"stco": ">u4", b"co64": ">u8"}
_MOST_BOXES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Box:
    """A box.

    Attributes:
        kind: its four letters.
        start: place of its first byte.
        body: place of the first byte behind its length and kind.
        end: place behind its last byte.
    """

    kind: bytes
    start: int
    body: int
    end: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of bytes that is put into a file, or taken out.

    Attributes:
        place: samples from this place of the file on move.
        size: how far they move, bytes; negative: towards the beginning.
    """

    place: int
    size: int


def boxes_of(file: IO[bytes]) -> Iterator[Box]:
    """Yield the boxes of a file until one is damaged, and at most 10,000."""
    begin, end = 0, file.seek(0, 2)
    for _ in range(_MOST_BOXES):
        box = _box(read_at(file, begin, 16), begin, end) if begin + 8 <= end else None
        if box is None:
            return
        yield box
        begin = box.end


def read_at(file: IO[bytes], place: int, size: int) -> bytes:
    """Return the bytes of a file from a place on, fewer at its end."""
    file.seek(place)
    return file.read(size)


def moved_index(index: bytes, gaps: list[Gap]) -> bytes:
    """Return a box `moov` whose samples have moved.

    Args:
        index: the box.
        gaps: what was put into the file or taken out. A sample moves by the sizes of all gaps whose place is not behind the
            sample's place before.

    Raises:
        OverflowError: a place does not fit into 32 bits any more.
    """
    whole = bytearray(index)
    waiting = [(0, len(whole))]
    while waiting:
        for box in _boxes_in(whole, *waiting.pop()):
            if box.kind in _HOLDS_OFFSETS:
                waiting.append((box.body, box.end))
            elif box.kind in _OFFSETS and box.end - box.body >= 8:
                kind = np.dtype(_OFFSETS[box.kind])
                count = min(struct.unpack_from(">I", whole, box.body + 4)[0], (box.end - box.body - 8) // kind.itemsize)
                before = np.frombuffer(whole, kind, count, box.body + 8)
                moved = before.astype(np.int64)
                for gap in gaps:
                    moved[before >= gap.place] += gap.size
                if kind.itemsize == 4 and len(moved) and not 0 <= moved.min() <= moved.max() < 1 << 32:
                    raise OverflowError("a place of samples needs more than 32 bits")
                before[:] = moved
    return bytes(whole)


def _boxes_in(data: bytearray, begin: int, end: int) -> Iterator[Box]:
    for _ in range(_MOST_BOXES):
        box = _box(bytes(data[begin : begin + 16]), begin, end) if begin + 8 <= end else None
        if box is None:
            return
        yield box
        begin = box.end


def _box(head: bytes, start: int, end: int) -> Box | None:
    length, kind = struct.unpack(">I4s", head[:8])
    body = start + 8
    if length == 1 and len(head) == 16:
        length, body = struct.unpack(">Q", head[8:])[0], start + 16
    stop = end if length == 0 else start + length
    return Box(kind, start, body, stop) if body <= stop <= end else None
