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
    np.testing.assert_array_equal(with_own_colours(own, own, open_mouth()), own)


def test_golden_teeth_become_the_persons(own: np.ndarray) -> None:
    """Between the lips, the result has the person's colours, and is the person's own mouth if that is asked for."""
    drawn = own.copy()
    core, _ = deep(own)
    drawn[lip_pictures(open_mouth())[..., 1] > 0] = (160, 120, 40)
    assert np.abs(with_own_colours(drawn, own, open_mouth()).astype(int) - own)[core].max() <= 1
    coloured = with_own_colours(drawn, own)
    assert np.abs(luma_of(coloured) - luma_of(drawn))[core].max() <= 2.0
    tints = [(picture.astype(float) - luma_of(picture)[..., None])[core].mean(axis=0) for picture in (coloured, own)]
    np.testing.assert_allclose(*tints, atol=3.0)


def test_light_of_the_renderer_stays(own: np.ndarray) -> None:
    """Outside of the mouth, mauve skin takes the person's colour and keeps its own luma and structure."""
    random = np.random.default_rng(1).integers(-20, 21, (160, 160, 1))
    drawn = np.clip(np.full((160, 160, 3), (150, 110, 160)) + random, 0, 255).astype(np.uint8)
    _, far = deep(own)
    result = with_own_colours(drawn, own, open_mouth())
    assert np.abs(luma_of(result) - luma_of(drawn))[far].max() <= 2.0
    tint = (result.astype(float) - luma_of(result)[..., None])[far].mean(axis=0)
    wanted = np.array(SKIN) - luma_of(np.full((1, 1, 3), SKIN, np.uint8)).item()
    np.testing.assert_allclose(tint, wanted, atol=2.0)
