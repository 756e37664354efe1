from __future__ import annotations

import numpy as np
import pytest

from gateway.compositing.blend import blend_box, laplacian_blend, match_colour, support_weight
from services.common.errors import ContractBrokenError

ROWS, COLUMNS = np.mgrid[:160, :160]
RADIUS = np.hypot(COLUMNS - 80, ROWS - 80)
MASK = np.clip((60 - RADIUS) / 12, 0, 1).astype(np.float32)


def _skin(seed: int = 0, light: float = 0.0) -> np.ndarray:
    """A picture like skin: one colour, a light from the right, fine noise; float32 [160, 160, 3]."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 4, (160, 160, 1))
    return np.clip(np.array([190.0, 140.0, 120.0]) + noise + light * (COLUMNS[..., None] - 80) / 80, 0, 255).astype(np.float32)


def test_nothing_reaches_beyond_the_mask() -> None:
    original = _skin()
    blended = laplacian_blend(255 - original, original, MASK)
    np.testing.assert_array_equal(blended[MASK == 0], original[MASK == 0])


def test_the_render_shows_inside() -> None:
    original, rendered = _skin(0), _skin(1)
    rendered[60:100, 60:100] = 30.0
    blended = laplacian_blend(rendered, original, MASK)
    np.testing.assert_allclose(blended[70:90, 70:90], rendered[70:90, 70:90], atol=4)


def test_equal_pictures_stay_equal() -> None:
    original = _skin()
    np.testing.assert_allclose(laplacian_blend(original, original, MASK), original, atol=1e-3)


def test_a_seam_is_softer_than_with_plain_pasting() -> None:
    original = _skin()
    rendered = np.clip(original + 20, 0, 255).astype(np.float32)
    hard = (RADIUS < 55).astype(np.float32)
    blended = laplacian_blend(rendered, original, hard)
    pasted = np.where(hard[..., None] > 0, rendered, original)

    def steepest(picture: np.ndarray) -> float:
        return float(np.abs(np.diff((picture - original)[..., 0], axis=1)).max())

    assert steepest(blended) < 0.6 * steepest(pasted)


def test_the_same_input_gives_the_same_bytes() -> None:
    original, rendered = _skin(0), _skin(1)
    first = laplacian_blend(match_colour(rendered, original, MASK >= 1, MASK), original, MASK)
    second = laplacian_blend(match_colour(rendered, original, MASK >= 1, MASK), original, MASK)
    assert first.tobytes() == second.tobytes()


def test_support_weight_range() -> None:
    """The weight of the support rises from 0 to 1."""
    weight = support_weight(MASK)
    assert (weight[MASK == 0] == 0).all()
    assert (weight[RADIUS < 50] == 1).all()


def test_brightness_contrast_and_a_side_light_are_matched() -> None:
    original = _skin(0, light=30.0)
    rendered = np.clip((_skin(0) - 128) * 0.9 + 110, 0, 255).astype(np.float32)
    inner = (RADIUS < 40).astype(np.float32)
    matched = match_colour(rendered, original, inner, MASK)
    ring = (MASK > 0) & (inner == 0)
    before, after = (np.abs((picture - original)[ring]).mean() for picture in (rendered, matched))
    assert after < 0.25 * before
    left, right = (np.abs((matched - original)[ring & side].mean()) for side in (COLUMNS < 60, COLUMNS > 100))
    assert max(left, right) < 4


def test_opened_mouth_keeps_ring_colours() -> None:
    """An opened mouth in the ring does not pull the colours."""
    original, rendered = _skin(0), _skin(0)
    inner = (RADIUS < 40).astype(np.float32)
    original[125:135, 70:90] = 20.0  # a dark tenth of the ring that the render does not have
    matched = match_colour(rendered, original, inner, MASK)
    assert np.abs((matched - rendered)[inner > 0]).mean() < 1.0


@pytest.mark.parametrize("change", [-15.0, 15.0])
def test_lower_footage_jaw_keeps_chin(change: float) -> None:
    """A jaw that hangs lower in the footage does not change the chin."""
    original, rendered = _skin(0), _skin(1)
    inner = (RADIUS < 40).astype(np.float32)
    original[(ROWS >= 100) & (RADIUS >= 40)] += change
    matched = match_colour(rendered, original, inner, MASK)
    assert np.abs((matched - rendered)[inner > 0]).mean() < 1.0


def test_masked_cheek_has_footage_light() -> None:
    """A cheek under the mask has the light of the footage."""
    original = _skin(0).astype(np.uint8)
    light = 12.0 * np.exp(-(((COLUMNS - 24) / 20.0) ** 2))[..., None]
    rendered = np.clip(_skin(1) + light, 0, 255).astype(np.uint8)
    rim = np.clip(np.minimum(COLUMNS - 4, 156 - COLUMNS) / 6.0, 0.0, 1.0)
    blended = blend_box(rendered, original, (255 * rim).astype(np.uint8))

    def error(picture: np.ndarray) -> float:
        return float(np.abs((picture.astype(float) - original)[50:90, 14:32].mean(axis=(0, 2))).mean())

    assert error(blended) < 0.25 * error(rendered)


def test_without_a_ring_nothing_is_changed() -> None:
    rendered = _skin(1)
    np.testing.assert_array_equal(match_colour(rendered, _skin(0), MASK, MASK), rendered)


def test_shapes_must_match() -> None:
    with pytest.raises(ContractBrokenError):
        laplacian_blend(_skin(), _skin()[:100], MASK)
    with pytest.raises(ContractBrokenError):
        match_colour(_skin(), _skin(), MASK[:100], MASK)
