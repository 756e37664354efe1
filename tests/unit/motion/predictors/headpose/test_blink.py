"""The schedule of blinks."""

from __future__ import annotations

import numpy as np

from services.motion.predictors.headpose.blink import CLOSURE, SPAN_FRAMES, blink_start, blinks


def test_eyes_blink_once_in_about_four_seconds() -> None:
    closure = blinks(np.arange(25 * 120))
    begins = np.flatnonzero((closure[1:] > 0) & (closure[:-1] == 0)) + 1
    assert len(begins) == 30
    gaps = np.diff(begins) / 25.0
    assert gaps.min() > 1.0
    assert gaps.max() < 7.0
    assert gaps.std() > 0.5
    assert 0.2 <= len(CLOSURE) / 25.0 <= 0.3
    assert closure.max() == 1.0


def test_a_blink_follows_from_its_frame_alone() -> None:
    start = blink_start(7)
    assert 7 * SPAN_FRAMES <= start < 8 * SPAN_FRAMES
    np.testing.assert_array_equal(blinks(np.arange(start, start + 7)), np.array(CLOSURE, np.float32))
    np.testing.assert_array_equal(blinks(np.arange(300))[137:], blinks(np.arange(137, 300)))
