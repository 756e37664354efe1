"""Binds a manifest to a video: digests of the video, and the box of the manifest in the video.

dubstage reads the video once for the digest. c2pa would copy the video twice. Source: C2PA specification 2.2, 18.5, 18.6 and A.5.

`media_sha256` leaves the manifest out, so that equal videos have equal digests, whoever signed them and when. The manifest of an
MP4 or MOV video is a box behind the box `ftyp`. c2pa moves what follows, and adds the size of the manifest to the offsets of
samples in the boxes `stco` and `co64`. This module takes both back, so the digest is that of the video before the video was signed.

The manifest of a video lies inside of MP4 and MOV, and in a sidecar beside every other file.
"""

from __future__ import annotations

import hashlib
import mimetypes
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

from gateway.media.mp4 import Box, Gap, boxes_of, moved_index, padding_box, pieces_of, read_at
from gateway.media.output import existing_file
from gateway.provenance.library import UNKNOWN
from gateway.safe_paths import open_media_file, open_regular
from services.common.errors import InvalidRequestError
from services.common.texts import Option, Text

MANIFEST_ID: Final = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""Id of the `uuid` box of a C2PA manifest. Source: C2PA specification 2.2, A.5.1."""
_LEFT_OUT: Final = (b"ftyp", b"mfra")
"""Boxes that the digest of a video leaves out, besides the manifest, as the specification demands."""
_PURPOSE: Final = bytes(4) + b"manifest\0" + bytes(8)
"""Version and flags, what the box holds, and where further boxes of the kind begin: there are none."""
_JUMBF: Final = b"jumb"
_HEAD: Final = 8 + len(MANIFEST_ID) + len(_PURPOSE)
SIDECAR: Final = ".c2pa"
"""Ending that the name of a sidecar has more than the name of the video."""
_MAGIC: Final = b"jumb"
"""Bytes 4 to 8 of every sidecar."""
LARGEST_SIDECAR: Final = 64 << 20
"""Largest sidecar that is read, bytes."""
_EMBEDDED: Final = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime"}
_ALSO_READ: Final = {".m4a": "audio/mp4", ".wav": "audio/wav", ".webp": "image/webp", ".flac": "audio/flac"}


def media_sha256(path: Path) -> str:
    """Return the SHA-256 of a video without its embedded manifest, hexadecimal. Of other files: the SHA-256 of all bytes.

    Raises:
        MediaUnsupportedError: the file is missing, no regular file, empty, or may not be read.
    """
    digest = hashlib.sha256()
    with open_media_file(path, field="file") as handle, open(handle, "rb", closefd=False) as file:
        for piece in _without_manifest(file):
            digest.update(piece)
    return digest.hexdigest()


def manifest_boxes(file: IO[bytes]) -> list[Box]:
    """Return the boxes of a video that hold manifests, or parts of the digests that a manifest names."""
    return [box for box in boxes_of(file) if is_manifest(file, box)]


def is_manifest(file: IO[bytes], box: Box) -> bool:
    """Return whether a box of a video holds a manifest, or a part of one."""
    return box.kind == b"uuid" and read_at(file, box.body, len(MANIFEST_ID)) == MANIFEST_ID


def _without_manifest(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a video that had no manifest."""
    end = file.seek(0, 2)
    boxes = list(boxes_of(file))
    manifests = [box for box in boxes if is_manifest(file, box)]
    if not manifests or boxes[0].kind != b"ftyp":
        yield from pieces_of(file, 0, end)
        return
    position = 0
    gaps = [Gap(manifest.end, manifest.start - manifest.end) for manifest in manifests]
    for box in boxes:
        if box in manifests:
            pass
        elif box.kind == b"moov":
            yield from _index_before(file, box, gaps)
        else:
            yield from pieces_of(file, box.start, box.end)
        position = box.end
    yield from pieces_of(file, position, end)


def _index_before(file: IO[bytes], index: Box, gaps: list[Gap]) -> Iterator[bytes]:
    try:
        return moved_index(file, index, gaps)
    except OverflowError:  # the positions are no positions of this video
        return pieces_of(file, index.start, index.end)


