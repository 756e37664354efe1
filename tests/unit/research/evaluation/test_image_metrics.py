from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from research.evaluation import measures as metrics


def picture(height: int = 256, width: int = 256, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(128, 60, (height, width, 3)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 2.5) * 4 - 384, 0, 255).astype(np.uint8)


def noisy(of: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(9).normal(0, sigma, of.shape)
    return np.clip(of.astype(np.float32) + noise, 0, 255).astype(np.uint8)


def test_psnr_of_one_level() -> None:
    """PSNR of a constant error of one level is 48 13 dB."""
    grey = np.full((20, 20, 3), 100, np.uint8)
    assert metrics.psnr_db(grey, grey + 1) == pytest.approx(48.1308, abs=1e-3)


def test_equal_pictures_reach_the_ceilings() -> None:
    face = picture()
    assert metrics.psnr_db(face, face) == metrics.PSNR_CEILING_DB
    assert metrics.ssim(face, face) == pytest.approx(1.0, abs=1e-6)
    assert metrics.similarities(face, face) == pytest.approx((1.0, 1.0), abs=1e-6)
    assert metrics.photometric_error(face, face) == 0.0


def skimage_ssim(a: np.ndarray, b: np.ndarray) -> float:
    options: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    return float(structural_similarity(a, b, channel_axis=2, **options))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("sigma", [5.0, 25.0])
def test_ssim_agrees_with_scikit_image(sigma: float) -> None:
    face = picture(80, 104)
    other = noisy(face, sigma)
    assert metrics.ssim(face, other) == pytest.approx(skimage_ssim(face, other), abs=2e-4)


def test_ms_ssim_agrees_with_torchmetrics() -> None:
    import torch
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    face = picture()
    other = noisy(face, 20.0)
    a, b = (torch.from_numpy(p.astype(np.float32)).permute(2, 0, 1)[None] for p in (face, other))
    wanted = float(multiscale_structural_similarity_index_measure(a, b, data_range=255.0))
    assert metrics.similarities(face, other).ms_ssim == pytest.approx(wanted, abs=2e-3)
    assert metrics.similarities(face, other).ssim == pytest.approx(metrics.ssim(face, other))


def test_mouth_box_size_and_anchor() -> None:
    """Mouth box is 80 by 104 about the anchor of the crop."""
    crops = np.zeros((2, 256, 256, 3), np.uint8)
    crops[:, 160, 128] = 255
    box = metrics.mouth_box(crops)
    assert box.shape == (2, 80, 104, 3)
    assert box[0, 40, 52, 0] == 255
    assert int((box > 0).sum()) == 2 * 3


def test_blur_lowers_gradient_energy() -> None:
    """Blur lowers gradient energy and a ramp has a known one."""
    face = picture()
    blurred = np.asarray(cv2.GaussianBlur(face, (0, 0), 3), np.uint8)
    assert metrics.gradient_energy(blurred) < 0.5 * metrics.gradient_energy(face)
    ramp = np.repeat(np.arange(0, 200, 2, dtype=np.uint8)[None, :, None], 40, axis=0).repeat(3, axis=2)
    inner = (2 * 8) ** 2  # Sobel weights sum to 8 over a step of 2 levels a pixel
    assert metrics.gradient_energy(ramp) == pytest.approx(inner * 98 / 100, rel=1e-6)


def test_photometric_error_is_the_euclidean_distance_of_colours() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    colour = np.broadcast_to(np.array([3, 4, 12], np.uint8), (4, 4, 3))
    assert metrics.photometric_error(black, colour) == pytest.approx(13.0)


def test_mean_absolute_difference_counts_both_directions() -> None:
    before = np.full((2, 2, 3), 100, np.uint8)
    after = before.copy()
    after[0], after[1] = 110, 96
    assert metrics.mean_absolute_difference(before, after) == pytest.approx(7.0)


def test_skin_difference_region() -> None:
    """The difference of the skin leaves out the mouth and all beyond the render box."""
    before = picture(256, 256)
    after = before.copy()
    metrics.mouth_box(after)[:] = 0
    after[:96], after[:, :48], after[:, 208:] = 0, 0, 0
    assert metrics.skin_difference(before, after) == 0.0
    after[96:256, 48:208] = before[96:256, 48:208]
    after[230:250, 60:200] = np.where(before[230:250, 60:200] < 128, before[230:250, 60:200] + 5, before[230:250, 60:200] - 5)
    assert metrics.skin_difference(before, after) == pytest.approx(5.0 * 20 * 140 / (160 * 160 - 80 * 104))


@pytest.mark.parametrize("corner", [(0, 0), (40, 60), (62, 96)])
def test_ssim_of_local_change(corner: tuple[int, int]) -> None:
    """SSIM of a local change agrees with scikit image."""
    face = picture(80, 104)
    other = face.copy()
    other[corner[0] : corner[0] + 18, corner[1] : corner[1] + 8] //= 2
    assert metrics.ssim(face, other) == pytest.approx(skimage_ssim(face, other), abs=1e-4)
