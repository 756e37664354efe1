"""Smoothing of what rests, without lag."""

import numpy as np
import pytest

from services.face.temporal_smoothing import movement, window_weights


def track(places):
    """Five points [T, 5, 2] that move together along x."""
    return np.repeat(np.stack([places, np.zeros_like(places)], -1)[:, None], 5, axis=1)


def smooth_movement(values, points, half_width=3):
    """Values [T, K] smoothed where points [T, N, D] hardly move, each frame from its own window."""
    moved = movement(points)
    result = np.empty_like(values, np.float64)
    for frame in range(len(values)):
        first = max(0, frame - half_width)
        window = values[first : frame + half_width + 1]
        result[frame] = window_weights(moved[first : first + len(window) - 1], frame - first, half_width) @ window
    return result


def test_noise_of_a_resting_mouth_shrinks():
    noise = 0.13 * np.random.default_rng(0).normal(size=(200, 5, 2))
    smoothed = smooth_movement(noise.reshape(200, -1), noise)
    assert np.diff(smoothed, axis=0).std() < 0.5 * np.diff(noise, axis=0).std()


def test_a_slow_movement_is_not_delayed():
    places = 0.4 * np.arange(40.0)
    points = track(places)
    smoothed = smooth_movement(places[:, None], points)[:, 0]
    assert smoothed == pytest.approx(places, abs=1e-9)  # an average to one side alone would trail by half a frame


def test_a_fast_movement_is_left_as_it_is():
    places = np.repeat([0.0, 5.0, 0.0, 5.0], 1)
    assert smooth_movement(places[:, None], track(places))[:, 0] == pytest.approx(places)


def test_nothing_is_mixed_across_a_fast_step():
    places = np.concatenate([np.zeros(10), np.full(10, 6.0)])
    assert smooth_movement(places[:, None], track(places))[:, 0] == pytest.approx(places)


def test_weights_are_those_of_the_paper_on_the_way_to_each_frame():
    moved = np.array([0.1, 0.2, 0.2, 0.1])
    near, far = np.exp(-2.0 * 0.2), np.exp(-2.0 * 0.3)
    weights = window_weights(moved, 2, 2, strength=2.0)
    assert weights == pytest.approx(np.array([far, near, 1.0, near, far]) / (1.0 + 2.0 * near + 2.0 * far))


def test_the_ends_and_a_width_of_zero_change_nothing():
    values = np.random.default_rng(1).normal(size=(6, 3))
    points = 0.1 * values[:, None]
    smoothed = smooth_movement(values, points)
    assert smoothed[[0, -1]] == pytest.approx(values[[0, -1]])
    assert smooth_movement(values, points, 0) == pytest.approx(values)
    assert movement(points).shape == (5,)
