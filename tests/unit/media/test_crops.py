from __future__ import annotations

import struct
from pathlib import Path

import pytest

from gateway.media.inspection import inspect_video
from tests.unit.media.made_footage import Clip, make_clip
from tests.unit.media.made_pictures import box

SAYS = "the crop of the container, by which some players show {} pixels: the video has the whole picture"


def _with_clean_aperture(video: bytes, width: int, height: int) -> bytes:
    """An MP4 file whose index comes last, with a clean aperture in the middle of its first track."""
    kinds = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")
    added = box(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, 0, 1, 0, 1))
    changed, begin, end = bytearray(video), 0, 0
    for kind in kinds:
        while struct.unpack_from(">4s", video, begin + 4)[0] != kind:
            begin += struct.unpack_from(">I", video, begin)[0]
        length = struct.unpack_from(">I", video, begin)[0]
        struct.pack_into(">I", changed, begin, length + len(added))
        end = begin + length
        begin += 16 if kind == b"stsd" else 8
    return bytes(changed[:end]) + added + bytes(changed[end:])


def _with_pixel_crop(video: bytes, right: int) -> bytes:
    """A Matroska file whose first track states a crop, where its tags of colour are."""
    begin = video.index(b"\x55\xb0", video.index(b"\x16\x54\xae\x6b"))
    end = begin + 3 + (video[begin + 2] & 0x7F)
    free = end - begin - 6
    return video[:begin] + b"\x54\xdd\x81" + bytes([right]) + b"\xec" + bytes([0x80 | free]) + bytes(free) + video[end:]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_crop_of_container_is_named(tmp_path: Path, suffix: str) -> None:
    """The whole picture stays, as most players show it, and the crop is named. A crop to the whole picture is none."""
    whole = make_clip(tmp_path / f"whole{suffix}", Clip(codec="libx264", colour=(1, 1, 1, 1)))
    assert inspect_video(whole).video.unkept == ()
    cases = {(64, 48): ("64 x 48",), (96, 80): ()} if suffix == ".mp4" else {(80, 80): ("80 x 80",), (96, 80): ()}
    for (width, height), shown in cases.items():
        content = whole.read_bytes()
        cropped = _with_clean_aperture(content, width, height) if suffix == ".mp4" else _with_pixel_crop(content, 96 - width)
        (tmp_path / f"cropped{suffix}").write_bytes(cropped)
        video = inspect_video(tmp_path / f"cropped{suffix}").video
        assert (video.width, video.height) == (96, 80)
        assert video.unkept == tuple(map(SAYS.format, shown))
