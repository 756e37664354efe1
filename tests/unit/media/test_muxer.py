"""Encoded pictures wait on the disk: they come back in order with their times, and leave nothing in the folder."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from gateway.media.muxer import PacketSpool
from tests.file_limit import files_of_at_most


def encoded(codec: str) -> list[av.Packet[Any]]:
    """Return 40 encoded pictures in an odd time base, with times before 0."""
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt, context.time_base = 64, 48, "yuv420p", Fraction(1001, 30000)
    packets: list[av.Packet[Any]] = []
    for number in range(40):
        picture = av.VideoFrame(64, 48, "yuv420p")
        for plane in picture.planes:
            plane.update(bytes([6 * number] * plane.buffer_size))
        picture.pts, picture.time_base = number - 3, context.time_base
        packets += context.encode(picture)
    return packets + context.encode(None)


def put_all(spool: PacketSpool, packets: list[av.Packet[Any]]) -> None:
    for packet in packets:
        spool.put(packet)


def facts(packet: av.Packet[Any]) -> tuple[object, ...]:
    times = (packet.pts, packet.dts, packet.duration, packet.time_base)
    return (*times, packet.is_keyframe, bytes(packet))


@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
@pytest.mark.parametrize("largest_file", [1, 900, 1 << 30])
def test_packets_come_back_as_they_were(codec: str, largest_file: int, tmp_path: Path) -> None:
    packets, spool = encoded(codec), PacketSpool(tmp_path, largest_file=largest_file)
    put_all(spool, packets)
    before = [facts(packet) for packet in packets]
    assert len(before) == 40
    assert [facts(packet) for packet in spool.packets()] == before
    assert list(spool.packets()) == []


def test_nothing_is_seen_in_the_folder(tmp_path: Path) -> None:
    spool = PacketSpool(tmp_path)
    put_all(spool, encoded("ffv1"))
    assert list(tmp_path.iterdir()) == []
    spool.close()
    assert list(spool.packets()) == []


def test_a_file_goes_when_its_packets_were_read(tmp_path: Path) -> None:
    def open_files() -> int:
        return sum(os.readlink(f"/proc/self/fd/{number}").startswith(str(tmp_path)) for number in _descriptors())

    spool = PacketSpool(tmp_path, largest_file=1)
    put_all(spool, encoded("ffv1"))
    left = []
    for _ in spool.packets():
        left.append(open_files())
    assert left == list(range(40, 0, -1))
    assert open_files() == 0


def _descriptors() -> list[str]:
    return [name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")]


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"):
        PacketSpool(tmp_path / "gone").put(encoded("ffv1")[0])


def test_full_disk_files_can_close(tmp_path: Path) -> None:
    """Files on a full disk can be given up."""
    packets, spool = encoded("ffv1"), PacketSpool(tmp_path)
    with files_of_at_most(2000):
        with pytest.raises(OSError, match="large"):
            put_all(spool, 100 * packets)
        spool.close()
    assert list(spool.packets()) == []
