"""Turning points of head motion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.texture.backgrounds.keyframes import MAX_DISTANCE, MIN_DISTANCE, keyframes_of, turning_points


def motion(*, yaw: np.ndarray, noise: float = 0.0) -> np.ndarray:
    angles = np.stack([np.zeros(len(yaw)), yaw, np.zeros(len(yaw))], 1)
    return angles + noise * np.random.default_rng(5).standard_normal(angles.shape) if noise else angles


def test_a_swinging_head_turns_where_it_is_farthest() -> None:
    time = np.arange(200)
    found = keyframes_of(motion(yaw=0.1 * np.sin(2 * np.pi * time / 50.0)))
    turns = [12.5, 37.5, 62.5, 87.5, 112.5, 137.5, 162.5]
    assert [found[0], found[-1]] == [0, 199]
    assert all(np.abs(found - turn).min() <= 1 for turn in turns)
    assert len(found) <= len(turns) + 3


def test_trembling_makes_no_keyframes() -> None:
    time = np.arange(300)
    slow = 0.2 * np.sin(2 * np.pi * time / 150.0)
    assert len(keyframes_of(motion(yaw=slow, noise=0.004))) <= len(keyframes_of(motion(yaw=slow))) + 2


def test_a_still_head_has_keyframes_at_even_distances() -> None:
    found = keyframes_of(np.zeros((121, 3)))
    np.testing.assert_array_equal(found, [0, 40, 80, 120])


def test_nods_count_as_turns_do() -> None:
    angles = np.zeros((100, 3))
    angles[:, 0] = 0.1 * np.sin(2 * np.pi * np.arange(100) / 100.0)
    found = keyframes_of(angles)
    assert np.abs(found - 25).min() <= 1
    assert np.abs(found - 75).min() <= 1


@given(seed=st.integers(0, 10_000), count=st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_distances_are_bounded_both_ways(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    angles = np.cumsum(random.standard_normal((count, 3)), axis=0) * random.random()
    found = keyframes_of(angles)
    assert len(set(found.tolist())) == len(found)
    if count:
        assert [found[0], found[-1]] == [0, count - 1]
        gaps = np.diff(found)
        assert (gaps <= MAX_DISTANCE).all()
        assert count <= MIN_DISTANCE or (gaps >= MIN_DISTANCE).all()


def test_turning_points_know_their_size() -> None:
    line = np.array([0.0, 3.0, 1.0, 5.0, 4.9, 5.0, -2.0])
    found = turning_points(line, 1.5)
    assert [frame for frame, _ in found] == [1, 2, 3]
    assert [size for _, size in found] == pytest.approx([2.0, 2.0, 4.0])
    assert turning_points(line, 10.0) == []
