"""A rendered box at the footage's own resolution."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gateway.compositing.detail import box_with_detail, luma_under_box, skin_under
from gateway.media.pixels import ColourTags, colour_model, pixel_format
from services.common.face.landmarks import LIPS_OUTER, NUM_MOUTH_AREA
from services.common.face.mouth_detail import NO_DETAIL, at_scale, detail_of, luma_of, middle_of, on_box_grid

ALL: np.ndarray = np.full((160, 160), 255, np.uint8)


def noise(scale: int, strength: float, seed: int = 1) -> np.ndarray:
    """Return a pattern with structures of all sizes, float32 [160 scale, 160 scale], mean 0."""
    random = np.random.default_rng(seed).standard_normal((160 * scale,) * 2).astype(np.float32)
    return np.asarray(strength * cv2.GaussianBlur(random, (0, 0), 0.7), np.float32)


def stripes(scale: int, strength: float, *, upright: bool) -> np.ndarray:
    """Return stripes of 9 box pixels, which lie in the middle band, float32 [160 scale, 160 scale], mean 0."""
    wave = strength * np.sin(2 * np.pi * (np.arange(160 * scale) + 0.5) / scale / 9.0)
    pattern = np.tile(wave, (160 * scale, 1)).astype(np.float32)
    return pattern if upright else np.ascontiguousarray(pattern.T)


def stored(luma: np.ndarray, scale: int) -> np.ndarray:
    return np.clip(np.rint(detail_of(luma, scale) + NO_DETAIL), 0, 255).astype(np.uint8)


def drawn(luma: np.ndarray) -> np.ndarray:
    """Return a box that shows a native luma on grey, uint8 [160, 160, 3]."""
    small = cv2.resize(luma, (160, 160), interpolation=cv2.INTER_AREA)
    return np.repeat(np.clip(np.rint(small + 110.0), 0, 255).astype(np.uint8)[..., None], 3, axis=-1)


def bands(luma: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the fine band, float32 [160 scale, 160 scale], and the middle band, float32 [160, 160], of a picture."""
    detail = detail_of(luma, scale)
    middle = middle_of(on_box_grid(detail))
    return detail - at_scale(middle, scale), middle


def strengths(luma: np.ndarray, scale: int) -> tuple[float, float]:
    """Return the root mean squares of the fine and the middle band inside of a picture."""
    fine, middle = bands(luma, scale)
    edge = 8 * scale
    return float(fine[edge:-edge, edge:-edge].std()), float(middle[8:-8, 8:-8].std())


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_box_gets_fine_band(scale: int) -> None:
    """The box gets the fine band and keeps its coarse part."""
    box = np.full((160, 160, 3), (120, 90, 80), np.uint8)
    box[60:100, 50:110] = (150, 60, 70)
    person = noise(scale, 40.0)
    result = box_with_detail(box, stored(person, scale), ALL, ALL, person + 100.0)
    assert result.shape == (160 * scale, 160 * scale, 3)
    found, target = (bands(each, scale)[0][: 40 * scale] for each in (luma_of(result), person))
    assert np.corrcoef(found.ravel(), target.ravel())[0, 1] > 0.95
    coarse = cv2.resize(result, (160, 160), interpolation=cv2.INTER_AREA).astype(float)
    smooth = [cv2.GaussianBlur(each.astype(float), (0, 0), 3.0) for each in (coarse, box)]
    assert np.abs(smooth[0] - smooth[1]).max() < 4.0


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_soft_box_is_sharpened(scale: int) -> None:
    """A soft box gets some of the missing strength and keeps its own structures."""
    person, other = stripes(scale, 60.0, upright=True), stripes(scale, 42.0, upright=False)
    result, unchanged = (
        luma_of(box_with_detail(drawn(other), stored(each, scale), ALL, ALL, each + 100.0)) for each in (person, 0.7 * person)
    )
    missing = strengths(person, scale)[1] - strengths(0.7 * person, scale)[1]
    assert 0.4 < (strengths(result, scale)[1] - strengths(unchanged, scale)[1]) / missing < 0.9
    mine = bands(result, scale)[1]
    alike = [np.corrcoef(mine.ravel(), bands(each, scale)[1].ravel())[0, 1] for each in (other, person)]
    assert alike[0] > 0.95
    assert alike[1] < 0.3


