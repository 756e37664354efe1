"""Signs that follow from the picture: the same for the same face, others for other faces, and untouched by a dubbed mouth."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from gateway.provenance.watermark.pattern import PIXELS, ContentSigns, RecentMean, at_first_frames, reduced
from gateway.provenance.watermark.payload import watermark_key
from services.common.array_types import Float64, Int64, UInt8

CONTENT = ContentSigns.of_key(watermark_key(b"an installation"))
STEPS = range(64)


@pytest.fixture(scope="module")
def woman(astronaut: Path) -> UInt8:
    """The luma of a render box, uint8 [160, 160]."""
    picture = cv2.imread(str(astronaut), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    return np.asarray(cv2.resize(picture[90:260, 140:310], (160, 160), interpolation=cv2.INTER_AREA), np.uint8)


@pytest.fixture(scope="module")
def man(carphone: Path) -> UInt8:
    """The luma of a render box, uint8 [160, 160]."""
    with av.open(str(carphone)) as video:
        frame = next(video.decode(video=0)).to_ndarray(format="gray8")
    return np.asarray(cv2.resize(frame[40:115, 50:125], (160, 160), interpolation=cv2.INTER_CUBIC), np.uint8)


def signs(luma: UInt8, content: ContentSigns = CONTENT) -> Float64:
    return np.array([content.of_chips(reduced(luma), step) for step in STEPS])


def agreement(one: UInt8, other: UInt8) -> float:
    """Mean product of the signs: 1 for equal signs, 0 for signs that have nothing to do with each other."""
    return float((signs(one) * signs(other)).mean())


def test_signs_survive_degradation(woman: UInt8) -> None:
    """Most signs outlast noise blur gamma and less pixels."""
    noisy = np.clip(woman + np.random.default_rng(0).normal(0.0, 4.0, woman.shape), 0, 255).astype(np.uint8)
    blurred = np.asarray(cv2.GaussianBlur(woman, (0, 0), 2.0), np.uint8)
    darker = (255.0 * (woman / 255.0) ** 1.25).astype(np.uint8)
    half = np.asarray(cv2.resize(cv2.resize(woman, (80, 80), interpolation=cv2.INTER_AREA), (160, 160)), np.uint8)
    moved = np.asarray(np.roll(woman, (1, 1), (0, 1)), np.uint8)
    for changed in (noisy, blurred, darker, half, moved):
        assert agreement(woman, changed) > 0.75


def test_dubbed_mouth_changes_no_signs(woman: UInt8) -> None:
    """A dubbed mouth changes no sign that the mouth does not reach."""
    dubbed = woman.copy()
    dubbed[55:85, 60:100] //= 2
    assert agreement(woman, dubbed) > 0.9


def test_other_faces_and_other_keys_have_other_signs(woman: UInt8, man: UInt8) -> None:
    assert abs(agreement(woman, man)) < 0.15
    other = ContentSigns.of_key(watermark_key(b"another installation"))
    assert abs(float((signs(woman) * signs(woman, other)).mean())) < 0.05


def test_brightness_and_contrast_decide_nothing(woman: UInt8) -> None:
    assert np.abs(CONTENT.patterns.sum(1)).max() < 0.005 * np.abs(CONTENT.patterns).sum(1).min()
    flat = (60 + woman // 2).astype(np.uint8)
    assert agreement(woman, flat) > 0.9


def test_search_factors_match_signs(woman: UInt8) -> None:
    """The factors of the search have the signs of the chips."""
    soft = CONTENT.soft(reduced(woman)[None])
    steps: Int64 = np.arange(64)
    weights = CONTENT.weights(np.repeat(soft, 64, 0), steps)
    assert np.array_equal(np.sign(weights), signs(woman))
    assert np.abs(weights).max() <= 1.0


def test_last_moments_at_any_rate() -> None:
    """The last moments follow the picture at any frame rate."""
    black, white = np.zeros(PIXELS, np.uint8), np.full(PIXELS, 200, np.uint8)
    after = []
    for rate in (25.0, 50.0):
        moments = RecentMean()
        assert moments.with_frame(0.0, black)[0] == 0
        means = [moments.with_frame(number / rate, white)[0] for number in range(1, int(rate))]
        assert means[0] < 40
        after.append(int(means[-1]))
    assert after[0] == pytest.approx(after[1], abs=2)
    assert after[0] > 160


def test_first_frame_decides_sign() -> None:
    """The first frame of a chip decides about its sign."""
    seconds = np.arange(20) / 25.0
    pictures = np.repeat(np.arange(20, dtype=np.uint8)[:, None], PIXELS, 1)
    # The bump of a chip whose middle is at 0.4 s begins at 0.2 s, which is frame 5.
    assert at_first_frames(seconds, pictures, np.array([0.0, 0.2, 0.4, 0.44, 9.0]))[:, 0].tolist() == [0, 0, 5, 6, 19]
