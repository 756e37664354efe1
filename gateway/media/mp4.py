"""Boxes of MP4 and MOV files: reading them, hiding tracks from FFmpeg, and padding for a manifest. Source: ISO/IEC 14496-12.

Tracks: FFmpeg keeps 40 bytes of memory for each picture and each piece of sound of an open file: 21 MiB for two hours, of which 12
MiB are sound, and twice as much while FFmpeg opens the file. FFmpeg has no option to leave tracks out, so `TrackView` shows the
boxes of tracks that are not read as free space, which readers skip (8.1.2 and 8.4.3).

Padding: a manifest belongs before the pictures, and is known after them. `PaddedFile` keeps padding behind the first box while
FFmpeg writes the video, so that the video is not copied for the manifest. Offsets of samples (8.7.5) are corrected afterwards.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import IO, Final, Literal

import numpy as np

_HOLDS_OFFSETS: Final = {b"trak", b"mdia", b"minf", b"stbl"}
_OFFSETS: Final = {b"stco": ">u4", b"co64": ">u8"}
_MOST_BOXES: Final = 10_000
_PIECE: Final = 1 << 20
Only = Literal["picture", "sound"]
"""Tracks of a file that a reader reads."""
_LONG_INDEX: Final = 1 << 20
"""Length of an index from which on tracks are hidden, bytes. Fifteen minutes of picture and sound have as much."""
_FREE: Final = b"free"
_HIDDEN: Final = {"picture": b"soun", "sound": b"vide"}
BUFFER_BYTES: Final = 1 << 20
"""FFmpeg's buffer before each write, bytes."""
_MARK: Final = b"room for a manifest"


@dataclass(frozen=True, slots=True)
class Box:
    """A box.

    Attributes:
        kind: its four letters.
        start: offset of its first byte.
        body: offset of the first byte behind its length and kind.
        end: offset behind its last byte.
    """

    kind: bytes
    start: int
    body: int
    end: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of bytes that is put into a file, or taken out.

    Attributes:
        offset: samples from this offset of the file on move.
        size: how far they move, bytes; negative: towards the beginning.
    """

    offset: int
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


def read_at(file: IO[bytes], offset: int, size: int) -> bytes:
    """Return the bytes of a file from an offset on, fewer at its end."""
    file.seek(offset)
    return file.read(size)


def pieces_of(file: IO[bytes], begin: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of a file between two offsets, in pieces of at most 1 MiB. Callers may seek in the file between pieces."""
    while begin < end and (piece := read_at(file, begin, min(_PIECE, end - begin))):
        begin += len(piece)
        yield piece


def moved_index(file: IO[bytes], index: Box, gaps: list[Gap]) -> Iterator[bytes]:
    """Return the bytes of a box `moov` whose samples have moved, in pieces of at most 1 MiB. The index of two hours has 8 MiB.

    Args:
        file: the file that holds the box. Callers may seek in the file between two pieces, and may replace the bytes of pieces that
            they already have.
        index: the box.
        gaps: what was put into the file or taken out. A sample moves by the sizes of all gaps whose offset is not behind the
            sample's offset before.

    Raises:
        OverflowError: an offset does not fit into 32 bits any more.
    """
    tables = sorted(_tables(file, index), key=lambda table: table.begin)
    for table in tables:
        for _ in _moved(file, table, gaps):
            pass
    return _pieces(file, index, tables, gaps)


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of offsets of samples.

    Attributes:
        begin: offset of its first byte in the file.
        end: offset behind its last byte.
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
    offset = index.start
    for table in tables:
        yield from pieces_of(file, offset, table.begin)
        yield from _moved(file, table, gaps)
        offset = table.end
    yield from pieces_of(file, offset, index.end)


def _moved(file: IO[bytes], table: _Table, gaps: list[Gap]) -> Iterator[bytes]:
    for piece in pieces_of(file, table.begin, table.end):
        before = np.frombuffer(piece, table.kind)
        moved = before.astype(np.int64)
        for gap in gaps:
            moved[before >= gap.offset] += gap.size
        if before.itemsize == 4 and len(moved) and not 0 <= moved.min() <= moved.max() < 1 << 32:
            raise OverflowError("an offset of a sample needs more than 32 bits")
        yield moved.astype(table.kind).tobytes()


def _box(head: bytes, start: int, end: int) -> Box | None:
    length, kind = struct.unpack(">I4s", head[:8])
    body = start + 8
    if length == 1 and len(head) == 16:
        length, body = struct.unpack(">Q", head[8:])[0], start + 16
    stop = end if length == 0 else start + length
    return Box(kind, start, body, stop) if body <= stop <= end else None


