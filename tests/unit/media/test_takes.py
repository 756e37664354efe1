"""Several takes of a person become one video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.sound import SoundReader
from gateway.media.takes import MAX_TAKES, TAKES_SUFFIX, join_takes, takes_in_order
from gateway.media.types import MediaInfo
from services.common.errors import InvalidRequestError
from tests.unit.media.made_footage import VARIABLE_PTS, Clip, make_clip

LONG = Fraction(60)
SPOKEN = Clip(sound_rate=44100)
"""Twelve frames of 96 x 80 at 25 frames a second, with a tone."""
SILENT = Clip(size=(64, 112), pts=VARIABLE_PTS, time_base=Fraction(1, 15360))
"""Twelve frames of 64 x 112 as a screen recorder writes them, without sound."""


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> list[MediaInfo]:
    folder = tmp_path_factory.mktemp("takes")
    return [probe(make_clip(folder / "spoken.mkv", SPOKEN)), probe(make_clip(folder / "silent.nut", SILENT))]


@pytest.fixture(scope="module")
def joined(takes: list[MediaInfo], tmp_path_factory: pytest.TempPathFactory) -> MediaInfo:
    target = tmp_path_factory.mktemp("joined") / f"takes{TAKES_SUFFIX}"
    return join_takes(takes_in_order(takes, LONG), target, threads=1, on_frame=lambda *_: None)


def pictures(info: MediaInfo) -> list[npt.NDArray[np.uint8]]:
    with VideoReader(info) as reader:
        return [to_rgb(frame) for frame in reader]


def test_frames_in_common_canvas(takes: list[MediaInfo], joined: MediaInfo) -> None:
    """Every frame lies in the corner of a picture that holds all takes."""
    assert (joined.video.width, joined.video.height) == (96, 112)
    wanted = [picture for take in takes for picture in pictures(take)]
    found = pictures(joined)
    assert len(found) == len(wanted) == 24
    for got, want in zip(found, wanted, strict=True):
        height, width = want.shape[:2]
        # The takes are noise, whose colour is halved in size twice.
        assert np.abs(grey(got)[:height, :width] - grey(want)).mean() < 3.0
        assert grey(got)[height + 8 :].max(initial=0) < 8
        assert grey(got)[:, width + 8 :].max(initial=0) < 8


def grey(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.int16)


def test_second_take_follows_first(takes: list[MediaInfo], joined: MediaInfo) -> None:
    """The second take begins where the first ends and keeps its own times."""
    first, second = (take.video for take in takes)
    seconds = (joined.video.pts - joined.video.pts[0]) * float(joined.video.time_base)
    np.testing.assert_allclose(seconds[:12], np.arange(12) / 25, atol=1e-4)
    own = (second.pts - second.pts[0]) * float(second.time_base)
    np.testing.assert_allclose(seconds[12:], float(first.duration) + own, atol=1e-4)
    assert float(joined.video.duration) == pytest.approx(float(first.duration + second.duration), abs=1e-3)


def test_take_without_sound_is_silent(takes: list[MediaInfo], joined: MediaInfo) -> None:
    """Sound stays with its pictures and a take without sound is silent."""
    reader = SoundReader(joined.path, origin=joined.video.start)
    heard = np.concatenate([chunk.samples for chunk in reader])[:, 0]
    border = round(takes[0].video.duration * reader.info.sample_rate_hz)
    margin = reader.info.sample_rate_hz // 20
    assert np.sqrt(np.mean(heard[margin : border - margin] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)
    assert np.abs(heard[border + margin :]).max() < 0.01


def test_silent_takes_have_no_sound(takes: list[MediaInfo], tmp_path: Path) -> None:
    """A video of takes without sound has no sound."""
    parts = takes_in_order([takes[1], takes[1]], LONG)
    assert not join_takes(parts, tmp_path / f"takes{TAKES_SUFFIX}", threads=1, on_frame=lambda *_: None).audio


def test_beyond_longest_time_left_out(takes: list[MediaInfo], tmp_path: Path) -> None:
    """Frames after the longest time are left out."""
    told: list[tuple[int, int]] = []
    parts = takes_in_order([takes[0]] * 4, Fraction(7, 10))
    video = join_takes(parts, tmp_path / f"takes{TAKES_SUFFIX}", threads=1, on_frame=lambda *step: told.append(step))
    assert [part.num_frames for part in parts] == [12, 6]
    assert video.video.num_frames == 18
    assert told[-1] == (18, 18)
    assert float(video.video.duration) == pytest.approx(0.7, abs=0.03)


def test_a_picture_and_too_many_takes_are_refused(takes: list[MediaInfo], tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "face.png"), np.full((64, 64, 3), 90, np.uint8))
    with pytest.raises(InvalidRequestError, match=r"face\.png is a single picture"):
        takes_in_order([takes[0], probe(tmp_path / "face.png")], LONG)
    with pytest.raises(InvalidRequestError, match="17 files"):
        takes_in_order([takes[0]] * (MAX_TAKES + 1), LONG)
