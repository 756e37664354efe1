"""Tests of backgrounds behind predicted head motion, and of turning points of head motion."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.texture.backgrounds import (
    MAX_DISTANCE,
    MAX_SPEED,
    MIN_DISTANCE,
    MIN_SPAN,
    REPEAT_COST,
    Backgrounds,
    Costs,
    cheapest_path,
    keyframes_of,
    match_backgrounds,
    turning_points,
)
from tests.refusals import raised

NO_CUTS = np.zeros(0, np.int64)


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
    for upright_or_not in (line, -line):
        found = turning_points(upright_or_not, 1.5)
        assert [frame for frame, _ in found] == [1, 2, 3]
        assert [size for _, size in found] == pytest.approx([2.0, 2.0, 4.0])
    assert turning_points(line, 10.0) == []


def wandering(count: int, seed: int) -> np.ndarray:
    """Head-pose vectors of somebody who moves as heads do."""
    random = np.random.default_rng(seed)
    place, speed = np.zeros(6), np.zeros(6)
    rows = np.empty((count, 6))
    for row in rows:
        speed = 0.9 * speed - 0.01 * place + 0.05 * random.standard_normal(6)
        place = place + speed
        row[:] = place
    return rows * [0.06, 0.08, 0.04, 10.0, 10.0, 0.01] + [0.0, 0.0, 0.0, 300.0, 200.0, 1.5]


def matched(footage: np.ndarray, target: np.ndarray) -> Backgrounds:
    """Backgrounds from one shot of footage whose frames can all be used."""
    return match_backgrounds(footage, np.ones(len(footage), bool), NO_CUTS, target)


def cost(path: tuple[int, ...], costs: Costs) -> float:
    """The cost by its definition; a standing video keeps its direction, and begins in either."""

    def of(first: int) -> float:
        direction = first
        total = costs.pose(0)[path[0]]
        for k in range(1, len(path)):
            step, gap = path[k] - path[k - 1], int(costs.gaps[k - 1])
            if abs(step) > MAX_SPEED * gap:
                return np.inf
            turns = direction * step < 0
            if turns:
                direction = -direction
                total += costs.reversal[path[k - 1]]
            total += REPEAT_COST * abs(abs(step) - gap) + costs.pose(k)[path[k]]
        return float(total)

    return min(of(1), of(-1))


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_no_other_path_costs_less(data: st.DataObject) -> None:
    states, keyframes = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    random = np.random.default_rng(data.draw(st.integers(0, 100_000)))
    poses = random.standard_normal((states, 2))
    if states > 3 and data.draw(st.booleans()):
        poses[random.integers(1, states - 1)] = np.inf
    gaps = random.integers(1, 4, keyframes - 1)
    costs = Costs(random.standard_normal((keyframes, 2)), poses, random.random(states), gaps)
    found = tuple(cheapest_path(costs).tolist())
    best = min(cost(path, costs) for path in product(range(states), repeat=keyframes))
    assert cost(found, costs) == pytest.approx(best)


@pytest.mark.parametrize("frames", [np.arange(200, 400), np.arange(400, 200, -1)], ids=["forwards", "backwards"])
def test_the_footages_own_motion_finds_the_footage(frames: np.ndarray) -> None:
    footage = wandering(600, 1)
    np.testing.assert_array_equal(matched(footage, footage[frames]).frame_indices, frames)


def test_jump_between_shots_is_no_speed() -> None:
    """A head that stands still at the end of a shot turns round there, wherever the head is in the next shot."""
    nods = 0.2 * np.sin(np.arange(100) * np.pi / 2 / 99)
    footage = np.tile([0.0, 0.0, 0.0, 300.0, 200.0, 1.5], (200, 1))
    footage[:, 0] = np.concatenate([nods, nods[::-1] - 1.0])
    there_and_back = np.concatenate([np.arange(100), np.arange(98, -1, -1)])
    found = match_backgrounds(footage, np.ones(200, bool), np.array([100]), footage[there_and_back])
    assert found.frame_indices.max() == 99


def test_the_pose_is_followed() -> None:
    footage, target = wandering(3000, 3), wandering(500, 4)
    found = matched(footage, target)
    spread = footage[:, :3].std(0)
    error = (np.abs(footage[found.frame_indices] - target)[:, :3] / spread).mean()
    played = (np.abs(footage[:500] - target)[:, :3] / spread).mean()
    assert error < 0.7 * played


@given(seed=st.integers(0, 10_000), length=st.integers(50, 150), target=st.integers(1, 400))
@settings(max_examples=15, deadline=None)
def test_no_jump_between_seconds(seed: int, length: int, target: int) -> None:
    """There is no jump wherever two seconds can be used."""
    random = np.random.default_rng(seed)
    footage = wandering(length + 120, seed)
    usable = random.random(len(footage)) < 0.9
    begin = int(random.integers(0, 120))
    usable[begin : begin + length] = True
    cuts = np.array([begin, begin + length], np.int64)
    found = match_backgrounds(footage, usable, cuts, wandering(target, seed + 1))
    assert len(found.frame_indices) == target
    assert usable[found.frame_indices].all()
    assert np.abs(np.diff(found.frame_indices)).max(initial=0) <= 2
    sides = np.searchsorted(cuts, found.frame_indices, side="right")
    assert len(set(sides.tolist())) == 1


def test_the_video_hardly_stands_still() -> None:
    footage, target = wandering(2000, 5), wandering(1000, 6)
    steps = np.abs(np.diff(matched(footage, target).frame_indices))
    assert (steps == 0).mean() < 0.3
    assert steps.mean() > 0.7
    runs = re.findall("0+", "".join(map(str, steps)))
    assert max(map(len, runs), default=0) <= 8


def test_repeated_frames_lie_evenly() -> None:
    steps = np.abs(np.diff(matched(wandering(30, 7), wandering(300, 8)).frame_indices))
    assert steps.max() <= 2


def test_short_stretches_beside_long_ones_are_not_used() -> None:
    """The short one fits better, but a speech of 20 s would play it ten times over."""
    footage = wandering(700, 9)
    target = wandering(500, 10)
    footage[650:] += target.mean(0) - footage[650:].mean(0)
    footage[:650] += [0.5, 0.5, 0.0, 0.0, 0.0, 0.0]
    found = match_backgrounds(footage, np.ones(700, bool), np.array([650]), target)
    assert found.frame_indices.max() < 650


def test_no_frames_want_no_backgrounds() -> None:
    found = matched(wandering(100, 11), np.zeros((0, 6)))
    assert found.frame_indices.shape == found.keyframes.shape == (0,)


def test_frames_that_cannot_be_used_need_no_pose() -> None:
    footage = wandering(200, 12)
    usable = np.arange(200) >= 60
    footage[:60] = np.nan
    assert match_backgrounds(footage, usable, NO_CUTS, wandering(80, 13)).frame_indices.min() >= 60


def test_too_short_footage_is_refused() -> None:
    footage = wandering(40, 14)
    for usable, cuts in ((np.zeros(40, bool), NO_CUTS), (np.ones(40, bool), np.array([20]))):
        with pytest.raises(NoUsableFootageError, match=f"no {MIN_SPAN} frames"):
            match_backgrounds(footage, usable, cuts, wandering(10, 1))


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("usable", {"usable": np.ones(99, bool)}),
        ("shot_cuts", {"shot_cuts": np.array([101])}),
        ("shot_cuts", {"shot_cuts": np.array([-1])}),
        ("footage_poses", {"footage": np.full((100, 6), np.inf)}),
        ("predicted_poses", {"predicted": np.full((9, 6), np.nan)}),
        ("predicted_poses", {"predicted": np.zeros((9, 6))}),
        ("predicted_poses", {"predicted": np.ones((20_001, 6))}),
    ],
    ids=["too few flags", "cut beyond", "cut before", "infinite", "not a number", "no scale", "too long"],
)
def test_wrong_input_is_named(field: str, changes: dict[str, np.ndarray]) -> None:
    inputs = {
        "footage": wandering(100, 1),
        "usable": np.ones(100, bool),
        "shot_cuts": NO_CUTS,
        "predicted": wandering(30, 2),
        **changes,
    }
    with raised(InvalidRequestError, field=field):
        match_backgrounds(**inputs)
