from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from services.common.face.mouth_bank import MouthBank
from services.render.renderers.headpose.detail import with_detail


def strength(picture: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> float:
    grey = cv2.cvtColor(picture.astype(np.float32), cv2.COLOR_RGB2GRAY)
    inside = cv2.erode((mask > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    return float(np.square(cv2.Laplacian(grey, cv2.CV_32F)[inside]).mean())


def test_a_soft_face_comes_to_the_strength_of_the_key_pictures(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    keys = bank.boxes[[2, 4, 8]]
    soft = cv2.GaussianBlur(bank.boxes[6], (0, 0), 0.6)
    wanted = 0.9 * float(np.mean([strength(key, mask) for key in keys]))
    assert strength(soft, mask) < 0.6 * wanted
    made = with_detail(soft, keys, mask)
    assert abs(strength(made, mask) / wanted - 1.0) < 0.1
    assert np.array_equal(made[mask == 0], soft[mask == 0])
    assert np.abs(made.astype(int) - bank.boxes[6]).mean() < np.abs(soft.astype(int) - bank.boxes[6]).mean()


def test_very_soft_faces_are_not_blown_up(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    soft = cv2.GaussianBlur(bank.boxes[6], (0, 0), 3.0)
    made = with_detail(soft, bank.boxes[[2, 4, 8]], mask).astype(float)
    fine = soft.astype(np.float32) - cv2.GaussianBlur(soft.astype(np.float32), (0, 0), 1.2)
    assert np.abs(made - np.clip(np.rint(soft + 1.5 * mask[..., None] / 255.0 * fine), 0, 255)).max() <= 1


def test_a_sharp_face_stays_as_it_is(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    soft = np.stack([cv2.GaussianBlur(box, (0, 0), 1.0) for box in bank.boxes[:3]])
    for seen in (mask, np.zeros_like(mask)):
        assert np.array_equal(with_detail(bank.boxes[6], soft, seen), bank.boxes[6])