class TrackView(io.RawIOBase):
    """The bytes of a file, with the kinds of some boxes replaced by `free`. Reads are independent of other readers of the file."""

    def __init__(self, handle: int, hidden: list[int]) -> None:
        """Open a view.

        Args:
            handle: descriptor of the file; the view keeps a descriptor of its own.
            hidden: offsets of the four letters of the boxes that are shown as free space.
        """
        self._handle, self._position, self._hidden = os.dup(handle), 0, hidden

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position of the file, and return the position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._handle).st_size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position of the next byte that is read."""
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill a buffer with the next bytes, fewer at the end of the file, and return their number."""
        size = os.preadv(self._handle, [buffer], self._position)
        for start in self._hidden:
            first, last = max(start, self._position), min(start + len(_FREE), self._position + size)
            if first < last:
                buffer[first - self._position : last - self._position] = _FREE[first - start : last - start]
        self._position += size
        return size

    def close(self) -> None:
        """Close the view's descriptor."""
        if not self.closed:
            os.close(self._handle)
        super().close()


def track_view(handle: int, only: Only) -> TrackView | None:
    """Return a view of a file; None: the file is short, in another format, has nothing to hide, or has its index in fragments.

    Args:
        handle: descriptor of a regular file.
        only: what is read. Tracks of the other kind are hidden; subtitles and other data are not.
    """
    with open(f"/proc/self/fd/{handle}", "rb") as file:
        index = next((box for box in boxes_of(file) if box.kind == b"moov"), None)
        if index is None or index.end - index.start < _LONG_INDEX:
            return None
        inside = list(boxes_of(file, index))
        # Fragments name their tracks, and FFmpeg refuses fragments of tracks that it does not know.
        if any(box.kind == b"mvex" for box in inside):
            return None
        hidden = [box.start + 4 for box in inside if box.kind == b"trak" and _handler(file, box) == _HIDDEN[only]]
    return TrackView(handle, hidden) if hidden else None


@dataclass(frozen=True, slots=True)
class Edit:
    """An entry of an edit list (8.6.6).

    Attributes:
        track: four letters that say what the track holds, such as `vide`.
        track_id: number of the track.
        number: number of the entry in its list, from 0.
        begin: time of the track from which on samples are shown, ticks of the track; -1: nothing is shown for the length.
        length: length of the entry, seconds; 0: not stated.
        speed: speed of the shown samples; 0: the first sample stands still.
    """

    track: bytes
    track_id: int
    number: int
    begin: int
    length: Fraction
    speed: float

    @property
    def is_empty(self) -> bool:
        """Whether nothing is shown for the length of the entry."""
        return self.begin == -1


@dataclass(frozen=True, slots=True)
class EditPart:
    """A part of a track that an edit list shows.

    Attributes:
        begin: time of the track at which the part begins, ticks of the track.
        length: length of the part, seconds; None: to the end of the track.
        shown_at: time at which the part is shown, seconds from the beginning of the list.
        precision: length of a tick in which the lengths of parts are stored, seconds.
    """

    begin: int
    length: Fraction | None
    shown_at: Fraction
    precision: Fraction


def edits_of(handle: int) -> Iterator[Edit]:
    """Yield the entries of the edit lists of an MP4 or MOV file.

    Args:
        handle: descriptor of a regular file.
    """
    with open(f"/proc/self/fd/{handle}", "rb") as file:
        index = next((box for box in boxes_of(file) if box.kind == b"moov"), None)
        inside = list(boxes_of(file, index)) if index is not None else []
        scale = next((_number(file, box, 12, 20) for box in inside if box.kind == b"mvhd"), 0) or 1
        for track in inside:
            boxes = list(boxes_at_all_levels(file, {b"edts"}, track)) if track.kind == b"trak" else []
            track_id = next((_number(file, box, 12, 20) for box in boxes if box.kind == b"tkhd"), 0)
            for box in boxes:
                if box.kind == b"elst":
                    content = read_at(file, box.body, min(box.end - box.body, _PIECE))
                    yield from _entries(_handler(file, track), track_id, scale, content)


