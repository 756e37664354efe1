"""Boxes of MP4 and MOV files, and the places of samples that they hold. Source: ISO/IEC 14496-12, 4.2 and 8.7.5."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO, Final

import numpy as np

_HOLDS_OFFSETS: Final = {b"trak", b"mdia", b"minf", b"stbl"}
_OFFSETS: Final = {b"stco": ">u4", b"co64": ">u8"}
_MOST_BOXES: Final = 10_000
_PIECE: Final = 1 << 20


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


def boxes_of(file: IO[bytes], within: Box | None = None) -> Iterator[Box]:
    """Yield the boxes of a file, or the boxes within a box, until one is damaged, and at most 10,000."""
    begin, end = (0, file.seek(0, 2)) if within is None else (within.body, within.end)
    for _ in range(_MOST_BOXES):
        box = _box(read_at(file, begin, 16), begin, end) if begin + 8 <= end else None
        if box is None:
            return
        yield box
        begin = box.end


def boxes_at_all_levels(file: IO[bytes], holders: Collection[bytes], within: Box | None = None) -> Iterator[Box]:
    """Yield the boxes of a file, or the boxes within a box, and the boxes within the boxes that they hold: at most 10,000 together.

    Args:
        file: the file.
        holders: kinds of the boxes to look into.
        within: the box; None: the whole file.
    """
    waiting, left = [within], _MOST_BOXES
    while waiting and left:
        for box in islice(boxes_of(file, waiting.pop()), left):
            left -= 1
            yield box
            if box.kind in holders:
                waiting.append(box)


def read_at(file: IO[bytes], place: int, size: int) -> bytes:
    """Return the bytes of a file from a place on, fewer at its end."""
    file.seek(place)
    return file.read(size)


def pieces_of(file: IO[bytes], begin: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of a file between two places, in pieces of at most 1 MiB. Callers may seek in the file between two pieces."""
    while begin < end and (piece := read_at(file, begin, min(_PIECE, end - begin))):
        begin += len(piece)
        yield piece


def moved_index(file: IO[bytes], index: Box, gaps: list[Gap]) -> Iterator[bytes]:
    """Return the bytes of a box `moov` whose samples have moved, in pieces of at most 1 MiB. The index of two hours has 8 MiB.

    Args:
        file: the file that holds the box. Callers may seek in the file between two pieces, and may replace the bytes of pieces that
            they already have.
        index: the box.
        gaps: what was put into the file or taken out. A sample moves by the sizes of all gaps whose place is not behind the
            sample's place before.

    Raises:
        OverflowError: a place does not fit into 32 bits any more.
    """
    tables = sorted(_tables(file, index), key=lambda table: table.begin)
    for table in tables:
        for _ in _moved(file, table, gaps):
            pass
    return _pieces(file, index, tables, gaps)


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of places of samples.

    Attributes:
        begin: place of its first byte in the file.
        end: place behind its last byte.
        kind: NumPy's name of the type of its numbers.
    """

    begin: int
    end: int
    kind: str


def _tables(file: IO[bytes], index: Box) -> Iterator[_Table]:
    for box in boxes_at_all_levels(file, _HOLDS_OFFSETS, index):
        if box.kind in _OFFSETS and box.end - box.body >= 8:
            kind, begin = _OFFSETS[box.kind], box.body + 8
            count = struct.unpack(">I", read_at(file, box.body + 4, 4))[0]
            size = np.dtype(kind).itemsize
            yield _Table(begin, begin + size * min(count, (box.end - begin) // size), kind)


def _pieces(file: IO[bytes], index: Box, tables: list[_Table], gaps: list[Gap]) -> Iterator[bytes]:
    place = index.start
    for table in tables:
        yield from pieces_of(file, place, table.begin)
        yield from _moved(file, table, gaps)
        place = table.end
    yield from pieces_of(file, place, index.end)


def _moved(file: IO[bytes], table: _Table, gaps: list[Gap]) -> Iterator[bytes]:
    for piece in pieces_of(file, table.begin, table.end):
        before = np.frombuffer(piece, table.kind)
        moved = before.astype(np.int64)
        for gap in gaps:
            moved[before >= gap.place] += gap.size
        if before.itemsize == 4 and len(moved) and not 0 <= moved.min() <= moved.max() < 1 << 32:
            raise OverflowError("a place of samples needs more than 32 bits")
        yield moved.astype(table.kind).tobytes()


def _box(head: bytes, start: int, end: int) -> Box | None:
    length, kind = struct.unpack(">I4s", head[:8])
    body = start + 8
    if length == 1 and len(head) == 16:
        length, body = struct.unpack(">Q", head[8:])[0], start + 16
    stop = end if length == 0 else start + length
    return Box(kind, start, body, stop) if body <= stop <= end else None
