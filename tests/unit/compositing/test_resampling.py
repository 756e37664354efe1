"""Pictures and weights of the render box at the samples of a plane."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gateway.compositing.resampling import picture_at, weight_at


def grain(size: int = 200) -> np.ndarray:
    random = np.random.default_rng(3).normal(128.0, 40.0, (size, size)).astype(np.float32)
    return cv2.GaussianBlur(random, (0, 0), 1.0)


def finest(picture: np.ndarray) -> float:
    inner = (picture - cv2.GaussianBlur(picture, (0, 0), 1.0))[20:-20, 20:-20]
    return float(np.square(inner).mean())


def similarity(scale: float, x: float = 0.37, y: float = 0.61) -> np.ndarray:
    return np.array([[scale, 0.05 * scale, x], [-0.05 * scale, scale, y]])


@pytest.mark.parametrize("scale", [0.8, 1.0, 1.3])
def test_structures_of_a_few_samples_keep_their_strength(scale: float) -> None:
    picture = cv2.GaussianBlur(grain(), (0, 0), 1.0 / scale)
    shape = (round(170 * scale), round(170 * scale))
    moved = picture_at(picture, similarity(scale), shape)
    back = picture_at(moved, cv2.invertAffineTransform(similarity(scale)), (160, 160))
    assert finest(back) == pytest.approx(finest(picture[:160, :160]), rel=0.12)


def test_a_picture_at_its_own_samples_is_the_same() -> None:
    np.testing.assert_allclose(picture_at(grain(), np.eye(2, 3), (200, 200)), grain(), atol=1e-3)


def test_a_picture_that_is_reduced_much_shows_no_false_patterns() -> None:
    lines = np.tile(np.float32([0, 0, 255, 255]), (400, 100))
    assert np.ptp(picture_at(lines, np.array([[0.26, 0, 0], [0, 0.26, 0]]), (100, 100))[5:-5, 5:-5]) < 0.35 * 255


def test_weights_end_at_the_border_and_stay_within_their_range() -> None:
    weight = np.ones((50, 50), np.float32)
    found = weight_at(weight, np.array([[1, 0, 10.5], [0, 1, 10.5]], float), (80, 80))
    assert found[30, 30] == 1.0
    assert found[:10].max() == found[:, 62:].max() == 0.0
    assert 0.0 <= found.min() <= found.max() <= 1.0


def test_offsets_have_two_channels() -> None:
    assert weight_at(np.ones((50, 50, 2), np.float32), np.eye(2, 3), (50, 50)).shape == (50, 50, 2)
