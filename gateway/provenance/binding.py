"""Binds a manifest to a film: the digest of the film that the manifest holds, and the box of the manifest in the film.

dubstage reads the film once for the digest. c2pa would copy the film twice. Source: C2PA specification 2.2, 18.5, 18.6 and A.5.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any, BinaryIO, Final

from gateway.media.boxes import boxes_of, pieces_of, read_at
from gateway.media.film_room import room_of
from gateway.provenance.media_digest import MANIFEST_ID, is_manifest, manifest_boxes

_LEFT_OUT: Final = (b"ftyp", b"mfra")
"""Boxes that the digest of a film leaves out, besides the manifest, as the specification demands."""
_PURPOSE: Final = bytes(4) + b"manifest\0" + bytes(8)
"""Version and flags, what the box holds, and where further boxes of the kind begin: there are none."""
_JUMBF: Final = b"jumb"
_HEAD: Final = 8 + len(MANIFEST_ID) + len(_PURPOSE)


def embedded_binding(film: BinaryIO) -> dict[str, Any]:
    """Return the assertion about an MP4 or MOV film that has room for the manifest. Reads the whole film.

    The digest is that of all boxes, each after its place, without the room.
    """
    digest = hashlib.sha256()
    room = room_of(film)
    for box in list(boxes_of(film)):
        if box.kind not in _LEFT_OUT and box != room and not is_manifest(film, box):
            digest.update(struct.pack(">Q", box.start))
            for piece in pieces_of(film, box.start, box.end):
                digest.update(piece)
    left_out = [_exclusion("/uuid", [{"offset": 8, "value": list(MANIFEST_ID)}])]
    left_out += [_exclusion(f"/{kind.decode()}") for kind in _LEFT_OUT]
    return _assertion("c2pa.hash.bmff.v3", digest.digest(), exclusions=left_out)


def sidecar_binding(film: BinaryIO) -> dict[str, Any]:
    """Return the assertion about a film whose manifest lies beside the film. Reads the whole film."""
    digest = hashlib.sha256()
    for piece in pieces_of(film, 0, film.seek(0, 2)):
        digest.update(piece)
    return _assertion("c2pa.hash.data", digest.digest(), pad=[])


def room_for(manifest: bytes) -> int:
    """Return the size of the box of a manifest, bytes."""
    return _HEAD + len(manifest)


def put_manifest(film: BinaryIO, manifest: bytes) -> None:
    """Write a manifest into the room of a film. Zeros fill the rest of the room.

    Raises:
        OSError: the film cannot be written.
        ValueError: the film has no room, or too little.
    """
    room = room_of(film)
    if room is None or room.end - room.start < room_for(manifest):
        raise ValueError("the film has no room for the manifest")
    size = room.end - room.start
    film.seek(room.start)
    film.write((struct.pack(">I4s", size, b"uuid") + MANIFEST_ID + _PURPOSE + manifest).ljust(size, b"\0"))
    film.flush()


def room_is_clean(film: BinaryIO) -> bool:
    """Return whether zeros alone follow the manifest in its box. The digest of the film does not cover these bytes."""
    for box in manifest_boxes(film):
        begin = box.start + _HEAD
        head = read_at(film, begin, 8)
        if head[4:] == _JUMBF:
            behind = pieces_of(film, begin + int.from_bytes(head[:4], "big"), box.end)
            if any(piece.count(0) < len(piece) for piece in behind):
                return False
    return True


def _exclusion(path: str, data: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    unset = dict.fromkeys(("length", "subset", "version", "flags", "exact"))
    return {"xpath": path, "data": data, **unset}


def _assertion(label: str, digest: bytes, **more: Any) -> dict[str, Any]:
    return {"label": label, "data": {"name": "jumbf manifest", "alg": "sha256", "hash": list(digest), **more}}
