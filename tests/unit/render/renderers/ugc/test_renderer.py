from __future__ import annotations

import numpy as np

from services.common.array_types import UInt8
from services.common.face.mouth_bank import MouthBank
from services.render.renderers.ugc.renderer import NUM_PICTURE_CHANNELS, network_picture


def test_nothing_under_the_mask_is_shown(bank: MouthBank, mask: UInt8) -> None:
    hidden = np.where(mask[..., None] > 0, np.uint8(255), bank.boxes[3])
    texture, points = bank.boxes[9], bank.box_landmarks[9]
    shown, open_ = (network_picture(picture, texture, mask, points) for picture in (hidden, bank.boxes[3]))
    assert shown.shape == (160, 160, NUM_PICTURE_CHANNELS)
    assert np.array_equal(shown, open_)


def test_a_larger_box_gives_a_larger_picture(bank: MouthBank, mask: UInt8) -> None:
    background, texture, large_mask = (
        np.repeat(np.repeat(picture, 2, axis=0), 2, axis=1) for picture in (bank.boxes[3], bank.boxes[9], mask)
    )
    shown = network_picture(background, texture, large_mask, 2.0 * bank.box_landmarks[9])
    assert shown.shape == (320, 320, NUM_PICTURE_CHANNELS)
