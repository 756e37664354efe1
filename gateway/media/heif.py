"""Pictures of HEIF files in HEVC (HEIC) and AV1 (AVIF): tiles, rotation, crop, colour and transparency. Source: ISO/IEC 23008-12.

A file has items. The primary item is coded itself, or is a grid: a derived item that puts coded items (tiles) side by side, row by
row, and crops them at the right and at the bottom. Properties of the primary item say its size (`ispe`), its colour (`colr`), and
how the picture is shown: `clap` crops, `irot` turns, `imir` mirrors, in the order in which they are listed. An auxiliary picture of
the primary item (`auxl`) may hold its transparency.

FFmpeg decodes each coded item as a stream of its own, whose id is the item's id.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import IO, Final, cast

import av
import numpy as np

from gateway.media.mp4 import Box, boxes_of, read_at
from gateway.media.opening import MAX_STILL_PIXELS, is_decodable, open_input, reason_of
from gateway.media.pixels import ACCURATE, ColourTags, colour_model, in_srgb, pixel_format, planar_name
from services.common.array_types import UInt8
from services.common.errors import MediaUnsupportedError

_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif"})
_CODECS: Final = {b"hvc1": "hevc", b"av01": "av1"}
"""Kinds of coded items, and names of their codecs."""
_ALPHA: Final = (b"urn:mpeg:hevc:2015:auxid:1\0", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0")
"""Types of auxiliary pictures that hold transparency."""
_MOST_TILES: Final = 4096
_MOST_BYTES: Final = 1 << 20
_DEFAULT: Final = ColourTags(matrix=6, color_range=2, primaries=1, transfer=13)
"""Colours of a picture that says nothing: BT.601's matrix, full range, sRGB."""


@dataclass(frozen=True, slots=True)
class HeifPicture:
    """The primary picture of a HEIF file.

    Attributes:
        path: the file.
        codec: FFmpeg's name of the codec.
        tiles: ids of the coded items, row by row.
        columns: tiles in a row.
        coded: width and height of the whole picture before it is turned, pixels.
        shown: properties that say how the picture is shown, in order: kind and content.
        tags: colours; None: as the coded items say.
        icc_profile: ICC profile of the picture; None: none.
        alpha: the picture that holds the transparency, grey; None: there is none.
    """

    path: Path
    codec: str
    tiles: tuple[int, ...]
    columns: int
    coded: tuple[int, int]
    shown: tuple[tuple[bytes, bytes], ...]
    tags: ColourTags | None
    icc_profile: bytes | None
    alpha: HeifPicture | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture, pixels."""
        width, height = self.coded
        for kind, content in self.shown:
            if kind == b"clap":
                left, top, right, bottom = _crop(content, width, height)
                width, height = right - left, bottom - top
            elif kind == b"irot" and content[0] & 1:
                width, height = height, width
        return width, height

    def read(self) -> UInt8:
        """Return the upright picture, uint8 RGB [height, width, 3], in the colours of `icc_profile` if there is one.

        Raises:
                MediaUnsupportedError: a tile is missing or cannot be decoded.
        """
        picture = self._joined()
        for kind, content in self.shown:
            if kind == b"clap":
                left, top, right, bottom = _crop(content, picture.shape[1], picture.shape[0])
                picture = picture[top:bottom, left:right]
            elif kind == b"irot":
                picture = np.rot90(picture, content[0] & 3)
            else:  # imir: 0 exchanges top and bottom, 1 exchanges left and right
                picture = picture[:, ::-1] if content[0] & 1 else picture[::-1]
        return np.ascontiguousarray(picture)

    def _joined(self) -> UInt8:
        width, height = self.coded
        canvas = np.zeros((height, width, 3), np.uint8)
        missing = set(range(len(self.tiles)))
        for item, tile in self._decoded():
            for number in [index for index in missing if self.tiles[index] == item]:
                row, column = divmod(number, self.columns)
                room = canvas[row * tile.shape[0] :, column * tile.shape[1] :][: tile.shape[0], : tile.shape[1]]
                room[...] = tile[: room.shape[0], : room.shape[1]]
                missing.remove(number)
        if missing:
            raise self._broken(min(missing), "its data are missing, cut short or damaged")
        return canvas

    def _decoded(self) -> Iterator[tuple[int, UInt8]]:
        """Yield the coded items that can be decoded, by their ids."""
        with open_input(self.path) as container:
            streams = [stream for stream in container.streams.video if stream.id in self.tiles and is_decodable(stream)]
            for stream in streams:
                stream.codec_context.thread_count = 1
            try:
                for packet in container.demux(*streams) if streams else ():
                    for frame in packet.decode():
                        if isinstance(frame, av.VideoFrame) and not frame.is_corrupt:
                            yield packet.stream.id, self._levels(frame)
            except av.FFmpegError as problem:
                raise self._broken(0, reason_of(problem)) from problem

    def _levels(self, tile: av.VideoFrame) -> UInt8:
        """Return a tile as RGB, uint8 [rows, columns, 3]."""
        own = ColourTags(int(tile.colorspace), int(tile.color_range), int(tile.color_primaries), int(tile.color_trc))
        tags = self.tags or (own if own.matrix != ColourTags().matrix else _DEFAULT)
        model = colour_model(pixel_format(planar_name(tile.format.name)), tags, *self.coded)
        rgb = tile.reformat(
            format="rgb24",
            src_colorspace=model.swscale_matrix,
            src_color_range=2 if model.full_range else 1,
            dst_color_range=2,
            interpolation=ACCURATE,
            threads=1,
        ).to_ndarray()
        levels = np.asarray(rgb, np.uint8)
        return levels if self.icc_profile is not None and model.hdr is None else in_srgb(levels, tags)

    def _broken(self, number: int, problem: str) -> MediaUnsupportedError:
        return MediaUnsupportedError(
            f"{self.path}: tile {number + 1} of {len(self.tiles)} of the picture cannot be decoded: {problem}; copy the file "
            "again, or save the picture as JPEG",
            field="video",
        )


def _crop(content: bytes, width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom edge of the clean aperture, pixels, within the picture. Outside of it, right <= left."""
    numbers = struct.unpack_from(">8I", content)
    signed = struct.unpack_from(">8i", content)
    wide, high = (Fraction(numbers[index], max(1, numbers[index + 1])) for index in (0, 2))
    across, down = (Fraction(signed[index], max(1, numbers[index + 1])) for index in (4, 6))
    left = max(0, round(across + (width - wide) / 2))
    top = max(0, round(down + (height - high) / 2))
    return left, top, min(width, left + round(wide)), min(height, top + round(high))


