"""Delays and shifts of mouth curves, planted in curves that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from research.evaluation import delays
from services.common.wire.mouth_curves import Trigger, around_phones
from tests.unit.common.wire.test_mouth_curves import EVENTS, FRAME_S, bumps


@pytest.mark.parametrize("late_ms", [-30.0, -10.0, 0.0, 5.0, 20.0, 40.0])
@pytest.mark.parametrize("trigger", ["vowel", "closure"])
def test_shift_is_found_within_two_milliseconds(late_ms: float, trigger: Trigger) -> None:
    sign = 1.0 if trigger == "vowel" else -1.0
    (truth, seconds), (result, _) = bumps(0.01), bumps(0.01 + late_ms / 1e3)
    around = [around_phones(sign * curve, seconds, EVENTS) for curve in (truth, 0.6 * result)]
    assert delays.shift_ms(around[0], around[1], trigger) == pytest.approx(late_ms, abs=2.0)


def test_shift_needs_enough_phones_and_an_extreme() -> None:
    truth, seconds = bumps(0.0)
    around = around_phones(truth, seconds, EVENTS)
    assert math.isnan(delays.shift_ms(around[:4], around[:4], "vowel"))
    assert math.isnan(delays.shift_ms(around, np.zeros_like(around), "vowel"))
    unknown = around.copy()
    unknown[5:, 3] = np.nan
    assert delays.shift_ms(around, unknown, "vowel") == pytest.approx(0.0, abs=1e-6)
    unknown[4, 3] = np.nan
    assert math.isnan(delays.shift_ms(around, unknown, "vowel"))


def opened(seconds: np.ndarray) -> np.ndarray:
    """Opening of a mouth that moves as in speech: sums of waves of 1 to 5 Hz."""
    waves = [(1.1, 0.3), (2.3, 1.9), (3.1, 4.0), (4.7, 2.2)]
    return 6.0 + sum(2.0 / rate * np.sin(2.0 * np.pi * rate * seconds + phase) for rate, phase in waves)


def delay_of(truth: np.ndarray, result: np.ndarray, seconds: np.ndarray) -> float:
    return delays.delay_ms(truth, delays.at_delays(result, seconds))


@pytest.mark.parametrize("late_ms", [-100.0, -40.0, -15.0, 0.0, 5.0, 20.0, 40.0, 80.0])
@pytest.mark.parametrize("rate", [25.0, 30.0, 60.0])
def test_planted_delay_is_found(late_ms: float, rate: float) -> None:
    """A result of another size is late by the planted time at any frame rate, with noise of the tracker."""
    seconds, rng = np.arange(round(4 * rate)) / rate, np.random.default_rng(5)
    truth = opened(seconds) + 0.2 * rng.normal(size=len(seconds))
    result = 3.0 + 0.4 * opened(seconds - late_ms / 1e3) + 0.1 * rng.normal(size=len(seconds))
    assert delay_of(truth, result, seconds) == pytest.approx(late_ms, abs=4.0)


def test_delay_with_gaps_and_unequal_frames() -> None:
    """Frames of unequal length count at their times, and unknown frames do not count."""
    seconds = np.sort(np.random.default_rng(1).uniform(0.0, 6.0, 200))
    truth, result = opened(seconds), opened(seconds - 0.04)
    truth[30:40] = result[90:110] = np.nan
    assert delay_of(truth, result, seconds) == pytest.approx(40.0, abs=3.0)


def test_delays_of_several_parts_together() -> None:
    """Parts that are too short alone have a delay together, also with repeated frames."""
    seconds = np.arange(20) * FRAME_S
    parts = [(opened(begin + seconds), opened(begin + seconds - 0.04)) for begin in (0.0, 3.0, 7.0)]
    assert all(math.isnan(delay_of(truth, result, seconds)) for truth, result in parts)
    truth = np.concatenate([truth for truth, _ in parts])
    moved = np.concatenate([delays.at_delays(result, seconds) for _, result in parts], axis=1)
    assert delays.delay_ms(truth, moved) == pytest.approx(40.0, abs=4.0)
    assert delays.delay_ms(np.tile(truth, 2), np.tile(moved, 2)) == pytest.approx(delays.delay_ms(truth, moved))


def test_delay_needs_frames_and_motion() -> None:
    """Too few frames and a constant curve have no delay; one beyond the search is at its end."""
    seconds = np.arange(100) * FRAME_S
    moving, still = opened(seconds), np.full(100, 4.0)
    few = slice(0, delays.MIN_DELAY_FRAMES + 4)
    assert math.isnan(delay_of(moving[few], moving[few], seconds[few]))
    assert math.isnan(delay_of(moving, still, seconds))
    assert math.isnan(delay_of(still, moving, seconds))
    slow = np.sin(2.0 * np.pi * 0.3 * (seconds - 0.4))
    assert delay_of(np.sin(2.0 * np.pi * 0.3 * seconds), slow, seconds) == 200.0
