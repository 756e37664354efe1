"""A film has room for a manifest behind its first box, and is otherwise the film that FFmpeg wrote."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from gateway.media.boxes import Gap, boxes_of, moved_index
from gateway.media.film_room import RoomyFile, copy_with_room, room_of

ROOM = 5000


def packets(film: Path) -> list[tuple[int | None, bytes]]:
    with av.open(str(film)) as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux() if packet.size]


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def with_room(footage: Path, film: Path, room: int) -> None:
    """Write the packets of some footage to a film with room."""
    handle = os.open(film, os.O_RDWR | os.O_CREAT)
    target = RoomyFile(handle, room)
    with av.open(str(footage)) as source, av.open(target, "w", format="mp4", container_options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    target.settle()
    os.close(handle)


def test_a_film_with_room_has_the_packets_of_the_film_without(carphone: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    with_room(carphone, film, ROOM)
    with film.open("rb") as file:
        kinds = [(box.kind, box.end - box.start) for box in boxes_of(file)]
        room = room_of(file)
    assert kinds[0][0] == b"ftyp"
    assert kinds[1] == (b"free", ROOM)
    assert room is not None
    assert [data for _, data in packets(film)] == [data for _, data in packets(carphone)]


@pytest.mark.parametrize("room", [100, 70_000])
def test_a_film_is_copied_with_other_room(room: int, carphone: Path, tmp_path: Path) -> None:
    film, copy, plain = tmp_path / "film.mp4", tmp_path / "copy.mp4", tmp_path / "plain.mp4"
    with_room(carphone, film, ROOM)
    with film.open("rb") as old, copy.open("w+b") as new:
        copy_with_room(old, new, room)
        found = room_of(new)
    assert found is not None
    assert found.end - found.start == room
    assert packets(copy) == packets(film)
    with_room(carphone, plain, room)
    assert copy.read_bytes() == plain.read_bytes()


def test_a_file_that_is_no_film_gets_no_room(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"no film")
    with (tmp_path / "text").open("rb") as old, (tmp_path / "new").open("w+b") as new, pytest.raises(ValueError, match="ftyp"):
        copy_with_room(old, new, 100)


def test_places_that_do_not_fit_into_32_bits_are_an_error() -> None:
    def index(*places: int) -> bytes:
        table = struct.pack(">II", 0, len(places)) + b"".join(struct.pack(">I", place) for place in places)
        return box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", box(b"stco", table))))))

    def moved(before: bytes) -> bytes:
        file = io.BytesIO(before)
        (whole,) = boxes_of(file)
        return b"".join(moved_index(file, whole, [Gap(20, 100)]))

    assert moved(index(10, 2**32 - 101)) == index(10, 2**32 - 1)
    with pytest.raises(OverflowError, match="32 bits"):
        moved(index(10, 2**32 - 100))


def test_an_index_of_many_samples_is_moved_in_pieces() -> None:
    def index(tables: list[np.ndarray]) -> bytes:
        return box(b"moov", b"".join(box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", stored(t))))) for t in tables))

    def stored(table: np.ndarray) -> bytes:
        kind = b"stco" if table.dtype.itemsize == 4 else b"co64"
        return box(kind, struct.pack(">II", 0, len(table)) + table.tobytes()) + box(b"stsz", bytes(3_000_001))

    short, long = np.arange(400_000, dtype=">u4"), np.arange(2**33, 2**33 + 300_000, dtype=">u8")
    file = io.BytesIO(index([short, long]))
    (whole,) = boxes_of(file)
    pieces = list(moved_index(file, whole, [Gap(1000, 64)]))
    short[1000:] += 64
    long += 64
    assert b"".join(pieces) == index([short, long])
    assert max(map(len, pieces)) <= 1 << 20
