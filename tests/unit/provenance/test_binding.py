"""The bytes behind a manifest are looked at to the end of their box, whatever the size of the box."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest

from gateway.provenance.binding import room_is_clean
from gateway.provenance.media_digest import MANIFEST_ID

BOX_BYTES = 300 << 20


@pytest.mark.parametrize("last", [0, 1])
def test_the_last_byte_of_a_large_box_counts_and_the_box_is_not_held_in_memory(last: int, tmp_path: Path) -> None:
    manifest = struct.pack(">I4s", 16, b"jumb") + b"contents"
    head = struct.pack(">I4s", BOX_BYTES, b"uuid") + MANIFEST_ID + bytes(4) + b"manifest\0" + bytes(8) + manifest
    with (tmp_path / "film.mp4").open("w+b") as film:
        film.write(head)
        film.seek(BOX_BYTES - 1)
        film.write(bytes([last]))
        tracemalloc.start()
        try:
            assert room_is_clean(film) is (last == 0)
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()
