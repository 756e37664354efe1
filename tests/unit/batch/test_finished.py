"""The seam of a finished video: an edge that stays, not one that moves, whatever its direction, size and colour."""

from __future__ import annotations

import math
import time

import cv2
import numpy as np
import pytest

from gateway.batch.finished import seam_of
from services.common.array_types import Float32

PARTS = 12
FRAMES = 6.0
_ROWS, _COLUMNS = np.mgrid[:160, :160].astype(np.float32)


def skin() -> Float32:
    """Counts of a round face."""
    face = (np.hypot(_ROWS - 70, _COLUMNS - 80) < 60).astype(np.float32)
    return np.repeat(face[None] * np.float32(FRAMES), PARTS, 0)


def totals_of(steps: list[Float32], plane: int = 0) -> Float32:
    """Sums of differences with noise of the codec, and of a step in each part."""
    rng = np.random.default_rng(7)
    noise = rng.normal(0.0, 0.002, (PARTS, 3, 160, 160)).astype(np.float32)
    for part, step in enumerate(steps):
        noise[part, plane] += cv2.GaussianBlur(step, (0, 0), 1.0)
    return noise * np.float32(FRAMES)


def edge(degrees: float, shift: float = 0.0, height: float = 0.06) -> Float32:
    """A step along a line through the face, blurred by the codec's filter."""
    angle = math.radians(degrees)
    side = (_COLUMNS - 80 - shift) * math.sin(angle) + (_ROWS - 70 - shift) * math.cos(angle)
    return np.where(side > 0, height, 0.0).astype(np.float32)


@pytest.mark.parametrize("degrees", [0, 17, 45, 90, 120])
@pytest.mark.parametrize("plane", [0, 1, 2])
def test_edge_that_stays_is_seen(degrees: float, plane: int) -> None:
    """A step of .06 gives a figure that grows with it, in every direction, in luma and in colour."""
    low, high = (seam_of(totals_of([edge(degrees, height=height)] * PARTS, plane), skin()) for height in (0.03, 0.06))
    assert high > 0.012
    assert 1.6 < high / low < 2.6


def test_edge_that_moves_is_not_a_seam() -> None:
    """The edge of a jaw that opens and closes is as steep, and lies elsewhere in each part."""
    stays = seam_of(totals_of([edge(0)] * PARTS), skin())
    moves = seam_of(totals_of([edge(0, shift=6 * math.sin(part)) for part in range(PARTS)]), skin())
    plain = seam_of(totals_of([]), skin())
    assert moves < 0.4 * stays
    assert plain < 0.1 * stays


def test_smooth_light_is_not_a_seam() -> None:
    """A light from one side changes all of the skin, and has no edge."""
    light = (0.06 * _COLUMNS / 160).astype(np.float32)
    assert seam_of(totals_of([light] * PARTS), skin()) < 0.2 * seam_of(totals_of([edge(90)] * PARTS), skin())


def test_little_skin_gives_no_figure() -> None:
    """Without skin, or with skin in few parts, nothing is measured."""
    counts = skin()
    assert math.isnan(seam_of(totals_of([]), np.zeros_like(counts)))
    counts[3:] = 0
    assert math.isnan(seam_of(totals_of([]), counts))


def test_seam_takes_little_time() -> None:
    begin = time.thread_time()
    seam_of(totals_of([edge(0)] * PARTS), skin())
    assert time.thread_time() - begin < 4, "0.3 s on a free core"
