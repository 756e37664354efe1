from __future__ import annotations

import numpy as np
import pytest

from services.common.array_types import Float64, UInt8
from services.common.face.mouth_bank import MouthBank
from services.render.renderers.hetero.light import in_light_of


def lips_over_cheeks(picture: UInt8, bank: MouthBank) -> Float64:
    """Colour of the lower lip as a share of the cheeks' colour, float64 [3]."""
    x, y = bank.box_landmarks[0, [15, 35]].mean(axis=0).round().astype(int)
    return np.asarray(picture[y - 1 : y + 2, x - 6 : x + 7].mean((0, 1)) / picture[70:90, 10:30].mean((0, 1)), np.float64)


@pytest.mark.parametrize("light", [(0.6, 0.6, 0.6), (0.8, 0.6, 0.5)])
def test_under_less_light_lips_keep_their_colour_beside_the_cheeks(
    light: tuple[float, float, float], bank: MouthBank, mask: UInt8
) -> None:
    picture = bank.boxes[0]
    dark = np.rint(picture * np.array(light)).astype(np.uint8)
    lit = in_light_of(picture, dark, mask)
    assert np.abs(lit.astype(int) - dark).mean() < 1.0
    np.testing.assert_allclose(lips_over_cheeks(lit, bank), lips_over_cheeks(picture, bank), atol=0.03)


def test_under_more_light_differences_do_not_grow(bank: MouthBank, mask: UInt8) -> None:
    dim = np.rint(bank.boxes[0] * np.array([0.8, 0.6, 0.4])).astype(np.uint8)
    # A highlight without any colour.
    dim[120:126, 70:90] = np.minimum(dim[120:126, 70:90].astype(int) + 40, 255)
    lit = in_light_of(dim, bank.boxes[0], mask).astype(int)
    skin = np.median(lit[70:90, 10:30] - dim[70:90, 10:30].astype(int), axis=(0, 1))
    assert (skin > 20).all()
    gleam = np.median(lit[120:126, 70:90] - dim[120:126, 70:90].astype(int), axis=(0, 1))
    np.testing.assert_allclose(gleam, skin, atol=2)


def test_a_picture_in_the_light_of_the_frame_stays(bank: MouthBank, mask: UInt8) -> None:
    assert np.array_equal(in_light_of(bank.boxes[0], bank.boxes[0], mask), bank.boxes[0])


def test_hair_beside_a_cheek_does_not_count(bank: MouthBank, mask: UInt8) -> None:
    haired = bank.boxes[0].copy()
    haired[:, :20] = 10
    change = in_light_of(bank.boxes[0], haired, mask).astype(int) - bank.boxes[0]
    assert np.abs(change).max() <= 4


def test_nothing_under_the_mask_is_looked_at(bank: MouthBank, mask: UInt8) -> None:
    hidden = np.where(mask[..., None] > 0, np.uint8(255), bank.boxes[3])
    assert np.array_equal(in_light_of(bank.boxes[9], hidden, mask), in_light_of(bank.boxes[9], bank.boxes[3], mask))
    everywhere = np.full_like(mask, 255)
    assert np.array_equal(in_light_of(bank.boxes[9], bank.boxes[3], everywhere), bank.boxes[9])
