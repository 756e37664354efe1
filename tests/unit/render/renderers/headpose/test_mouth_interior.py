from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from services.common.face.mouth_bank import MouthBank
from services.render.renderers.headpose.mouth_interior import inner_area, lip_and_skin, mean_mouth, with_interior


def inside_of(picture: npt.NDArray[np.uint8], points: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    x, y = points[20:40].mean(axis=0).round().astype(int)
    return np.asarray(picture[y - 2 : y + 3, x - 6 : x + 7].reshape(-1, 3).mean(axis=0), np.float64)


def test_a_shut_mouth_that_is_opened_shows_the_mean_inside(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    # A shut mouth moved to an open one is all lip.
    lips = np.full((160, 160, 3), (150, 60, 70), np.uint8)
    shut, wide = bank.box_landmarks[0], bank.box_landmarks[6]
    made = with_interior(lips, shut, mask, wide)
    assert np.abs(inside_of(made, wide) - (150, 60, 70)).max() > 10
    assert (made[:40] == lips[:40]).all()
    # Half as bright a face has half as bright an inside.
    dim = with_interior((lips // 2).astype(np.uint8), shut, mask, wide)
    assert np.allclose(inside_of(dim, wide) * 2, inside_of(made, wide), atol=4)


def test_open_mouths_and_shut_ones_that_stay_shut_are_left_alone(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    shut, wide = bank.box_landmarks[0], bank.box_landmarks[6]
    for own, wanted in ((wide, wide), (wide, shut), (shut, shut)):
        assert np.array_equal(with_interior(bank.boxes[3], own, mask, wanted), bank.boxes[3])


def test_brightness_of_lips_and_colour_of_skin(bank: MouthBank) -> None:
    points = bank.box_landmarks[6]
    found = lip_and_skin(bank.boxes[6], np.full((160, 160), 255, np.uint8), points)
    assert found.lip_level == pytest.approx((150 + 60 + 70) / 3, abs=6)
    assert found.skin_chroma.mean() == pytest.approx(1.0, abs=1e-5)
    assert found.skin_chroma[0] > found.skin_chroma[1] > found.skin_chroma[2]


def test_the_area_is_that_between_the_inner_lips() -> None:
    points = np.zeros((59, 2), np.float32)
    points[20:40, 0] = np.r_[0:10, 9:-1:-1]
    points[20:40, 1] = np.r_[np.zeros(10), np.full(10, 4.0)]
    assert inner_area(points) == pytest.approx(36.0)


def test_the_mean_that_comes_with_dubstage_is_an_open_mouth() -> None:
    mean = mean_mouth()
    assert mean.picture.shape == (160, 160, 3)
    assert inner_area(mean.landmarks) > 250
    assert mean.skin_chroma[0] > 1.0 > mean.skin_chroma[2]
