"""Retiming footage to new speech."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import InvalidRequestError, WorkCancelledError
from services.common.server.call_context import Call, set_current_call
from services.texture.select_frames import BLINK_WEIGHT, REPEAT_COST, select_frames, without_speckles


def cost(path: np.ndarray, motion: np.ndarray, blink: np.ndarray, resting: np.ndarray) -> float:
    lively = np.minimum(motion + BLINK_WEIGHT * blink, 1.0)
    total = lively[path[0]]
    for i in range(1, len(path)):
        total += lively[path[i]] if resting[i] else 1 - lively[path[i]]
        if path[i] == path[i - 1]:
            total += REPEAT_COST * lively[path[i]]
    return float(total)


def allowed(num_footage: int, num_speech: int) -> list[np.ndarray]:
    """Every path: a beginning, then each step goes on by one or, never twice running, by none."""
    paths = []
    for begin, steps in product(range(num_footage), product((0, 1), repeat=num_speech - 1)):
        path = begin + np.concatenate(([0], np.cumsum(steps))).astype(int)
        if path[-1] < num_footage and not any(a == b == 0 for a, b in zip(steps, steps[1:], strict=False)):
            paths.append(path)
    return paths


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_other_path_costs_less(data: st.DataObject) -> None:
    num_footage = data.draw(st.integers(3, 6))
    num_speech = data.draw(st.integers(1, min(8, 2 * num_footage)))
    random = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    motion, blink = random.random(num_footage), random.random(num_footage) < 0.2
    silent = random.random(num_speech) < 0.5
    chosen = select_frames(motion, blink, silent)
    resting = without_speckles(silent)
    best = min(cost(path, motion, blink, resting) for path in allowed(num_footage, num_speech))
    assert cost(chosen, motion, blink, resting) == pytest.approx(best)
    assert any(np.array_equal(chosen, path) for path in allowed(num_footage, num_speech))


def test_a_head_that_moves_is_put_under_speech() -> None:
    """The footage rests 40 frames, moves 40, rests 40; the speech is silent 20, speaks 40, is silent 20."""
    motion = np.repeat([0.05, 0.9, 0.05], 40)
    silent = np.repeat([True, False, True], [20, 40, 20])
    chosen = select_frames(motion, np.zeros(120, bool), silent)
    assert np.mean(motion[chosen][20:60]) > 0.85
    assert np.mean(motion[chosen][silent]) < 0.1


def test_speech_twice_as_long() -> None:
    """Speech may be nearly twice as long as the footage."""
    chosen = select_frames(np.zeros(50), np.zeros(50, bool), np.zeros(100, bool))
    np.testing.assert_array_equal(chosen, np.repeat(np.arange(50), 2))


def test_too_little_footage_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"51 frames .* 50"):
        select_frames(np.zeros(50), np.zeros(50, bool), np.zeros(101, bool))


def test_single_frames_ignored() -> None:
    """Single frames of sound or silence do not count."""
    flags = np.zeros(40, bool)
    flags[10:13] = True
    assert not without_speckles(flags).any()
    assert without_speckles(~flags).all()


def test_retiming_ends_with_call() -> None:
    """Retiming ends with the call that it is done for."""
    call = Call(stage="texture", rpc="SelectFrames")
    call.ended.set()
    set_current_call(call)
    try:
        with pytest.raises(WorkCancelledError):
            select_frames(np.zeros(50), np.zeros(50, bool), np.zeros(50, bool))
    finally:
        set_current_call(None)
