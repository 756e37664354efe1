"""A rendered box at the footage's own resolution."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gateway.compositing.detail import box_with_detail, luma_under_box
from gateway.media.pixels import ColourTags, colour_model, pixel_format
from services.common.face.mouth_detail import NO_DETAIL, fine_band, luma_of


def noise(scale: int, strength: float, seed: int = 1) -> np.ndarray:
    """Return a fine pattern, float32 [160 scale, 160 scale], mean 0."""
    random = np.random.default_rng(seed).standard_normal((160 * scale,) * 2).astype(np.float32)
    return np.asarray(strength * fine_band(random, scale), np.float32)


def detail_of(pattern: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(pattern + NO_DETAIL), 0, 255).astype(np.uint8)


def rich(luma: np.ndarray, scale: int) -> float:
    return float(np.sqrt(np.square(fine_band(luma, scale)).mean()))


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_box_gets_the_detail_and_keeps_its_coarse_part(scale: int) -> None:
    box = np.full((160, 160, 3), (120, 90, 80), np.uint8)
    box[60:100, 50:110] = (150, 60, 70)
    pattern = noise(scale, 12.0)
    side = 160 * scale
    result = box_with_detail(box, detail_of(pattern), np.ones((side, side), np.float32), pattern + 100.0)
    assert result.shape == (side, side, 3)
    band = fine_band(luma_of(result), scale)
    assert np.corrcoef(band.ravel(), fine_band(pattern, scale).ravel())[0, 1] > 0.98
    coarse = cv2.resize(result, (160, 160), interpolation=cv2.INTER_AREA).astype(float)
    smooth = [cv2.GaussianBlur(each.astype(float), (0, 0), 3.0) for each in (coarse, box)]
    assert np.abs(smooth[0] - smooth[1]).max() < 3.0


def test_a_sharp_person_does_not_make_a_soft_film_sharp() -> None:
    box, pattern, all_of = np.full((160, 160, 3), 110, np.uint8), noise(2, 20.0), np.ones((320, 320), np.float32)
    sharp, soft = (box_with_detail(box, detail_of(pattern), all_of, own + 100.0) for own in (pattern, 0.25 * pattern))
    assert rich(luma_of(sharp), 2) == pytest.approx(rich(pattern, 2), rel=0.1)
    assert rich(luma_of(soft), 2) == pytest.approx(1.25 * 0.25 * rich(pattern, 2), rel=0.15)


def test_the_film_is_compared_under_the_mask_alone() -> None:
    box, pattern, mask = np.full((160, 160, 3), 110, np.uint8), noise(1, 20.0), np.zeros((160, 160), np.float32)
    mask[40:120, 40:120] = 1.0
    outside = pattern * 8.0 * (1.0 - mask) + pattern * mask
    same = [box_with_detail(box, detail_of(pattern), mask, own + 100.0) for own in (pattern, outside)]
    np.testing.assert_allclose(same[0][60:100, 60:100].astype(int), same[1][60:100, 60:100].astype(int), atol=1)


def test_no_detail_smooths_the_fine_band_away() -> None:
    box = np.repeat(np.random.default_rng(3).integers(60, 200, (160, 160, 1)).astype(np.uint8), 3, axis=-1)
    nothing = np.full((160, 160), NO_DETAIL, np.uint8)
    result = box_with_detail(box, nothing, np.ones((160, 160), np.float32), np.full((160, 160), 99.0, np.float32))
    assert rich(luma_of(result), 1) < 0.5 * rich(luma_of(box), 1)


@pytest.mark.parametrize(("name", "black", "white"), [("yuv420p", 0, 219), ("yuv420p10le", 0, 876), ("gbrp", 0, 255)])
def test_the_luma_of_a_frame_is_read_on_a_scale_of_255(name: str, black: int, white: int) -> None:
    pixel = pixel_format(name)
    model = colour_model(pixel, ColourTags(matrix=0 if name == "gbrp" else 1, color_range=2 if name == "gbrp" else 1), 64, 64)
    plane = np.full((64, 64), black, pixel.dtype)
    plane[:, 32:] = white
    seen = luma_under_box(plane, pixel.bits, model, np.array([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]), 120)
    assert seen[5, 5] == pytest.approx(0.0)
    assert seen[5, 115] == pytest.approx(255.0, rel=1e-3)
