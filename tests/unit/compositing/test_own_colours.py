"""Colours and inside of the mouth from the person's own frames."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gateway.compositing.own_colours import with_own_colours
from services.common.face.drawing import lip_pictures
from services.common.face.mouth_detail import luma_of
from tests.unit.common.face.test_mouth_detail import open_mouth

SKIN = (200, 150, 130)


@pytest.fixture
def own() -> np.ndarray:
    """The person's mouth: red lips, ivory teeth."""
    picture = np.full((160, 160, 3), SKIN, np.uint8)
    lips, inside = (lip_pictures(open_mouth())[..., part] > 0 for part in range(2))
    picture[lips] = (170, 70, 80)
    picture[inside] = (210, 205, 190)
    return picture


def deep(own: np.ndarray, margin: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Pixels well between the lips, and pixels well outside of the lips."""
    lips, inside = (lip_pictures(open_mouth())[..., part] > 0 for part in range(2))
    far = cv2.dilate((lips | inside).astype(np.uint8), np.ones((31, 31), np.uint8)) == 0
    core = inside.copy()
    for axis in (0, 1):
        for step in range(-margin, margin + 1):
            core &= np.roll(inside, step, axis)
    assert core.any()
    assert far.any()
    return core, far


def test_own_mouth_stays(own: np.ndarray) -> None:
    """A renderer that draws the person's own mouth keeps every pixel."""
    np.testing.assert_array_equal(with_own_colours(own, own, open_mouth(), inside=True), own)


def test_golden_teeth_become_the_persons(own: np.ndarray) -> None:
    """Between the lips, the result has the person's colours, and is the person's own mouth if that is asked for."""
    drawn = own.copy()
    core, _ = deep(own)
    drawn[lip_pictures(open_mouth())[..., 1] > 0] = (160, 120, 40)
    assert np.abs(with_own_colours(drawn, own, open_mouth(), inside=True).astype(int) - own)[core].max() <= 1
    coloured = with_own_colours(drawn, own, open_mouth())
    assert np.abs(luma_of(coloured) - luma_of(drawn))[core].max() <= 2.0
    tints = [(picture.astype(float) - luma_of(picture)[..., None])[core].mean(axis=0) for picture in (coloured, own)]
    np.testing.assert_allclose(*tints, atol=3.0)


def test_skin_is_the_persons(own: np.ndarray) -> None:
    """Beside the lips, mauve skin takes the person's colour and stubble, and keeps the light that the renderer draws."""
    stubble = np.random.default_rng(1).integers(-20, 21, (160, 160, 1))
    own = np.clip(own.astype(int) + stubble, 0, 255).astype(np.uint8)
    drawn = np.full((160, 160, 3), (150, 110, 160), np.uint8)
    _, far = deep(own)
    result = with_own_colours(drawn, own, open_mouth())
    light = luma_of(drawn)[far].mean()
    assert luma_of(result)[far].mean() == pytest.approx(light, abs=2.0)
    assert np.corrcoef(luma_of(result)[far], luma_of(own)[far])[0, 1] > 0.95
    tint = (result.astype(float) - luma_of(result)[..., None])[far].mean(axis=0)
    wanted = np.array(SKIN) - luma_of(np.full((1, 1, 3), SKIN, np.uint8)).item()
    np.testing.assert_allclose(tint, wanted, atol=2.0)


def test_structure_of_another_place_is_left_out(own: np.ndarray) -> None:
    """Where the person's frame shows something else than skin, such as a dark background, the renderer's box stays."""
    own = own.copy()
    own[120:] = 10
    own[130::4] = 60
    drawn = np.full((160, 160, 3), SKIN, np.uint8)
    result = with_own_colours(drawn, own, open_mouth())
    assert np.abs(luma_of(result) - luma_of(drawn))[145:].max() <= 2.0