def _entries(track: bytes, track_id: int, scale: int, content: bytes) -> Iterator[Edit]:
    entry = struct.Struct(">Qqi" if content[:1] == b"\1" else ">Iii")
    count = min(int.from_bytes(content[4:8]), (len(content) - 8) // entry.size)
    for number in range(count):
        length, begin, speed = entry.unpack_from(content, 8 + number * entry.size)
        yield Edit(track, track_id, number, begin, Fraction(length, scale), speed / (1 << 16))


def _number(file: IO[bytes], box: Box, offset: int, offset_of_long: int) -> int:
    """Return a number of 32 bits of a box, which lies further behind in boxes with times of 64 bits; 0: the box is cut short."""
    body = read_at(file, box.body, min(box.end - box.body, offset_of_long + 4))
    begin = offset_of_long if body[:1] == b"\1" else offset
    return int.from_bytes(body[begin : begin + 4]) if len(body) >= begin + 4 else 0


def edit_parts(handle: int) -> dict[int, tuple[EditPart, ...]]:
    """Return the parts of each track whose edit list FFmpeg does not follow exactly, by the numbers of the tracks.

    FFmpeg gives frames wrong times behind a cut inside a group of reordered frames, cuts sound at its packets, and takes a length
    of 0 for nothing. So lists of several parts and lists of one part without a length are followed here. The lists of fragmented
    files are left to FFmpeg: there the samples come later than the list.

    Args:
        handle: descriptor of a regular file.
    """
    with open(f"/proc/self/fd/{handle}", "rb") as file:
        index = next((box for box in boxes_of(file) if box.kind == b"moov"), None)
        if index is None or any(box.kind == b"mvex" for box in boxes_of(file, index)):
            return {}
        precision = next((_number(file, box, 12, 20) for box in boxes_of(file, index) if box.kind == b"mvhd"), 0) or 1
    lists: dict[int, list[Edit]] = {}
    for edit in edits_of(handle):
        lists.setdefault(edit.track_id, []).append(edit)
    parts = {track: _parts(edits, Fraction(1, precision)) for track, edits in lists.items()}
    return {track: found for track, found in parts.items() if len(found) > 1 or any(part.length is None for part in found)}


def _parts(edits: list[Edit], precision: Fraction) -> tuple[EditPart, ...]:
    shown = [edit for edit in edits if not edit.is_empty]
    only = len(shown) == 1
    parts, time = [], Fraction(0)
    for edit in edits:
        if not edit.is_empty and (edit.length or only):
            parts.append(EditPart(edit.begin, edit.length or None, time, precision))
        time += edit.length
    return tuple(parts)


def _handler(file: IO[bytes], track: Box) -> bytes:
    """Return the four letters that say what a track holds; empty: the track does not say."""
    for media in boxes_of(file, track):
        if media.kind == b"mdia":
            for box in boxes_of(file, media):
                if box.kind == b"hdlr" and box.end - box.body >= 12:
                    return read_at(file, box.body + 8, 4)
    return b""


class PaddedFile:
    """A file as FFmpeg writes it, without the padding that lies behind the file's first box.

    FFmpeg knows nothing of the padding. When FFmpeg has finished, `settle` corrects the offsets of the samples.
    """

    name = ""

    def __init__(self, handle: int, padding: int) -> None:
        """Write to an open file that is empty.

        Args:
            handle: descriptor of the file, which stays open.
            padding: size of the padding, bytes.
        """
        self._handle, self._padding = handle, padding
        self._first = 0
        self._position = self._end = 0

    def write(self, data: bytes) -> int:
        """Write at the current position.

        Raises:
            OSError: the file cannot be written.
        """
        if self._position == 0:
            self._first = int.from_bytes(data[:4], "big")
        view, position = memoryview(data), self._position
        while view:
            before = position < self._first
            part = view[: self._first - position] if before else view
            done = os.pwrite(self._handle, part, position if before else position + self._padding)
            view, position = view[done:], position + done
        self._position = position
        self._end = max(self._end, position)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the current position, and return it."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end}[whence]
        return self._position

    def tell(self) -> int:
        """Return the current position."""
        return self._position

    def settle(self) -> None:
        """Turn the padding into a box, and correct the offsets of the samples. FFmpeg has finished the video.

        Raises:
            OSError: the file cannot be written.
            OverflowError: the video is a few bytes smaller than 4 GiB, and the offsets do not fit any more.
        """
        with open(self._handle, "r+b", closefd=False) as file:
            os.pwrite(self._handle, _header(self._padding), self._first)
            _move_samples(file, Gap(self._first, self._padding))


def padding_box(file: IO[bytes]) -> Box | None:
    """Return the padding of a video; None: the video has none."""
    boxes = boxes_of(file)
    next(boxes, None)
    padding = next(boxes, None)
    return padding if padding is not None and padding.kind == b"free" and _is_padding(file, padding) else None


def copy_with_padding(old: IO[bytes], new: IO[bytes], padding: int, *, in_place_of: Box | None = None) -> None:
    """Copy a video, and give the copy padding behind its first box, in place of the padding that the video has.

    Args:
        old: the video.
        new: an empty file, open for reading and writing.
        padding: size of the padding, bytes.
        in_place_of: second box of the video, which the copy does not have; None: its padding.

    Raises:
        ValueError: the file is no MP4 or MOV video.
        OSError: the copy cannot be written.
        OverflowError: as `PaddedFile.settle`.
    """
    first = next(boxes_of(old), None)
    if first is None or first.kind != b"ftyp":
        raise ValueError("the video does not begin with a box `ftyp`")
    before = in_place_of or padding_box(old)
    rest = before.end if before is not None else first.end
    new.write(read_at(old, 0, first.end))
    new.write(_header(padding))
    new.seek(first.end + padding)
    for piece in pieces_of(old, rest, old.seek(0, 2)):
        new.write(piece)
    new.flush()
    _move_samples(new, Gap(rest, first.end + padding - rest))


def _header(padding: int) -> bytes:
    return padding.to_bytes(4, "big") + b"free" + _MARK


def _is_padding(file: IO[bytes], box: Box) -> bool:
    return read_at(file, box.body, len(_MARK)) == _MARK


def _move_samples(file: IO[bytes], gap: Gap) -> None:
    """Correct the offsets in the index of a video whose samples have moved."""
    for index in [box for box in boxes_of(file) if box.kind == b"moov"]:
        offset = index.start
        for piece in moved_index(file, index, [gap]):
            file.seek(offset)
            offset += file.write(piece)
    file.flush()
