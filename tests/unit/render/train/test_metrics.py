from __future__ import annotations

import cv2
import numpy as np
import pytest

from services.common.face.mouth_bank import MouthBank
from services.render.train.metrics import MOUTH_BOX, frame_quality, mean_quality, mouth_slices


def test_the_truth_itself_is_perfect(bank: MouthBank) -> None:
    found = frame_quality(bank.boxes[3], bank.boxes[3], bank.box_landmarks[3])
    assert found.ssim == pytest.approx(1.0)
    assert found.sharpness_ratio == pytest.approx(1.0)
    assert found.psnr_db > 90


def test_a_known_error_gives_its_psnr(bank: MouthBank) -> None:
    made = (bank.boxes[3].astype(np.int16) + 5).clip(0, 255).astype(np.uint8)
    assert frame_quality(made, bank.boxes[3], bank.box_landmarks[3]).psnr_db == pytest.approx(34.15, abs=0.1)


def test_blur_lowers_sharpness(bank: MouthBank) -> None:
    blurred = np.asarray(cv2.GaussianBlur(bank.boxes[3], (0, 0), 1.5), np.uint8)
    sharp = frame_quality(bank.boxes[3], bank.boxes[3], bank.box_landmarks[3])
    soft = frame_quality(blurred, bank.boxes[3], bank.box_landmarks[3])
    assert soft.sharpness_ratio < 0.3
    assert mean_quality([sharp, soft]).sharpness_ratio == pytest.approx(soft.sharpness_ratio**0.5)


def test_the_mouth_box_stays_inside_the_render_box() -> None:
    rows, columns = mouth_slices(np.zeros((59, 2)))
    assert (rows.start, columns.start) == (0, 0)
    assert (columns.stop, rows.stop) == MOUTH_BOX