def embedded_binding(video: BinaryIO) -> dict[str, Any]:
    """Return the assertion about an MP4 or MOV video that has padding for the manifest. Reads the whole video.

    The digest is that of all boxes, each after its position, without the padding.
    """
    digest = hashlib.sha256()
    padding = padding_box(video)
    for box in list(boxes_of(video)):
        if box.kind not in _LEFT_OUT and box != padding and not is_manifest(video, box):
            digest.update(struct.pack(">Q", box.start))
            for piece in pieces_of(video, box.start, box.end):
                digest.update(piece)
    left_out = [_exclusion("/uuid", [{"offset": 8, "value": list(MANIFEST_ID)}])]
    left_out += [_exclusion(f"/{kind.decode()}") for kind in _LEFT_OUT]
    return _assertion("c2pa.hash.bmff.v3", digest.digest(), exclusions=left_out)


def sidecar_binding(video: BinaryIO) -> dict[str, Any]:
    """Return the assertion about a video whose manifest lies beside the video. Reads the whole video."""
    digest = hashlib.sha256()
    for piece in pieces_of(video, 0, video.seek(0, 2)):
        digest.update(piece)
    return _assertion("c2pa.hash.data", digest.digest(), pad=[])


def padding_for(manifest: bytes) -> int:
    """Return the size of the box of a manifest, bytes."""
    return _HEAD + len(manifest)


def put_manifest(video: BinaryIO, manifest: bytes) -> None:
    """Write a manifest into the padding of a video. Zeros fill the rest of the padding.

    Raises:
        OSError: the video cannot be written.
        ValueError: the video has no padding, or too little.
    """
    padding = padding_box(video)
    if padding is None or padding.end - padding.start < padding_for(manifest):
        raise ValueError("the video has no room for the manifest")
    size = padding.end - padding.start
    video.seek(padding.start)
    video.write((struct.pack(">I4s", size, b"uuid") + MANIFEST_ID + _PURPOSE + manifest).ljust(size, b"\0"))
    video.flush()


def padding_is_empty(video: BinaryIO) -> bool:
    """Return whether only zeros follow the manifest in its box. The digest of the video does not cover these bytes."""
    for box in manifest_boxes(video):
        begin = box.start + _HEAD
        head = read_at(video, begin, 8)
        if head[4:] == _JUMBF:
            behind = pieces_of(video, begin + int.from_bytes(head[:4], "big"), box.end)
            if any(piece.count(0) < len(piece) for piece in behind):
                return False
    return True


def _exclusion(path: str, data: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    unset = dict.fromkeys(("length", "subset", "version", "flags", "exact"))
    return {"xpath": path, "data": data, **unset}


def _assertion(label: str, digest: bytes, **more: Any) -> dict[str, Any]:
    return {"label": label, "data": {"name": "jumbf manifest", "alg": "sha256", "hash": list(digest), **more}}


def embedded_type(video: Path) -> str | None:
    """Return the media type of a video that has its manifest inside; None: the manifest lies beside the video."""
    return _EMBEDDED.get(video.suffix.lower())


def media_type_of(file: Path) -> str:
    """Return the media type that a file's name says."""
    suffix = file.suffix.lower()
    return _EMBEDDED.get(suffix) or _ALSO_READ.get(suffix) or mimetypes.guess_type(file.name)[0] or UNKNOWN


def sidecar_of(video: Path) -> Path:
    """Return where the manifest of a video lies if it lies beside the video."""
    return video.parent / f"{video.name}{SIDECAR}"


def read_sidecar(file: Path) -> bytes:
    """Return the manifest in a sidecar; empty: there is no such file, or the file is no manifest or larger than LARGEST_SIDECAR."""
    try:
        handle = open_regular(file)
    except (OSError, ValueError):
        return b""
    if handle is None:
        return b""
    with open(handle, "rb") as sidecar:
        content = sidecar.read(LARGEST_SIDECAR + 1)
    return content if content[4:8] == _MAGIC and len(content) <= LARGEST_SIDECAR else b""


def check_sidecar(video: Path, *, overwrite: bool) -> None:
    """Check before any work that the manifest of a video can be written.

    Args:
        overwrite: whether a file that is no manifest may be replaced.

    Raises:
        InvalidRequestError: the manifest belongs beside the video, and its name is too long, or a file that is no manifest has it.
    """
    if embedded_type(video) is not None:
        return
    sidecar = sidecar_of(video)
    there = existing_file(sidecar)
    if there is not None and not overwrite and not read_sidecar(sidecar):
        raise InvalidRequestError(
            Text(
                "{sidecar} exists and is no manifest, and the manifest of {video} is written there; give the video another name, "
                "or replace both files with {overwrite}",
                sidecar=sidecar,
                video=video.name,
                overwrite=Option("overwrite"),
            ),
            field="output",
        )