def is_heif(head: bytes) -> bool:
    """Return whether the first 12 bytes of a file are those of a HEIF file."""
    return head[4:8] == b"ftyp" and head[8:12] in _BRANDS


def find_heif(file: IO[bytes], path: Path) -> HeifPicture | None:
    """Return the primary picture of a HEIF file in HEVC or AV1, not decoded; None: the file is another one, or an animation in AV1.

    Raises:
        MediaUnsupportedError: the picture is put together in a way that is not read, or its description is damaged.
    """
    head = read_at(file, 0, 12)
    if not is_heif(head):
        return None
    boxes = {box.kind: box for box in boxes_of(file)}
    if b"meta" not in boxes or (head.endswith(b"avif") and b"moov" in boxes):
        return None
    try:
        picture = _Items(file, boxes[b"meta"]).primary(path)
        if picture is not None and min(picture.size) < 1:
            raise ValueError("the picture has no pixels")
    except (struct.error, KeyError, IndexError, ValueError, OverflowError) as problem:
        raise MediaUnsupportedError(
            f"{path}: the description of the picture is damaged ({type(problem).__name__}); copy the file again, or save the "
            "picture as JPEG",
            field="video",
        ) from problem
    return picture


class _Items:
    """The items of a file, as its box `meta` describes them.

    Raises:
        struct.error, KeyError, IndexError, ValueError: the box is damaged.
    """

    def __init__(self, file: IO[bytes], meta: Box) -> None:
        self._file = file
        inside = {box.kind: box for box in boxes_of(file, Box(meta.kind, meta.start, meta.body + 4, meta.end))}
        self._boxes = inside
        version, content = self._full(inside[b"pitm"])
        self._primary = int.from_bytes(content[: 4 if version else 2])
        self._kinds = dict(self._listed_kinds(inside[b"iinf"]))
        references = list(self._references(inside[b"iref"])) if b"iref" in inside else []
        self._sources = {item: others for kind, item, others in references if kind == b"dimg"}
        self._auxiliary = [(item, others) for kind, item, others in references if kind == b"auxl"]

    def primary(self, path: Path) -> HeifPicture:
        """Return the primary picture."""
        picture = self._picture(self._primary, path)
        for item, of in self._auxiliary:
            types = [content[4:] for name, content in self._properties(item) if name == b"auxC"]
            if self._primary in of and any(kind.startswith(_ALPHA) for kind in types):
                return replace(picture, alpha=replace(self._picture(item, path), shown=picture.shown))
        return picture

    def _picture(self, item: int, path: Path) -> HeifPicture:
        properties, kind = list(self._properties(item)), self._kinds[item]
        if kind == b"iden":  # the same picture, shown otherwise
            (item,) = self._sources[item]
            properties, kind = [*self._properties(item), *properties], self._kinds[item]
        size = next(content for name, content in properties if name == b"ispe")
        coded = cast(tuple[int, int], struct.unpack_from(">II", size, 4))
        tiles: Sequence[int] = (item,)
        columns = 1
        if kind == b"grid":
            tiles = self._sources[item]
            rows, columns, coded = _grid(self._data(item))
            if rows * columns != len(tiles) or len(tiles) > _MOST_TILES:
                raise ValueError("the grid has another number of tiles")
        unread = [self._kinds[tile] for tile in tiles if self._kinds[tile] not in _CODECS]
        if unread:
            raise MediaUnsupportedError(
                f"{path}: the picture is put together in a way that is not read here ({unread[0].decode('latin-1')}); "
                "save it as JPEG",
                field="video",
            )
        if not 0 < coded[0] * coded[1] <= MAX_STILL_PIXELS:
            raise MediaUnsupportedError(
                f"{path}: a picture of {coded[0]} x {coded[1]} pixels is too large; save it smaller", field="video"
            )
        colours = [content for name, content in properties if name == b"colr"]
        return HeifPicture(
            path=path,
            codec=_CODECS[self._kinds[tiles[0]]],
            tiles=tuple(tiles),
            columns=columns,
            coded=coded,
            shown=tuple(entry for entry in properties if entry[0] in (b"clap", b"irot", b"imir")),
            tags=next((_tags(content) for content in colours if content[:4] == b"nclx"), None),
            icc_profile=next((content[4:] for content in colours if content[:4] in (b"prof", b"rICC")), None),
        )

    def _full(self, box: Box) -> tuple[int, bytes]:
        """Return version and content of a box with version and flags."""
        content = read_at(self._file, box.body, min(box.end - box.body, _MOST_BYTES))
        return content[0], content[4:]

    def _listed_kinds(self, box: Box) -> Iterator[tuple[int, bytes]]:
        wide = self._full(box)[0] > 0
        for entry in boxes_of(self._file, Box(box.kind, box.start, box.body + (8 if wide else 6), box.end)):
            version, content = self._full(entry)
            if version >= 2:
                size = 4 if version > 2 else 2
                yield int.from_bytes(content[:size]), content[size + 2 : size + 6]

    def _references(self, box: Box) -> Iterator[tuple[bytes, int, Sequence[int]]]:
        """Yield kind, item, and the items that the item refers to."""
        number = "I" if self._full(box)[0] else "H"
        for entry in boxes_of(self._file, Box(box.kind, box.start, box.body + 4, box.end)):
            content = read_at(self._file, entry.body, min(entry.end - entry.body, _MOST_BYTES))
            item, count = struct.unpack_from(f">{number}H", content)
            yield entry.kind, item, struct.unpack_from(f">{count}{number}", content, struct.calcsize(f">{number}H"))

    def _properties(self, item: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield kind and content of the properties of an item, in order."""
        inside = {box.kind: box for box in boxes_of(self._file, self._boxes[b"iprp"])}
        listed = list(boxes_of(self._file, inside[b"ipco"]))
        for number in self._associated(inside[b"ipma"]).get(item, ()):
            if number:
                box = listed[number - 1]
                yield box.kind, read_at(self._file, box.body, min(box.end - box.body, _MOST_BYTES))

    def _associated(self, box: Box) -> Mapping[int, Sequence[int]]:
        """Return the numbers of the properties of each item, from 1."""
        version, content = self._full(box)
        wide = read_at(self._file, box.body + 3, 1)[0] & 1
        count, position, associations = struct.unpack_from(">I", content)[0], 4, {}
        for _ in range(count):
            item = int.from_bytes(content[position : position + (4 if version else 2)])
            position += 4 if version else 2
            size, number = (2, content[position]) if wide else (1, content[position])
            ends = [position + 1 + size * index for index in range(number)]
            numbers = [int.from_bytes(content[end : end + size]) & (0x7FFF if wide else 0x7F) for end in ends]
            associations[item] = numbers
            position += 1 + size * number
        return associations

    def _data(self, item: int) -> bytes:
        """Return the bytes of an item of one extent."""
        version, content = self._full(self._boxes[b"iloc"])
        offset_size, length_size, base_size = content[0] >> 4, content[0] & 15, content[1] >> 4
        index_size = content[1] & 15 if version else 0
        wide = 4 if version == 2 else 2
        position = 2 + wide
        for _ in range(int.from_bytes(content[2:position])):
            number = int.from_bytes(content[position : position + wide])
            position += wide
            method = content[position + 1] & 15 if version else 0
            position += (2 if version else 0) + 2
            base = int.from_bytes(content[position : position + base_size])
            position += base_size
            extents = struct.unpack_from(">H", content, position)[0]
            position += 2
            for _ in range(extents):
                position += index_size
                offset = int.from_bytes(content[position : position + offset_size])
                position += offset_size
                length = int.from_bytes(content[position : position + length_size])
                position += length_size
                if number == item:
                    start = base + offset + (self._boxes[b"idat"].body if method == 1 else 0)
                    return read_at(self._file, start, min(length, _MOST_BYTES))
        raise KeyError(item)


def _grid(data: bytes) -> tuple[int, int, tuple[int, int]]:
    """Return rows, columns, and width and height of a grid."""
    _, flags, rows, columns = struct.unpack_from(">4B", data)
    width, height = struct.unpack_from(">II" if flags & 1 else ">HH", data, 4)
    return rows + 1, columns + 1, (width, height)


def _tags(content: bytes) -> ColourTags:
    primaries, transfer, matrix, full = struct.unpack_from(">HHHB", content, 4)
    return ColourTags(matrix=matrix, color_range=2 if full & 0x80 else 1, primaries=primaries, transfer=transfer)
