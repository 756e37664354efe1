from __future__ import annotations

import numpy as np

from services.common.array_types import UInt8
from services.common.face.mouth_bank import MouthBank
from services.render.colour_match import match_colour


def test_texture_light_matched(bank: MouthBank, mask: UInt8) -> None:
    """A texture in another light is brought to the background."""
    truth = bank.boxes[0]
    tint = np.linspace(-26, -14, 160)[None, :, None] * np.array([1.0, 0.8, 0.6])
    texture = np.clip(truth + tint, 0, 255).astype(np.uint8)
    inside = mask > 0
    before = np.abs(texture[inside].astype(float) - truth[inside]).mean()
    after = np.abs(match_colour(texture, truth, mask)[inside].astype(float) - truth[inside]).mean()
    assert after < 0.25 * before


def test_fitting_texture_unchanged(bank: MouthBank, mask: UInt8) -> None:
    """A texture that fits is left as it is."""
    assert np.array_equal(match_colour(bank.boxes[0], bank.boxes[0], mask), bank.boxes[0])


def test_nothing_under_the_mask_is_looked_at(bank: MouthBank, mask: UInt8) -> None:
    hidden = np.where(mask[..., None] > 0, np.uint8(255), bank.boxes[3])
    texture = bank.boxes[9]
    assert np.array_equal(match_colour(texture, hidden, mask), match_colour(texture, bank.boxes[3], mask))


def test_empty_and_full_mask_unchanged(bank: MouthBank) -> None:
    """An empty mask and a full one change nothing."""
    for value in (0, 255):
        flat = np.full((160, 160), value, np.uint8)
        assert np.array_equal(match_colour(bank.boxes[0], bank.boxes[3], flat), bank.boxes[0])


def test_larger_box_same_light(bank: MouthBank, mask: UInt8) -> None:
    """In a larger box, the light is matched as in a small box."""
    texture = np.clip(bank.boxes[9].astype(int) - 20, 0, 255).astype(np.uint8)
    small = match_colour(texture, bank.boxes[3], mask)
    doubled = [np.repeat(np.repeat(picture, 2, axis=0), 2, axis=1) for picture in (texture, bank.boxes[3], mask)]
    large = match_colour(*doubled)
    assert large.shape == (320, 320, 3)
    assert np.abs(large[::2, ::2].astype(int) - small).max() <= 2
