"""Encoded pictures in temporary files, until the film is muxed.

FFmpeg's muxer of MP4 holds 64 bytes of memory for each packet until the film's end: 35 MB for the picture and the sound of two
hours. So the encoded pictures wait on the disk, and the film is muxed when the memory that the dub took is free again.
"""

from __future__ import annotations

import struct
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import IO, Final

from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

_HEAD: Final = struct.Struct("<qqqIII?")
_LARGEST_FILE: Final = 1 << 30


class PacketSpool:
    """Packets of one video stream, which are read in the order in which they were put in.

    The files have no name, so that nothing is left of them when the process is killed. A file goes when its packets were read.
    """

    def __init__(self, folder: Path, *, largest_file: int = _LARGEST_FILE) -> None:
        """Begin without a file.

        Args:
            folder: folder of the temporary files.
            largest_file: size of a file from which the next packet goes to another file, bytes.
        """
        self._folder, self._largest_file = folder, largest_file
        self._files: deque[IO[bytes]] = deque()

    def put(self, packet: Packet[VideoStream]) -> None:
        """Keep the bytes of a packet, its times, and whether the packet is a key frame. Side data are not kept.

        Raises:
            OSError: the disk is full, or the folder is gone.
        """
        if not self._files or self._files[-1].tell() >= self._largest_file:
            self._files.append(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115 - closed when read, or by `close`
        assert packet.pts is not None
        assert packet.dts is not None
        ticks, times = packet.time_base, (packet.pts, packet.dts, packet.duration or 0)
        self._files[-1].write(_HEAD.pack(*times, ticks.numerator, ticks.denominator, packet.size, packet.is_keyframe))
        self._files[-1].write(packet)

    def packets(self) -> Iterator[Packet[Stream]]:
        """Yield the packets, without their stream.

        Raises:
            OSError: a file cannot be written to its end, or read.
        """
        while self._files:
            with self._files[0] as file:
                file.seek(0)
                while head := file.read(_HEAD.size):
                    pts, dts, duration, numerator, denominator, size, is_keyframe = _HEAD.unpack(head)
                    packet = Packet(file.read(size))
                    packet.pts, packet.dts, packet.duration = pts, dts, duration
                    packet.time_base, packet.is_keyframe = Fraction(numerator, denominator), is_keyframe
                    yield packet
            self._files.popleft()

    def close(self) -> None:
        """Give all files back to the disk."""
        while self._files:
            with suppress(OSError):  # the end of a file on a full disk is still waiting to be written
                self._files.popleft().close()
