"""Tests of the method of requests that name none: `portrait` for a single picture, `dubstage` for footage."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dubstage.gateway.v1 import dub_pb2 as pb
from gateway.dub.request.dub_request import default_method
from gateway.dub.request.spec import LocalFiles, method_of, request_from
from services.common.methods import DEFAULT_METHOD, STILL_METHOD
from tests.unit.media.made_footage import make_clip

PICTURE = np.full((80, 80, 3), 120, np.uint8)


def of_file(path: Path) -> str:
    return default_method(str(path), path)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tiff"])
def test_a_picture_takes_the_still_method(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"face.{ending}"
    assert cv2.imwrite(str(path), PICTURE)
    assert of_file(path) == STILL_METHOD


def test_content_decides_over_name(tmp_path: Path) -> None:
    """A file that is there is a picture by its content, whatever its ending."""
    video = make_clip(tmp_path / "clip.mp4").rename(tmp_path / "video.png")
    picture = tmp_path / "face"
    Image.fromarray(PICTURE).save(picture, format="JPEG")
    assert of_file(video) == DEFAULT_METHOD
    assert of_file(picture) == STILL_METHOD


def test_animation_takes_the_default(tmp_path: Path) -> None:
    other = Image.fromarray(255 - PICTURE)
    for path, further in ((tmp_path / "moving.gif", [other]), (tmp_path / "still.gif", [])):
        Image.fromarray(PICTURE).save(path, save_all=True, append_images=further)
    assert of_file(tmp_path / "moving.gif") == DEFAULT_METHOD
    assert of_file(tmp_path / "still.gif") == STILL_METHOD


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff" + b"\x00" * 64, b"\x89PNG\r\n\x1a\n" + b"\xff" * 4096, b"GIF89a"])
def test_damaged_picture_raises_no_error(tmp_path: Path, content: bytes) -> None:
    """A picture that cannot be read is refused later, when the footage is opened."""
    path = tmp_path / "face.png"
    path.write_bytes(content)
    assert of_file(path) == DEFAULT_METHOD


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "clip.mp4")
    assert of_file(tmp_path / "clip.mp4") == DEFAULT_METHOD


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("none.png", STILL_METHOD),
        ("s3://videos/day/face.JPG", STILL_METHOD),
        ("s3://videos/day/clip.mp4", DEFAULT_METHOD),
        ("https://store/face.png?sign=//[x", STILL_METHOD),
        ("https://[x/a\0?.png", DEFAULT_METHOD),
        ("shot.%04d.png", DEFAULT_METHOD),
        ("shot.####.tif", DEFAULT_METHOD),
    ],
)
def test_ending_decides_without_file(name: str, method: str) -> None:
    assert default_method(name) == default_method(name, Path("/not/there")) == method


def test_named_method_and_actor_win(tmp_path: Path) -> None:
    """A method of the request, then that of the actor, goes before the default."""
    path = tmp_path / "face.png"
    assert cv2.imwrite(str(path), PICTURE)
    spec = pb.DubSpec(footage_uri=str(path), output_uri=str(tmp_path / "out.mp4"))
    assert request_from(spec, LocalFiles(), threads=1).method == STILL_METHOD
    assert method_of(spec) == method_of(spec, "", path) == STILL_METHOD
    assert method_of(spec, "everyone", path) == "everyone"
    spec.method = "dubstage+ugc"
    assert method_of(spec, "everyone", path) == "dubstage"


def test_a_scene_takes_the_default(tmp_path: Path) -> None:
    assert method_of(pb.DubSpec(footage_uri="face.png", lines=[pb.LineSpec(start_timecode="0")])) == DEFAULT_METHOD
