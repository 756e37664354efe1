"""

Windows over frames: neighbours before and after, stand-ins at both ends of a run, and no frame twice.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from services.common.array_types import Float32
from services.common.errors import ModelNotFoundError
from services.common.methods import RENDERERS
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.renderer import FrameWindow, without_dots
from services.render.renderers.registry import renderer_named
from services.render.types import RenderFrame

SIDE = 160


def _waves(across: int, down: int) -> Float32:
    """Return cosines of some periods, pixels, along rows and columns; 0: no change that way. float32 [SIDE, SIDE, 3], -10 to 10."""
    along = [np.cos(2.0 * np.pi * np.arange(SIDE) / period) if period else np.ones(SIDE) for period in (down, across)]
    return np.repeat(10.0 * np.outer(*along)[..., None], 3, axis=2).astype(np.float32)


@pytest.mark.parametrize(("across", "down"), [(2, 0), (0, 2), (2, 2)])
def test_patterns_of_two_pixels_vanish(across: int, down: int) -> None:
    assert np.allclose(without_dots(100.0 + _waves(across, down)), 100.0, atol=1e-3)


@pytest.mark.parametrize(("period", "passed"), [(3, 0.763), (4, 0.969), (8, 1.0), (40, 1.0)])
def test_wider_structures_stay(period: int, passed: float) -> None:
    wave = _waves(period, 0)
    inside = (slice(16, -16), slice(16, -16))
    assert np.allclose(without_dots(100.0 + wave)[inside], (100.0 + passed * wave)[inside], atol=0.02)


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


def test_first_frame_stands_in() -> None:
    """The first frame stands in for the frames before it."""
    assert windows([0, 1, 2, 3], 2, 0) == [(0, 0, 0), (0, 0, 1), (0, 1, 2), (1, 2, 3)]


def test_last_frame_stands_in() -> None:
    """The last frame stands in for the frames after it."""
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


def test_frame_answered_after_look_ahead() -> None:
    """A frame is answered as soon as its frames after are there."""
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


def test_committed_models_have_renderers() -> None:
    """Every model that comes with dubstage has a renderer."""
    names = {path.name.removesuffix(".export.json") for path in WEIGHTS_FOLDER.glob("*.export.json")}
    assert names == set(RENDERERS) == {row.name for row in RENDERERS.values()}
    assert all(renderer_named(name).spec is row for name, row in RENDERERS.items())
    with pytest.raises(ModelNotFoundError, match="no renderer 'ugly'"):
        renderer_named("ugly")
