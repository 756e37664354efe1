"""Crops that containers state and FFmpeg does not give to PyAV: `clap` of MP4 and MOV, and PixelCrop of Matroska.

The crop of H.264 and HEVC is in the stream, and the decoder applies that crop.
Sources: ISO/IEC 14496-12, 12.1.4; RFC 9559, 5.1.4.1.28.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from av.container import InputContainer
from av.video.stream import VideoStream

from gateway.media.mp4 import Box, boxes_at_all_levels, boxes_of, read_at
from gateway.safe_paths import open_media_file

_TO_ENTRIES: Final = {b"mdia", b"minf", b"stbl"}
_ENTRY_BYTES: Final = 78
"""Bytes of the description of a picture before the boxes within the description."""
_SEGMENT, _TRACKS, _CLUSTER, _TRACK, _VIDEO = 0x18538067, 0x1654AE6B, 0x1F43B675, 0xAE, 0xE0
_WIDTH, _HEIGHT, _BOTTOM, _TOP, _LEFT, _RIGHT = 0xB0, 0xBA, 0x54AA, 0x54BB, 0x54CC, 0x54DD
_MOST_ELEMENTS: Final = 10_000
_MOST_DIGITS: Final = 8


def stated_crop(container: InputContainer, stream: VideoStream, path: Path) -> tuple[int, int] | None:
    """Return width and height of the part of the picture that the container says to show, samples; None: the whole picture.

    Raises:
        MediaUnsupportedError: the file cannot be opened any more.
    """
    with open_media_file(path, field="video") as handle, open(f"/proc/self/fd/{handle}", "rb") as file:
        size = None
        if container.format.name.startswith("mov,"):
            size = _clean_aperture(file, stream.index)
        elif "matroska" in container.format.name:
            size = _pixel_crop(file, list(container.streams.video).index(stream))
    whole = (stream.codec_context.width, stream.codec_context.height)
    return (
        size
        if size is not None and size != whole and all(0 < side <= most for side, most in zip(size, whole, strict=True))
        else None
    )


def _clean_aperture(file: IO[bytes], number: int) -> tuple[int, int] | None:
    """Return the clean aperture of a track of MP4, by the track's number from 0."""
    index = next((box for box in boxes_of(file) if box.kind == b"moov"), None)
    tracks = [box for box in boxes_of(file, index) if box.kind == b"trak"] if index is not None else []
    for table in boxes_at_all_levels(file, _TO_ENTRIES, tracks[number]) if number < len(tracks) else ():
        if table.kind != b"stsd" or table.body + 8 > table.end:
            continue
        for entry in boxes_of(file, Box(table.kind, table.start, table.body + 8, table.end)):
            inside = Box(entry.kind, entry.start, entry.body + _ENTRY_BYTES, entry.end)
            for box in boxes_of(file, inside):
                if box.kind == b"clap" and box.end - box.body >= 16:
                    width, of_width, height, of_height = struct.unpack(">4I", read_at(file, box.body, 16))
                    return (round(width / of_width), round(height / of_height)) if of_width and of_height else None
    return None


@dataclass(frozen=True, slots=True)
class _Element:
    """An element of Matroska: its id, and the offsets of the first byte of its content and behind the last one."""

    id: int
    begin: int
    end: int


def _elements(file: IO[bytes], begin: int, end: int) -> Iterator[_Element]:
    """Yield the elements between two offsets, until one is damaged, and at most 10,000."""
    for _ in range(_MOST_ELEMENTS):
        head = read_at(file, begin, 12) if begin < end else b""
        id_bytes = 9 - head[0].bit_length() if head else 0
        size_bytes = 9 - head[id_bytes].bit_length() if 0 < id_bytes <= 4 and len(head) > id_bytes else 0
        if not 0 < size_bytes <= _MOST_DIGITS or len(head) < id_bytes + size_bytes:
            return
        content = begin + id_bytes + size_bytes
        digits = 7 * size_bytes
        size = int.from_bytes(head[id_bytes : id_bytes + size_bytes]) & ((1 << digits) - 1)
        stop = end if size == (1 << digits) - 1 else content + size  # all ones: not known
        if stop > end:
            return
        yield _Element(int.from_bytes(head[:id_bytes]), content, stop)
        begin = stop


def _pixel_crop(file: IO[bytes], number: int) -> tuple[int, int] | None:
    """Return the size of the cropped picture of a video track of Matroska, by the track's number among the video tracks, from 0."""
    end = file.seek(0, 2)
    segment = next((element for element in _elements(file, 0, end) if element.id == _SEGMENT), None)
    pictures: list[_Element] = []
    for element in _elements(file, segment.begin, segment.end) if segment is not None else ():
        if element.id == _CLUSTER:
            break
        for track in _elements(file, element.begin, element.end) if element.id == _TRACKS else ():
            pictures += [each for each in _elements(file, track.begin, track.end) if track.id == _TRACK and each.id == _VIDEO]
    if number >= len(pictures):
        return None
    values = {
        each.id: int.from_bytes(read_at(file, each.begin, min(each.end - each.begin, _MOST_DIGITS)))
        for each in _elements(file, pictures[number].begin, pictures[number].end)
    }
    if _WIDTH not in values or _HEIGHT not in values:
        return None
    width = values[_WIDTH] - values.get(_LEFT, 0) - values.get(_RIGHT, 0)
    return width, values[_HEIGHT] - values.get(_TOP, 0) - values.get(_BOTTOM, 0)