def test_sharp_box_stays() -> None:
    """A box that is sharp enough is not softened."""
    own, soft = stripes(2, 60.0, upright=True), stripes(2, 20.0, upright=True)
    result = luma_of(box_with_detail(drawn(own), stored(soft, 2), ALL, ALL, soft + 100.0))
    assert strengths(result, 2)[1] == pytest.approx(strengths(own, 2)[1], rel=0.15)


def test_sharp_person_keeps_soft_video() -> None:
    """A sharp person does not make a soft video sharp."""
    box, person = drawn(0.25 * noise(2, 80.0)), noise(2, 80.0)
    sharp, soft = (luma_of(box_with_detail(box, stored(person, 2), ALL, ALL, own + 100.0)) for own in (person, 0.25 * person))
    assert strengths(sharp, 2)[0] == pytest.approx(strengths(person, 2)[0], rel=0.1)
    assert strengths(soft, 2)[0] == pytest.approx(0.25 * strengths(person, 2)[0], rel=0.15)
    assert strengths(soft, 2)[1] < 0.3 * strengths(person, 2)[1]


def test_soft_person_is_sharpened_little() -> None:
    """A soft person gets a little of what a sharp video has more."""
    box, person = drawn(0 * noise(2, 80.0)), noise(2, 40.0)
    result = luma_of(box_with_detail(box, stored(person, 2), ALL, ALL, 4.0 * person + 100.0))
    assert 1.15 < strengths(result, 2)[0] / strengths(person, 2)[0] < 1.35


def test_lips_do_not_change_detail() -> None:
    """The lips of the video do not change the detail."""
    box, person = drawn(0 * noise(1, 80.0)), noise(1, 40.0)
    skin = ALL.copy()
    skin[40:120, 40:120] = 0
    shouting = person + 100.0
    shouting[44:116, 44:116] *= 8.0
    same = [box_with_detail(box, stored(person, 1), ALL, skin, own) for own in (person + 100.0, shouting)]
    np.testing.assert_allclose(same[0].astype(int), same[1].astype(int), atol=1)


def test_zero_detail_removes_fine_band() -> None:
    """No detail leaves the box without its fine band."""
    box = np.repeat(np.random.default_rng(3).integers(60, 200, (160, 160, 1)).astype(np.uint8), 3, axis=-1)
    nothing = np.full((160, 160), NO_DETAIL, np.uint8)
    result = box_with_detail(box, nothing, ALL, ALL, np.full((160, 160), 99.0, np.float32))
    assert strengths(luma_of(result), 1)[0] < 0.5 * strengths(luma_of(box), 1)[0]


def test_skin_excludes_both_lips() -> None:
    """Skin is the mask without the lips of both mouths."""
    mask = np.full((160, 160), 200, np.uint8)
    turn = np.linspace(0, 2 * np.pi, len(LIPS_OUTER), endpoint=False)
    mouths = []
    for middle in (60.0, 90.0):
        mouth = np.zeros((NUM_MOUTH_AREA, 2), np.float32)
        mouth[: len(LIPS_OUTER)] = np.stack([80 + 30 * np.cos(turn), middle + 12 * np.sin(turn)], 1)
        mouths.append(mouth)
    skin = skin_under(mask, *mouths)
    assert skin[60, 80] == skin[90, 80] == skin[60, 52] == 0
    assert skin[30, 80] == skin[130, 80] == skin[75, 30] == 200
    assert (mask == 200).all()


@pytest.mark.parametrize(("name", "black", "white"), [("yuv420p", 0, 219), ("yuv420p10le", 0, 876), ("gbrp", 0, 255)])
def test_luma_scale_is_255(name: str, black: int, white: int) -> None:
    """The luma of a frame is read on a scale of 255."""
    pixel = pixel_format(name)
    model = colour_model(pixel, ColourTags(matrix=0 if name == "gbrp" else 1, color_range=2 if name == "gbrp" else 1), 64, 64)
    plane = np.full((64, 64), black, pixel.dtype)
    plane[:, 32:] = white
    seen = luma_under_box(plane, pixel.bits, model, np.array([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]), 120)
    assert seen[5, 5] == pytest.approx(0.0)
    assert seen[5, 115] == pytest.approx(255.0, rel=1e-3)
