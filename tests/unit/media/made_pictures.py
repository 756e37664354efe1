"""Small picture files that the tests write themselves: HEIC of tiles, and ICC profiles."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


def make_heic(path: Path, rgb: Picture, tile: int, *properties: bytes) -> Path:
    """Write a picture as tiles of HEVC, `tile` pixels wide and high, with properties of the whole picture (boxes)."""
    height, width = rgb.shape[:2]
    rows, columns = -(-height // tile), -(-width // tile)
    canvas = np.pad(rgb, ((0, rows * tile - height), (0, columns * tile - width), (0, 0)), mode="edge")
    coded = [
        _hevc(canvas[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile])
        for row in range(rows)
        for column in range(columns)
    ]
    count, config = len(coded), coded[0][0]
    whole = count + 1
    shared = [box(b"hvcC", config), full(b"ispe", struct.pack(">II", tile, tile)), full(b"ispe", struct.pack(">II", width, height))]
    of_tile, of_whole = bytes([2, 0x81, 2]), bytes([1 + len(properties), 3, *range(4, 4 + len(properties))])
    associated = b"".join(struct.pack(">H", item) + of_tile for item in range(1, whole)) + struct.pack(">H", whole) + of_whole
    items = b"".join(_item(item, b"hvc1") for item in range(1, whole)) + _item(whole, b"grid")
    grid = bytes([0, 0, rows - 1, columns - 1]) + struct.pack(">HH", width, height)

    def meta(first: int) -> bytes:
        places, offset = b"", first
        for item, (_, data) in enumerate(coded, 1):
            places += struct.pack(">HHHHII", item, 0, 0, 1, offset, len(data))
            offset += len(data)
        places += struct.pack(">HHHHII", whole, 1, 0, 1, 0, len(grid))
        return full(
            b"meta",
            full(b"hdlr", bytes(4) + b"pict" + bytes(13))
            + full(b"pitm", struct.pack(">H", whole))
            + full(b"iloc", bytes([0x44, 0]) + struct.pack(">H", whole) + places, version=1)
            + full(b"iinf", struct.pack(">H", whole) + items)
            + full(b"iref", box(b"dimg", struct.pack(f">HH{count}H", whole, count, *range(1, whole))))
            + box(b"iprp", box(b"ipco", b"".join([*shared, *properties])) + full(b"ipma", struct.pack(">I", whole) + associated))
            + box(b"idat", grid),
        )

    head = box(b"ftyp", b"heic" + bytes(4) + b"mif1heic")
    data = b"".join(data for _, data in coded)
    path.write_bytes(head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", data))
    return path


def with_property(heif: bytes, added: bytes) -> bytes:
    """A HEIF file of Pillow with one more property (a box) of its first item."""
    start = heif.index(b"iprp") - 4
    ipco, ipma = heif.index(b"ipco", start) - 4, heif.index(b"ipma", start) - 4
    stop = ipma + struct.unpack_from(">I", heif, ipma)[0]
    properties, number, place = heif[ipco + 8 : ipma], 1, 0
    while (place := place + struct.unpack_from(">I", properties, place)[0]) < len(properties):
        number += 1
    listed = heif[ipma + 18]
    associations = heif[ipma + 12 : ipma + 18] + bytes([listed + 1]) + heif[ipma + 19 : ipma + 19 + listed] + bytes([number + 1])
    rest = heif[ipma + 19 + listed : stop]
    iprp = box(b"iprp", box(b"ipco", properties + added) + full(b"ipma", associations + rest))
    moved = len(iprp) - (stop - start)
    head = bytearray(heif[:start])
    meta, iloc = head.index(b"meta") - 4, head.index(b"iloc") - 4
    struct.pack_into(">I", head, meta, struct.unpack_from(">I", head, meta)[0] + moved)
    assert head[iloc + 12] == 0x44
    assert head[iloc + 13] == 0
    for item in range(struct.unpack_from(">H", head, iloc + 14)[0]):
        offset = iloc + 16 + 14 * item + 6
        struct.pack_into(">I", head, offset, struct.unpack_from(">I", head, offset)[0] + moved)
    return bytes(head) + iprp + heif[stop:]


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """A PNG file with one more chunk behind the first."""
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return png[:33] + chunk + png[33:]


def _item(number: int, kind: bytes) -> bytes:
    return full(b"infe", struct.pack(">HH", number, 0) + kind + b"\0", version=2)


def box(kind: bytes, content: bytes) -> bytes:
    """A box of ISO/IEC 14496-12."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full(kind: bytes, content: bytes, version: int = 0) -> bytes:
    """A box with a version, and without flags."""
    return box(kind, struct.pack(">I", version << 24) + content)


def _hevc(rgb: Picture) -> tuple[bytes, bytes]:
    """The decoder's configuration and the data of a picture in HEVC, BT.601 in full range."""
    encoder = av.CodecContext.create("libx265", "w")
    encoder.width, encoder.height, encoder.pix_fmt = rgb.shape[1], rgb.shape[0], "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"x265-params": "log-level=error:range=full:repeat-headers=0", "crf": "4"}
    encoder.flags |= av.codec.context.Flags.global_header
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24").reformat(
        format="yuv420p", dst_colorspace=5, src_color_range=2, dst_color_range=2
    )
    picture.pts = 0
    packets = [*encoder.encode(picture), *encoder.encode(None)]
    units = [unit for packet in packets for unit in _units(bytes(packet))]
    sets = _units(bytes(encoder.extradata or b""))
    config = bytes([1, 3, 0x70, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93, 0xF0, 0, 0xFC, 0xFD, 0xF8, 0xF8, 0, 0, 0x0F, len(sets)])
    for unit in sets:
        config += bytes([0x80 | unit[0] >> 1 & 63]) + struct.pack(">HH", 1, len(unit)) + unit
    return config, b"".join(struct.pack(">I", len(unit)) + unit for unit in units)


def _units(stream: bytes) -> list[bytes]:
    """The NAL units of a stream with start codes."""
    parts = stream.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")
    return [part for part in parts if part]
