"""Tests of the digest of a video, which leaves the manifest out, and of the bytes behind a manifest in its box."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
from pathlib import Path

import pytest

from gateway.provenance.binding import MANIFEST_ID, media_sha256, padding_is_empty
from services.common.errors import MediaUnsupportedError
from tests.unit.provenance.signed_videos import flip

MANIFEST = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
BOX_BYTES = 300 << 20


def box(kind: bytes, body: bytes, *, wide: bool = False) -> bytes:
    if wide:
        return struct.pack(">I4sQ", 1, kind, 16 + len(body)) + body
    return struct.pack(">I4s", 8 + len(body), kind) + body


def video(manifest: bytes, *, wide: bool, before: bool) -> bytes:
    """A video whose two samples lie at the offsets that its index says."""
    head, data = box(b"ftyp", b"isom" + bytes(4)), box(b"mdat", b"0123456789", wide=wide)

    def index(first: int) -> bytes:
        kind, width = (b"co64", "Q") if wide else (b"stco", "I")
        offsets = box(kind, struct.pack(f">II{width}{width}", 0, 2, first, first + 4))
        return box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", offsets)))))

    start = len(head) + len(manifest) + (len(index(0)) if before else 0) + len(data) - 10
    return head + manifest + (index(start) + data if before else data + index(start))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_manifest_size_keeps_digest(wide: bool, before: bool, tmp_path: Path) -> None:
    """A manifest of any size leaves the digest as it was."""
    plain = video(b"", wide=wide, before=before)
    expected = hashlib.sha256(plain).hexdigest()
    for size in (0, 100, 5000):
        (tmp_path / "video.mp4").write_bytes(video(box(b"uuid", MANIFEST + bytes(size)), wide=wide, before=before))
        assert media_sha256(tmp_path / "video.mp4") == expected
    for place in (3, 20, len(plain) - 60, len(plain) - 1):
        (tmp_path / "video.mp4").write_bytes(video(box(b"uuid", MANIFEST + bytes(100)), wide=wide, before=before))
        flip(tmp_path / "video.mp4", place + (124 if place >= 16 else 0))
        assert media_sha256(tmp_path / "video.mp4") != expected


@pytest.mark.parametrize(
    "content",
    [
        b"text",
        box(b"uuid", MANIFEST) * 3,
        box(b"ftyp", b"isom") + box(b"uuid", b"another box of this kind"),
        box(b"ftyp", b"isom") + struct.pack(">I4s", 1 << 31, b"mdat") + b"cut off",
        box(b"free", b"") * 12_000,
    ],
)
def test_of_files_without_a_manifest_every_byte_counts(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert media_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_lying_index_read_to_end(tmp_path: Path) -> None:
    """An index that lies is read to its end and no further."""
    lying = box(b"moov", box(b"trak", box(b"stco", struct.pack(">III", 0, 1 << 31, 4000))))
    content = box(b"ftyp", b"isom") + box(b"uuid", MANIFEST + bytes(100)) + lying + b"rest"
    (tmp_path / "video.mp4").write_bytes(content)
    assert media_sha256(tmp_path / "video.mp4") != hashlib.sha256(content).hexdigest()


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(MediaUnsupportedError, match="does not exist"):
        media_sha256(tmp_path / "none.mp4")


@pytest.mark.parametrize("last", [0, 1])
def test_large_box_last_byte_counts(last: int, tmp_path: Path) -> None:
    """The last byte of a large box counts and the box is not held in memory."""
    manifest = struct.pack(">I4s", 16, b"jumb") + b"contents"
    head = struct.pack(">I4s", BOX_BYTES, b"uuid") + MANIFEST_ID + bytes(4) + b"manifest\0" + bytes(8) + manifest
    with (tmp_path / "video.mp4").open("w+b") as video:
        video.write(head)
        video.seek(BOX_BYTES - 1)
        video.write(bytes([last]))
        tracemalloc.start()
        try:
            assert padding_is_empty(video) is (last == 0)
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()
