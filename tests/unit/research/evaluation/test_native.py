"""Fine detail of the mouth on the footage's own pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gateway.dub.state.native_boxes import native_luma
from research.evaluation.clip import FootagePatch, finished_box, footage_patch
from services.common.face.crops import HeadPose
from services.common.face.mouth_detail import NO_DETAIL, detail_of

ALL = np.full((160, 160), 255, np.uint8)
NOWHERE = np.zeros((160, 160), np.uint8)
NO_PICTURE = np.empty((0, 0), np.uint8)


def video(seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed).integers(0, 256, (900, 900)).astype(np.uint8)
    return cv2.GaussianBlur(random, (0, 0), 1.0)


def head(footage_scale: float, x: float = 450.3, y: float = 400.4) -> HeadPose:
    angle = np.radians(4.0)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0.0], [np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, 1.0]])
    return HeadPose(footage_scale, rotation, np.array([x, y, 0.0]))


def real(footage_scale: float, scale: int) -> tuple[FootagePatch, np.ndarray]:
    """The video's pixels around a mouth, and the luma of its render box."""
    pose = head(footage_scale)
    return footage_patch(video(), pose, scale), native_luma(video(), pose, scale)


@pytest.mark.parametrize(("footage_scale", "scale"), [(0.9, 1), (1.1, 1), (1.7, 2), (2.1, 2), (2.5, 3)])
def test_own_box_keeps_finest_detail(footage_scale: float, scale: int) -> None:
    """The box is resampled twice: from the video, and into the video. Linear interpolation would leave .5 to .8 of the energy."""
    patch, luma = real(footage_scale, scale)
    assert patch.energy_of(luma.astype(np.float32), ALL) == pytest.approx(patch.energy(), rel=0.2)
    soft = cv2.GaussianBlur(luma.astype(np.float32), (0, 0), 1.5 * scale / footage_scale)
    assert patch.energy_of(soft, ALL) < 0.2 * patch.energy()


def test_patch_has_own_pixels() -> None:
    """The patch is of the video's own pixels."""
    patch, luma = real(1.7, 2)
    assert patch.mouth.sum() == pytest.approx(104 * 80 * 1.7**2, rel=0.02)
    assert cv2.matchTemplate(video(), patch.luma, cv2.TM_SQDIFF).min() == 0.0
    back = cv2.warpAffine(luma, patch.from_native, patch.luma.shape[::-1], flags=cv2.INTER_CUBIC)
    assert np.abs(back.astype(float) - patch.luma)[patch.mouth].mean() < 6.0


def test_combs_are_no_detail() -> None:
    """Combs of fields that lie two pixels apart do not count as fine structure of the real mouth."""
    soft = cv2.GaussianBlur(video().astype(np.float32), (0, 0), 2.0)
    still = np.clip(128 + 4 * (soft - 128), 0, 255).astype(np.uint8)
    combed = still.copy()
    combed[1::2] = np.roll(still, 2, axis=1)[1::2]
    energies = [footage_patch(luma, head(1.7), 2).energy() for luma in (still, combed)]
    assert energies[1] == pytest.approx(energies[0], rel=0.5)
    bands = [luma - cv2.GaussianBlur(luma.astype(np.float32), (0, 0), 1.0) for luma in (still, combed)]
    assert np.square(bands[1]).mean() > 4 * np.square(bands[0]).mean()


def test_detail_outside_the_mouth_does_not_count() -> None:
    patch, luma = real(1.7, 2)
    other = luma.copy()
    other[:20], other[:, :20] = 0, 0
    assert patch.energy_of(other.astype(np.float32), ALL) == patch.energy_of(luma.astype(np.float32), ALL)


def test_no_mask_keeps_video() -> None:
    """Without a mask, the video is unchanged."""
    patch, luma = real(1.7, 2)
    assert patch.energy_of(np.zeros(luma.shape, np.float32), NOWHERE) == patch.energy()


def test_mouth_outside_frame_no_energy() -> None:
    """A mouth outside of the frame has no energy."""
    patch = footage_patch(video(), head(1.7, x=-900.0), 2)
    assert np.isnan(patch.energy())
    assert np.isnan(patch.energy_of(np.zeros((320, 320), np.float32), ALL))


def test_detailed_box_finer_at_sizes() -> None:
    """A box with detail is finer at both sizes."""
    patch, own = real(1.7, 2)
    box = cv2.resize(np.repeat(own[..., None], 3, -1), (160, 160), interpolation=cv2.INTER_AREA)
    box = cv2.GaussianBlur(box, (0, 0), 1.0)
    detail = np.clip(np.rint(detail_of(own.astype(np.float32), 2) + NO_DETAIL), 0, 255).astype(np.uint8)
    plain, fine = (finished_box(box, ALL, ALL, each, own) for each in (NO_PICTURE, detail))
    assert patch.energy_of(fine[1], ALL) == pytest.approx(patch.energy(), rel=0.2)
    assert patch.energy_of(plain[1], ALL) < 0.3 * patch.energy()
    assert fine[0].std() > plain[0].std()
