from __future__ import annotations

import cv2
import numpy as np
import pytest

from services.common.face.sampling import sample_patch


def similarity(scale: float, x: float, y: float, size: int) -> np.ndarray:
    """Picture point (x, y) lands on the middle of a patch of `size`."""
    middle = (size - 1) / 2
    return np.array([[scale, 0, middle - scale * x], [0, scale, middle - scale * y]])


def ramp(height: int, width: int) -> np.ndarray:
    """Red is x / 4, green y / 4, to 1/255."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([x / 4, y / 4, 0 * x], axis=-1).round().astype(np.uint8)


@pytest.mark.parametrize("scale", [1.7, 1.0, 0.8, 0.5, 0.3, 0.12])
def test_patch_centre_is_requested_point(scale: float) -> None:
    """The middle of the patch is the place asked for."""
    patch = sample_patch(ramp(900, 1000), similarity(scale, 501.3, 403.7, 65), (65, 65))
    assert patch[32, 32, 0] == pytest.approx(501.3 / 4, abs=1.0)
    assert patch[32, 32, 1] == pytest.approx(403.7 / 4, abs=1.0)


def test_the_identity_changes_nothing() -> None:
    picture = np.random.default_rng(3).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    np.testing.assert_array_equal(sample_patch(picture, np.eye(2, 3), (50, 40)), picture)


@pytest.mark.parametrize("scale", [0.6, 0.4, 0.2])
def test_fine_stripes_turn_gray_instead_of_aliasing(scale: float) -> None:
    picture = np.zeros((600, 600, 3), np.uint8)
    picture[:, ::2] = 255
    patch = sample_patch(picture, similarity(scale, 300, 300, 60), (60, 60))
    assert np.abs(patch.astype(float) - 127.5).max() < 45


def test_a_moving_patch_does_not_jump() -> None:
    picture = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 255, (500, 500, 3)).astype(np.uint8), (0, 0), 2)
    steps = [sample_patch(picture, similarity(0.45, 250 + 0.05 * step, 250, 64), (64, 64)).astype(float) for step in range(40)]
    changes = [np.abs(after - before).mean() for before, after in zip(steps, steps[1:], strict=False)]
    assert max(changes) < 1.0


def test_beyond_the_border_edges_are_repeated() -> None:
    picture = np.full((50, 50, 3), 80, np.uint8)
    assert (sample_patch(picture, similarity(0.5, -400, -400, 32), (32, 32)) == 80).all()
