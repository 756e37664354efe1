"""The mark is weak where a large face rests, and strong where the face moves or is small."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gateway.provenance.watermark.embedding import LEAST, Strength
from services.common.array_types import UInt8

LARGE = 3.0


@pytest.fixture(scope="module")
def box(astronaut: Path) -> UInt8:
    """The render box of a real portrait, uint8 RGB [160, 160, 3]."""
    picture = cv2.imread(str(astronaut))
    assert picture is not None
    return np.asarray(cv2.resize(picture[60:300, 120:360, ::-1], (160, 160), interpolation=cv2.INTER_AREA), np.uint8)


def strengths(boxes: list[UInt8], *, rate: float = 25.0, scale: float = LARGE) -> list[float]:
    strength = Strength()
    return [strength.of_frame(number / rate, box, scale) for number, box in enumerate(boxes)]


def swaying(box: UInt8, px: float, seconds: float, rate: float = 25.0) -> list[UInt8]:
    times = np.arange(int(seconds * rate)) / rate
    moves = [np.array([[1.0, 0.0, px * np.sin(15.0 * time)], [0.0, 1.0, 0.0]]) for time in times]
    return [np.asarray(cv2.warpAffine(box, move, (160, 160), borderMode=cv2.BORDER_REPLICATE), np.uint8) for move in moves]


def test_large_resting_face_least_strength(box: UInt8) -> None:
    """A large face that rests has the least strength."""
    noise = np.random.default_rng(0).normal(0.0, 3.0, (50, *box.shape))
    assert set(strengths([np.rint(box + more).clip(0, 255).astype(np.uint8) for more in noise])) == {LEAST}


def test_small_face_full_strength(box: UInt8) -> None:
    """A small face has the full strength even if it rests."""
    assert set(strengths([box] * 10, scale=0.9)) == {1.0}
    assert strengths([box] * 10, scale=1.2)[-1] == pytest.approx(1.2**-2, abs=0.01)


def test_strength_follows_motion(box: UInt8) -> None:
    """The strength grows with the motion of the face and falls when the face rests."""
    slight, strong = (strengths(swaying(box, px, 2.0))[-1] for px in (4.0, 12.0))
    assert LEAST < slight < strong <= 1.0
    after = strengths([*swaying(box, 12.0, 2.0), *([box] * 100)])
    assert after[-1] == LEAST


def test_the_frame_rate_hardly_matters(box: UInt8) -> None:
    slow, fast = (strengths(swaying(box, 5.0, 2.0, rate), rate=rate)[-1] for rate in (25.0, 50.0))
    assert slow == pytest.approx(fast, abs=0.1)


def test_cut_raises_strength_briefly(box: UInt8) -> None:
    """A cut raises the strength for a moment only."""
    cut = strengths([*([box] * 50), *([255 - box] * 75)])
    assert cut[49] == LEAST
    assert cut[-1] == LEAST
