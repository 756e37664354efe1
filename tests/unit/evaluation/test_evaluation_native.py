"""Fine detail of the mouth on the footage's own grid."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gateway.evaluation.native import NativeTruth, finished_box
from services.common.face.mouth_detail import NO_DETAIL, detail_of


def skin(scale: int, seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed).integers(0, 256, (160 * scale,) * 2).astype(np.uint8)
    return cv2.GaussianBlur(random, (0, 0), 0.7)


def truth(scale: int) -> NativeTruth:
    return NativeTruth(skin(scale)[None], np.array([float(scale)]))


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_film_itself_has_all_of_its_detail_and_a_blurred_one_has_less(scale: int) -> None:
    real = truth(scale)
    assert real.scale == scale
    same = real.energy_of(0, real.luma[0].astype(np.float32))
    assert same == real.energy(0) > 1.0
    soft = cv2.GaussianBlur(real.luma[0].astype(np.float32), (0, 0), 1.5)
    assert real.energy_of(0, soft) < 0.2 * same


def test_detail_outside_the_mouth_does_not_count() -> None:
    real = truth(2)
    other = real.luma[0].astype(np.float32)
    other[:20], other[:, :20] = 0.0, 0.0
    assert real.energy_of(0, other) == real.energy(0)


def test_without_a_mask_the_film_is_as_it_was() -> None:
    own = skin(2)
    box = np.zeros((160, 160, 3), np.uint8)
    nowhere = np.zeros((160, 160), np.uint8)
    _, luma = finished_box(box, nowhere, nowhere, np.empty((0, 0), np.uint8), own)
    np.testing.assert_array_equal(luma, own)


def test_a_box_with_detail_is_finer_at_both_sizes() -> None:
    real, mask = truth(2), np.full((160, 160), 255, np.uint8)
    own = real.luma[0]
    box = cv2.resize(np.repeat(own[..., None], 3, -1), (160, 160), interpolation=cv2.INTER_AREA)
    box = cv2.GaussianBlur(box, (0, 0), 1.0)
    detail = np.clip(np.rint(detail_of(own.astype(np.float32), 2) + NO_DETAIL), 0, 255).astype(np.uint8)
    plain, fine = (finished_box(box, mask, mask, each, own) for each in (np.empty((0, 0), np.uint8), detail))
    assert real.energy_of(0, fine[1]) == pytest.approx(real.energy(0), rel=0.2)
    assert real.energy_of(0, plain[1]) < 0.3 * real.energy(0)
    assert fine[0].std() > plain[0].std()
