from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.stills import is_still, open_footage, still_video_info
from services.common.errors import InvalidRequestError
from tests.unit.media.made_footage import Clip, make_clip


def _picture(path: Path, height: int, width: int) -> npt.NDArray[np.uint8]:
    """A smooth coloured picture, written as a file; RGB."""
    rows, columns = np.linspace(20, 235, height)[:, None], np.linspace(20, 235, width)[None]
    rgb = np.stack([rows + 0 * columns, columns + 0 * rows, (rows + columns) / 2], -1).astype(np.uint8)
    assert cv2.imwrite(str(path), rgb[..., ::-1])
    return rgb


@pytest.mark.parametrize("name", ["face.png", "face.jpg", "face.webp", "face.bmp"])
def test_picture_becomes_one_frame(tmp_path: Path, name: str) -> None:
    """A picture becomes a video of one frame that shows it."""
    rgb = _picture(tmp_path / name, 240, 320)
    assert is_still(probe(tmp_path / name))
    video = open_footage(probe(tmp_path / name), tmp_path, threads=1)
    with VideoReader(video) as reader:
        (frame,) = reader
    assert (video.video.num_frames, video.video.pixel.name, video.video.average_rate) == (1, "yuv420p", 25)
    assert np.abs(to_rgb(frame).astype(int) - rgb).mean() < 2.0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_stands_as_its_exif_says(tmp_path: Path, orientation: int) -> None:
    rgb = _picture(tmp_path / "face.jpg", 240, 320)
    _write_orientation(tmp_path / "face.jpg", orientation)
    mirrored, turned = orientation in (2, 4, 5, 7), {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation]
    expected = np.rot90(rgb[:, ::-1] if mirrored else rgb, turned)
    video = open_footage(probe(tmp_path / "face.jpg"), tmp_path, threads=1)
    with VideoReader(video) as reader:
        (frame,) = reader
    assert np.abs(to_rgb(frame).astype(int) - expected).mean() < 3.0


def _write_orientation(path: Path, orientation: int) -> None:
    """Put an EXIF block with this orientation behind a JPEG's first marker."""
    tiff = b"II*\x00\x08\x00\x00\x00" + struct.pack("<HHHII", 1, 0x0112, 3, 1, orientation) + bytes(4)
    block = b"Exif\x00\x00" + tiff
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:])


@pytest.mark.parametrize("name", ["face.png", "face.webp"])
def test_a_picture_with_transparent_pixels_needs_a_background(tmp_path: Path, name: str) -> None:
    rgba = np.dstack([np.full((240, 320, 3), 90, np.uint8), np.full((240, 320), 255, np.uint8)])
    assert cv2.imwrite(str(tmp_path / name), rgba)
    assert open_footage(probe(tmp_path / name), tmp_path, threads=1).video.num_frames == 1, "opaque pixels alone"
    rgba[:24, :, 3] = 0
    assert cv2.imwrite(str(tmp_path / name), rgba)
    with pytest.raises(InvalidRequestError, match=rf"{name}: 10\.0% of the pixels are transparent.*color=white:size=320x240 -i IN"):
        open_footage(probe(tmp_path / name), tmp_path, threads=1)


def test_large_pictures_are_reduced_and_sides_are_even(tmp_path: Path) -> None:
    _picture(tmp_path / "large.png", 2001, 3001)
    assert still_video_info(probe(tmp_path / "large.png")).video.orientation.upright_size == (1920, 1280)
    _picture(tmp_path / "odd.png", 301, 201)
    assert open_footage(probe(tmp_path / "odd.png"), tmp_path, threads=1).video.orientation.upright_size == (200, 300)


def test_a_picture_that_is_too_small_is_refused(tmp_path: Path) -> None:
    _picture(tmp_path / "tiny.png", 40, 200)
    with pytest.raises(InvalidRequestError, match="200 x 40 is too small"):
        open_footage(probe(tmp_path / "tiny.png"), tmp_path, threads=1)


def test_videos_are_taken_as_they_are(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", Clip())
    assert open_footage(probe(path), tmp_path, threads=1).path == path
    assert not is_still(probe(path))
