"""Visible labels: where they are, that they can be read on every ground, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from gateway.media.choices import LABEL_POSITIONS, MOST_CHARACTERS, LabelPosition
from gateway.media.label import Label, LabelPainter, label_of
from gateway.media.pixels import ColourTags, pixel_format
from gateway.media.probe import probe
from gateway.media.types import Orientation, VideoInfo
from services.common.errors import InvalidRequestError
from tests.unit.media.made_footage import copied


def video_of(carphone: Path, name: str, *, turns: int = 0, mirrored: bool = False, aspect: Fraction = Fraction(1)) -> VideoInfo:
    """Video of 640 x 360 coded samples in a pixel format."""
    orientation = Orientation(640, 360, turns, mirrored, aspect)
    return replace(probe(carphone).video, pixel=pixel_format(name), orientation=orientation, colour=ColourTags(1, 1, 1, 1))


def painter(label: Label, video: VideoInfo) -> LabelPainter:
    return LabelPainter(label, video.pixel, video.colour, video.orientation)


def planes_of(video: VideoInfo, level: float) -> list[np.ndarray]:
    """A grey frame, 0 black to 1 white."""
    pixel, step = video.pixel, 1 << (video.pixel.bits - 8)
    planes = [np.full(pixel.plane_shape(0, 640, 360), (16 + 219 * level) * step, pixel.dtype)]
    planes += [np.full(pixel.plane_shape(place, 640, 360), 128 * step, pixel.dtype) for place in (1, 2)]
    return planes + ([np.full((360, 640), 77, pixel.dtype)] if pixel.alpha else [])


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p10le", "yuva444p12le", "yuv411p"])
@pytest.mark.parametrize("position", LABEL_POSITIONS)
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_white_on_dark_in_its_corner(level: float, position: LabelPosition, name: str, carphone: Path) -> None:
    """On black, grey and white, letters are white and their ground is at most 40 % bright; all else stays, and the frame too."""
    video = video_of(carphone, name)
    before = planes_of(video, level)
    kept = [plane.copy() for plane in before]
    after = painter(Label("AI dubbed", position), video)(before)
    assert all(np.array_equal(plane, copy) for plane, copy in zip(before, kept, strict=True))
    rows, columns = np.nonzero(after[0] != before[0])
    assert (rows.mean() < 180, columns.mean() < 320) == (position.startswith("top"), position.endswith("left"))
    inside = after[0][rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(float) / (1 << (video.pixel.bits - 8))
    assert inside.max() == pytest.approx(235, abs=2)
    assert np.median(inside) <= 16 + 219 * 0.41
    assert 10 <= min(rows.min(), 359 - rows.max(), columns.min(), 639 - columns.max()) <= 20 or level == 0
    assert all(np.array_equal(plane, copy) for plane, copy in zip(after[1:], kept[1:], strict=True)), "chroma and alpha are grey"


@pytest.mark.parametrize(("turns", "mirrored"), [(0, False), (1, False), (2, False), (3, False), (0, True), (1, True)])
def test_upright_in_turned_videos(turns: int, mirrored: bool, carphone: Path) -> None:
    """A viewer sees the same letters in the same corner of a video that the player turns or mirrors."""
    video = video_of(carphone, "yuv444p", turns=turns, mirrored=mirrored)
    drawn = painter(Label("AI", "top-left"), video)(planes_of(video, 0.5))[0]
    shown = np.rot90(drawn[:, ::-1] if mirrored else drawn, turns)
    upright = replace(video, orientation=Orientation(*shown.shape[::-1]))
    gray = [np.full(shown.shape, 125, np.uint8), *(np.full(shown.shape, 128, np.uint8) for _ in range(2))]
    expected = painter(Label("AI", "top-left"), upright)(gray)[0]
    assert np.array_equal(shown != 125, expected != 125)
    assert abs(shown.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("position", LABEL_POSITIONS)
@pytest.mark.parametrize(("transfer", "white"), [(1, 255), (16, 148)])
def test_pictures_in_rgb(position: LabelPosition, transfer: int, white: int) -> None:
    """A picture in RGB gets the letters of a video in its corner, grey as they are there, and the picture itself stays."""
    before = np.full((360, 640, 3), (200, 90, 30), np.uint8)
    kept = before.copy()
    label, colour = Label("AI dubbed", position), ColourTags(1, 1, 1, transfer)
    after = LabelPainter.of_pictures(label, colour, 640, 360).picture(before)
    assert np.array_equal(before, kept)
    rows, columns = np.nonzero((after != before).any(-1))
    assert (rows.mean() < 180, columns.mean() < 320) == (position.startswith("top"), position.endswith("left"))
    inside = after[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert (inside.reshape(-1, 3).max(0) == white).all()
    assert np.array_equal(np.median(inside.reshape(-1, 3), axis=0), np.rint(0.4 * before[0, 0]))


def test_letters_keep_their_shape_where_samples_are_not_square(carphone: Path) -> None:
    """A label of a video whose samples are shown twice as wide has half as many columns."""
    widths = []
    for aspect in (Fraction(1), Fraction(2)):
        video = video_of(carphone, "yuv420p", aspect=aspect)
        drawn = painter(Label("AI dubbed"), video)(planes_of(video, 0.5))[0]
        widths.append(np.ptp(np.nonzero(drawn != planes_of(video, 0.5)[0])[1]))
    assert widths[1] == pytest.approx(widths[0] / 2, abs=2)


def test_the_longest_label_fits(carphone: Path) -> None:
    video = video_of(carphone, "yuv420p", turns=1)
    drawn = painter(Label("W" * MOST_CHARACTERS), video)(planes_of(video, 0.5))[0]
    rows, _ = np.nonzero(drawn != planes_of(video, 0.5)[0])
    assert 5 < rows.min() < rows.max() < 635


def test_every_frame_of_a_video_has_it(carphone: Path, tmp_path: Path) -> None:
    """A lossless video differs from the footage inside the label alone."""
    info, output = probe(carphone), tmp_path / "video.mp4"
    copied(info, output, codec="ffv1", threads=1, label=Label("KI-synchronisiert", "top-right"))
    with av.open(str(carphone)) as old, av.open(str(output)) as new:
        for before, after in zip(old.decode(video=0), new.decode(video=0), strict=True):
            rows, columns = np.nonzero(before.to_ndarray()[:144] != after.to_ndarray()[:144])
            assert 0 < rows.max() < 30
            assert columns.min() > 60


@pytest.mark.parametrize("text", ["AI dubbed", "Doublé par IA", "Дублировано ИИ", "Μεταγλώττιση ΤΝ"])
def test_languages(text: str) -> None:
    assert label_of(f" {text} ", "") == Label(text, "bottom-right")


@pytest.mark.parametrize(
    ("text", "position", "wrong"),
    [
        ("a" * (MOST_CHARACTERS + 1), "", "1 to 60 characters, not 61"),
        ("  ", "", "1 to 60 characters, not 0"),
        ("AI\nx", "", "one line of printable characters"),
        ("AI\u202edub", "", "one line of printable characters"),
        ("\u0301 \u0308", "", "letters, not accents alone"),
        ("由AI配音", "", "cannot show '由'"),
        ("دبلجة بالذكاء", "", "give Latin, Greek or Cyrillic letters"),
        ("AI", "middle", "there are: top-left, top-right, bottom-left, bottom-right"),
        ("", "top-left", "without a label"),
    ],
)
def test_what_cannot_be_drawn_is_refused(text: str, position: str, wrong: str) -> None:
    with pytest.raises(InvalidRequestError, match=wrong):
        label_of(text, position)
