"""

Smoothing of what rests, without lag.
"""

from __future__ import annotations

import numpy as np
import pytest

from services.common.face.crops import HeadPose, head_template, to_frame
from services.common.face.landmarks import LIPS_INNER, MOUTH_AREA, NUM_LANDMARKS, mouth_opening
from services.face.smoothing import STRENGTH, RawFace, SmoothFace, movement, raw_face, smooth, window_weights

HEAD = np.concatenate([head_template(), np.zeros((NUM_LANDMARKS - 468, 3), np.float32)])
LOWER_LIP = [index for index in LIPS_INNER if HEAD[index, 1] > HEAD[LIPS_INNER[0], 1]]


def noisy_track(places):
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
    points = noisy_track(places)
    smoothed = smooth_movement(places[:, None], points)[:, 0]
    assert smoothed == pytest.approx(places, abs=1e-9)  # an average to one side alone would trail by half a frame


def test_a_fast_movement_is_left_as_it_is():
    places = np.repeat([0.0, 5.0, 0.0, 5.0], 1)
    assert smooth_movement(places[:, None], noisy_track(places))[:, 0] == pytest.approx(places)


def test_nothing_is_mixed_across_a_fast_step():
    places = np.concatenate([np.zeros(10), np.full(10, 6.0)])
    assert smooth_movement(places[:, None], noisy_track(places))[:, 0] == pytest.approx(places)


def test_weights_match_paper():
    """Weights are those of the paper on the way to each frame."""
    moved = np.array([0.1, 0.2, 0.2, 0.1])
    near, far = np.exp(-STRENGTH * 0.2), np.exp(-STRENGTH * 0.3)
    weights = window_weights(moved, 2, 2)
    assert weights == pytest.approx(np.array([far, near, 1.0, near, far]) / (1.0 + 2.0 * near + 2.0 * far))


def test_zero_width_and_ends():
    """The ends and a width of zero change nothing."""
    values = np.random.default_rng(1).normal(size=(6, 3))
    points = 0.1 * values[:, None]
    smoothed = smooth_movement(values, points)
    assert smoothed[[0, -1]] == pytest.approx(values[[0, -1]])
    assert smooth_movement(values, points, 0) == pytest.approx(values)
    assert movement(points).shape == (5,)


def turned(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]])


def track(openings: np.ndarray, noise: float = 0.0, speed: float = 0.0) -> list[RawFace]:
    """A face whose lower lip drops by `openings` [T], drifting `speed` px a frame, with white noise of `noise` crop px."""
    random = np.random.default_rng(5)
    faces = []
    for index, opening in enumerate(openings):
        head = HEAD.copy()
        head[LOWER_LIP, 1] += opening
        pose = HeadPose(1.4, turned(10.0), np.array([300.0 + speed * index, 200.0, 0.0]))
        faces.append(raw_face(to_frame(head + random.normal(0, noise, head.shape).astype(np.float32), pose)))
    return faces


def smooth_track(raw: list[RawFace], half_width: int = 3) -> list[SmoothFace]:
    """Every frame of a whole track within one shot, each from its own window."""
    firsts = [max(0, index - half_width) for index in range(len(raw))]
    return [smooth(raw[first : index + half_width + 1], index - first, half_width) for index, first in enumerate(firsts)]


def second_difference(values: np.ndarray) -> float:
    return float(np.abs(np.diff(values, n=2, axis=0)).mean())


def test_still_jitter_falls() -> None:
    """Jitter of a still face falls to a third."""
    raw = track(np.zeros(40), noise=0.1)
    smoothed = smooth_track(raw)
    before = second_difference(np.stack([to_frame(face.head_landmarks, face.pose) for face in raw])[:, :468, :2])
    after = second_difference(np.stack([face.landmarks for face in smoothed])[:, :468, :2])
    assert after < before / 3


def test_a_closure_of_three_frames_keeps_its_depth() -> None:
    openings = np.full(21, 12.0)
    openings[9:12] = [3.0, 0.0, 3.0]
    raw = track(openings, noise=0.1)
    before = mouth_opening(np.stack([face.head_landmarks for face in raw])[:, list(MOUTH_AREA)])
    after = mouth_opening(np.stack([face.head_landmarks for face in smooth_track(raw)])[:, list(MOUTH_AREA)])
    assert after[10] == pytest.approx(before[10], abs=0.3)
    assert np.corrcoef(before, after)[0, 1] > 0.999


def test_steady_drift_without_lag() -> None:
    """A steady drift comes through without lag at the ends too."""
    raw = track(np.zeros(12), speed=3.0)
    places = [face.pose.translation[0] for face in smooth_track(raw)]
    np.testing.assert_allclose(places, [face.pose.translation[0] for face in raw], atol=0.05)


def test_half_width_zero_leaves_the_measurement() -> None:
    raw = track(np.linspace(0, 5, 7), noise=0.2)
    np.testing.assert_array_equal(smooth(raw, 3, 0).head_landmarks, raw[3].head_landmarks)


def test_landmarks_are_the_shape_under_the_smoothed_pose() -> None:
    face = smooth(track(np.zeros(7), noise=0.2), 3, 3)
    np.testing.assert_array_equal(face.landmarks, to_frame(face.head_landmarks, face.pose))
    np.testing.assert_allclose(face.pose.rotation @ face.pose.rotation.T, np.eye(3), atol=1e-12)


def test_a_frame_depends_on_its_window_alone() -> None:
    raw = track(np.linspace(0, 9, 15), noise=0.2)
    whole = smooth_track(raw, 3)[7]
    alone = smooth(raw[4:11], 3, 3)
    np.testing.assert_array_equal(whole.landmarks, alone.landmarks)
