"""Digest of a film without its manifest: equal for equal films, whoever signed them and when.

The manifest of an MP4 or MOV film is a box behind the box `ftyp`. c2pa moves what follows, and adds the size of the manifest to
the offsets of samples in the boxes `stco` and `co64`. This module takes both back, so the digest is that of the film before
the film was signed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np

from gateway.media.regular_file import reading

_MANIFEST: Final = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""Id of the `uuid` box of a C2PA manifest. Source: C2PA specification 2.2, A.5.1."""
_HOLDS_OFFSETS: Final = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}
_OFFSETS: Final = {b"stco": ">u4", b"co64": ">u8"}
_LARGEST_INDEX: Final = 1 << 30
"""Largest box `moov` whose offsets are taken back, bytes."""
_MOST_BOXES: Final = 10_000
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    start: int
    body: int
    end: int


def media_sha256(path: Path) -> str:
    """Return the SHA-256 of a film without its embedded manifest, hexadecimal. Of other files: the SHA-256 of all bytes.

    Raises:
        MediaUnsupported: the file is missing, no regular file, empty, or may not be read.
    """
    digest = hashlib.sha256()
    with reading(path, field="file") as handle, open(handle, "rb", closefd=False) as file:
        for piece in _without_manifest(file):
            digest.update(piece)
    return digest.hexdigest()


def _without_manifest(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a film that had no manifest."""
    end = file.seek(0, 2)
    boxes = list(_boxes(file, 0, end))
    manifests = [box for box in boxes if box.kind == b"uuid" and _read(file, box.body, 16) == _MANIFEST]
    if not manifests or boxes[0].kind != b"ftyp":
        yield from _pieces(file, 0, end)
        return
    place = 0
    for box in boxes:
        if box in manifests:
            pass
        elif box.kind == b"moov" and box.end - box.start <= _LARGEST_INDEX:
            yield _index_before(_read(file, box.start, box.end - box.start), manifests)
        else:
            yield from _pieces(file, box.start, box.end)
        place = box.end
    yield from _pieces(file, place, end)


def _index_before(index: bytes, manifests: list[_Box]) -> bytes:
    """Return a box `moov` with the offsets that its samples had before the manifests were put in."""
    whole = bytearray(index)
    waiting = [(0, len(whole))]
    while waiting:
        begin, end = waiting.pop()
        for box in _boxes_in(whole, begin, end):
            if box.kind in _HOLDS_OFFSETS:
                waiting.append((box.body, box.end))
            elif box.kind in _OFFSETS and box.end - box.body >= 8:
                kind = np.dtype(_OFFSETS[box.kind])
                count = min(struct.unpack_from(">I", whole, box.body + 4)[0], (box.end - box.body - 8) // kind.itemsize)
                offsets = np.frombuffer(whole, kind, count, box.body + 8)
                before = offsets.copy()
                for manifest in manifests:
                    before[offsets >= manifest.end] -= kind.type(manifest.end - manifest.start)
                offsets[:] = before
    return bytes(whole)


def _boxes(file: IO[bytes], begin: int, end: int) -> Iterator[_Box]:
    """Yield the boxes of a file until one is damaged, and at most _MOST_BOXES."""
    for _ in range(_MOST_BOXES):
        box = _box(_read(file, begin, 16), begin, end) if begin + 8 <= end else None
        if box is None:
            return
        yield box
        begin = box.end


def _boxes_in(data: bytearray, begin: int, end: int) -> Iterator[_Box]:
    for _ in range(_MOST_BOXES):
        box = _box(bytes(data[begin : begin + 16]), begin, end) if begin + 8 <= end else None
        if box is None:
            return
        yield box
        begin = box.end


def _box(head: bytes, start: int, end: int) -> _Box | None:
    length, kind = struct.unpack(">I4s", head[:8])
    body = start + 8
    if length == 1 and len(head) == 16:
        length, body = struct.unpack(">Q", head[8:])[0], start + 16
    stop = end if length == 0 else start + length
    return _Box(kind, start, body, stop) if body <= stop <= end else None


def _read(file: IO[bytes], place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)


def _pieces(file: IO[bytes], begin: int, end: int) -> Iterator[bytes]:
    file.seek(begin)
    while begin < end and (piece := file.read(min(_PIECE, end - begin))):
        begin += len(piece)
        yield piece
