from __future__ import annotations

import numpy as np

from services.common.face.mouth_bank import MouthBank
from services.render.lip_pictures import lip_pictures


def test_the_inside_of_the_mouth_grows_with_the_opening(bank: MouthBank) -> None:
    shut, wide = (lip_pictures(bank.box_landmarks[row]) for row in (0, 6))
    assert wide[..., 1].sum() > shut[..., 1].sum() + 255 * 200
    assert (wide[..., 1] <= wide[..., 0]).mean() > 0.99


def test_landmarks_far_outside_the_box_are_drawn_without_fault() -> None:
    points = np.full((59, 2), 1e9, np.float32)
    assert not lip_pictures(points).any()


def test_in_a_larger_box_the_lips_are_as_much_larger(bank: MouthBank) -> None:
    points = bank.box_landmarks[6]
    small, large = lip_pictures(points), lip_pictures(2.0 * points, 320)
    assert large.shape == (320, 320, 2)
    assert np.abs(large.astype(int).reshape(160, 2, 160, 2, 2).mean(axis=(1, 3)) - small).mean() < 2.0
