from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.common.mouth_bank import MouthBank
from services.render.features import lip_pictures, match_colour, network_picture

UInt8 = npt.NDArray[np.uint8]


def test_a_texture_in_another_light_is_brought_to_the_background(bank: MouthBank, mask: UInt8) -> None:
    truth = bank.boxes[0]
    tint = np.linspace(-26, -14, 160)[None, :, None] * np.array([1.0, 0.8, 0.6])
    texture = np.clip(truth + tint, 0, 255).astype(np.uint8)
    inside = mask > 0
    before = np.abs(texture[inside].astype(float) - truth[inside]).mean()
    after = np.abs(match_colour(texture, truth, mask)[inside].astype(float) - truth[inside]).mean()
    assert after < 0.25 * before


def test_a_texture_that_fits_is_left_as_it_is(bank: MouthBank, mask: UInt8) -> None:
    assert np.array_equal(match_colour(bank.boxes[0], bank.boxes[0], mask), bank.boxes[0])


def test_nothing_under_the_mask_is_looked_at(bank: MouthBank, mask: UInt8) -> None:
    hidden = np.where(mask[..., None] > 0, np.uint8(255), bank.boxes[3])
    texture, points = bank.boxes[9], bank.box_landmarks[9]
    assert np.array_equal(match_colour(texture, hidden, mask), match_colour(texture, bank.boxes[3], mask))
    shown, open_ = (network_picture(picture, texture, mask, points) for picture in (hidden, bank.boxes[3]))
    assert np.array_equal(shown, open_)


def test_an_empty_mask_and_a_full_one_change_nothing(bank: MouthBank) -> None:
    for value in (0, 255):
        flat = np.full((160, 160), value, np.uint8)
        assert np.array_equal(match_colour(bank.boxes[0], bank.boxes[3], flat), bank.boxes[0])


def test_the_inside_of_the_mouth_grows_with_the_opening(bank: MouthBank) -> None:
    shut, wide = (lip_pictures(bank.box_landmarks[row]) for row in (0, 6))
    assert wide[..., 1].sum() > shut[..., 1].sum() + 255 * 200
    assert (wide[..., 1] <= wide[..., 0]).mean() > 0.99


def test_landmarks_far_outside_the_box_are_drawn_without_fault() -> None:
    points = np.full((59, 2), 1e9, np.float32)
    assert not lip_pictures(points).any()
