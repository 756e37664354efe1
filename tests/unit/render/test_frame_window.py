"""Windows over frames: neighbours before and after, stand-ins at both ends of a run, and no frame twice."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from services.render.frame_window import FrameWindow
from services.render.types import RenderFrame


def frame(index: int) -> RenderFrame:
    picture = np.zeros((160, 160, 3), np.uint8)
    return RenderFrame(index, picture, None, picture[..., 0], np.zeros((59, 2), np.float32))


def windows(indices: list[int], before: int, after: int) -> list[tuple[int, ...]]:
    window: FrameWindow[int] = FrameWindow(before, after)
    made = [one for index in indices for one in window.push(frame(index), index)]
    made += window.finish()
    assert [one.frame.frame_index for one in made] == [one.now for one in made] == indices
    assert all(one.items[before] == one.now for one in made)
    assert window.finish() == []
    return [one.items for one in made]


def test_without_neighbours_a_window_is_the_frame() -> None:
    assert windows([4, 5, 9], 0, 0) == [(4,), (5,), (9,)]


def test_the_first_frame_stands_in_for_the_frames_before_it() -> None:
    assert windows([0, 1, 2, 3], 2, 0) == [(0, 0, 0), (0, 0, 1), (0, 1, 2), (1, 2, 3)]


def test_the_last_frame_stands_in_for_the_frames_after_it() -> None:
    assert windows([0, 1, 2], 0, 2) == [(0, 1, 2), (1, 2, 2), (2, 2, 2)]


def test_a_gap_ends_a_run_on_both_sides() -> None:
    assert windows([0, 1, 5, 6], 1, 1) == [(0, 0, 1), (0, 1, 1), (5, 5, 6), (5, 6, 6)]


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("after", [0, 1, 4])
def test_any_window_has_the_neighbours_of_its_run(before: int, after: int) -> None:
    indices = [0, 1, 2, 3, 4, 5, 9, 20, 21, 22]
    runs = [[0, 1, 2, 3, 4, 5], [9], [20, 21, 22]]
    expected = [
        tuple(min(max(index + step, run[0]), run[-1]) for step in range(-before, after + 1)) for run in runs for index in run
    ]
    assert windows(indices, before, after) == expected


def test_a_frame_is_answered_as_soon_as_its_frames_after_are_there() -> None:
    window: FrameWindow[int] = FrameWindow(1, 2)
    answered = [[one.now for one in window.push(frame(index), index)] for index in range(5)]
    assert answered == [[], [], [0], [1], [2]]
    assert [one.now for one in window.finish()] == [3, 4]


def test_no_more_frames_are_kept_than_windows_need() -> None:
    window: FrameWindow[int] = FrameWindow(3, 2)
    for index in range(100):
        window.push(frame(index), index)
    assert len(window._run) == 5
    assert all(after[1] == before[1] + 1 for before, after in pairwise(window._run))
