"""Fitted expressions of enrolment frames: which frames are tracked, and what comes out for every row."""

from __future__ import annotations

import numpy as np

from gateway.dub.learn.coefficients import MAX_FITTED_FRAMES, interpolated, spans_of

FRAMES = 6


def test_neighbouring_frames_form_span() -> None:
    """Neighbouring frames are one span and far ones are not."""
    frames = np.array([3, 4, 5, 9, 40, 41], np.int64)
    assert [tuple(stretch) for stretch in spans_of(frames)] == [(3, 10, 1), (40, 42, 1)]


def test_of_long_footage_every_second_frame_is_fitted() -> None:
    (stretch,) = spans_of(np.arange(2 * MAX_FITTED_FRAMES - 10))
    assert len(range(*stretch)) <= MAX_FITTED_FRAMES
    assert stretch.step == 2


def test_missing_frames_interpolated_or_held() -> None:
    """Frames between known frames are interpolated and those outside are held."""
    values = np.array([[0.0, 1.0], [2.0, 5.0]], np.float32)
    found = interpolated(np.array([2, 4]), values, np.array([0, 2, 3, 4, 9]))
    assert found.tolist() == [[0.0, 1.0], [0.0, 1.0], [1.0, 3.0], [2.0, 5.0], [2.0, 5.0]]
