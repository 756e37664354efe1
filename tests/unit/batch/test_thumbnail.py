from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gateway.batch.thumbnail import WIDTH, jpeg_of, shown_frame, thumbnail_of
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from services.common.array_types import UInt8


def decoded(jpeg: bytes) -> UInt8:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(picture[..., ::-1], np.uint8)


@pytest.mark.parametrize(
    ("rendered", "frame"),
    [
        ([], 0),
        ([0, 0, 0, 0], 2),
        ([0, 0, 1, 0], 2),
        ([1, 0, 0, 0, 1, 1], 4),
        ([0] * 5000, 375),
        ([0] * 4000 + [1] * 1000, 4000),
        ([1] * 5000, 375),
    ],
)
def test_the_middle_of_the_rendered_frames_near_the_beginning_is_shown(rendered: list[int], frame: int) -> None:
    assert shown_frame(np.array(rendered, np.bool_)) == frame


@pytest.mark.parametrize(("shape", "size"), [((1080, 1920), (180, 320)), ((200, 100), (200, 100)), ((3, 4000), (1, 320))])
def test_a_thumbnail_has_the_proportions_of_the_picture(shape: tuple[int, int], size: tuple[int, int]) -> None:
    assert decoded(jpeg_of(np.full((*shape, 3), 128, np.uint8))).shape == (*size, 3)


def test_a_thumbnail_shows_the_chosen_frame_in_its_colours(carphone: Path) -> None:
    film = probe(carphone)
    rendered = np.zeros(film.video.num_frames, np.bool_)
    rendered[60:81] = True
    with VideoReader(film) as reader:
        frames = {frame.index: to_rgb(frame).astype(np.float32) for frame in reader if frame.index in (0, 70)}
    shown = decoded(thumbnail_of(film, rendered)).astype(np.float32)
    assert shown.shape[1] <= WIDTH
    assert np.abs(shown - frames[70]).mean() < 4
    assert np.abs(shown - frames[0]).mean() > 6
    assert np.abs(shown[..., ::-1] - frames[70]).mean() > 6
