"""Digest of a film without its manifest: equal for equal films, whoever signed them and when.

The manifest of an MP4 or MOV film is a box behind the box `ftyp`. c2pa moves what follows, and adds the size of the manifest to
the offsets of samples in the boxes `stco` and `co64`. This module takes both back, so the digest is that of the film before
the film was signed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from gateway.media.boxes import Box, Gap, boxes_of, moved_index, pieces_of, read_at
from gateway.media.regular_file import reading

MANIFEST_ID: Final = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""Id of the `uuid` box of a C2PA manifest. Source: C2PA specification 2.2, A.5.1."""


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


def manifest_boxes(file: IO[bytes]) -> list[Box]:
    """Return the boxes of a film that hold manifests, or parts of the digests that a manifest names."""
    return [box for box in boxes_of(file) if is_manifest(file, box)]


def is_manifest(file: IO[bytes], box: Box) -> bool:
    """Return whether a box of a film holds a manifest, or a part of one."""
    return box.kind == b"uuid" and read_at(file, box.body, len(MANIFEST_ID)) == MANIFEST_ID


def _without_manifest(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a film that had no manifest."""
    end = file.seek(0, 2)
    boxes = list(boxes_of(file))
    manifests = [box for box in boxes if is_manifest(file, box)]
    if not manifests or boxes[0].kind != b"ftyp":
        yield from pieces_of(file, 0, end)
        return
    place = 0
    gaps = [Gap(manifest.end, manifest.start - manifest.end) for manifest in manifests]
    for box in boxes:
        if box in manifests:
            pass
        elif box.kind == b"moov":
            yield from _index_before(file, box, gaps)
        else:
            yield from pieces_of(file, box.start, box.end)
        place = box.end
    yield from pieces_of(file, place, end)


def _index_before(file: IO[bytes], index: Box, gaps: list[Gap]) -> Iterator[bytes]:
    try:
        return moved_index(file, index, gaps)
    except OverflowError:  # the places are no places of this film
        return pieces_of(file, index.start, index.end)
