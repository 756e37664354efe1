"""When mouths move against the sound, measured by phones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from research.motion.timing import (
    ClipMouth,
    Lateness,
    events_of,
    joined,
    lateness,
    measured,
    phone_spans,
    release_s,
    report_lines,
)
from services.common.array_types import Float32, UInt8
from services.common.wire.mouth_curves import MOTION_FRAME_S, REAL_MS
from services.common.wire.phones import PHONE_INDEX, SILENCE

RATE = 16_000
ROWS = 30
"""Rows of 10 ms of a syllable: p, then an open vowel, then silence."""


def syllables(count: int) -> UInt8:
    """Phone classes of syllables of 80 ms of p, 140 ms of AA and 80 ms of silence."""
    syllable = [PHONE_INDEX["P"]] * 8 + [PHONE_INDEX["AA"]] * 14 + [SILENCE] * 8
    return np.array(syllable * count, np.uint8)


def talking(late_ms: float, name: str = "clip", count: int = 40, seed: int = 0) -> ClipMouth:
    """A clip whose lips are closest REAL_MS + late after the middle of p, and widest REAL_MS + late after the middle of AA."""
    phones = syllables(count)
    seconds = np.arange(int(len(phones) * 0.01 / MOTION_FRAME_S)) * MOTION_FRAME_S
    opening = np.full(len(seconds), 4.0)
    for index in range(count):
        begin = 0.01 * ROWS * index
        for middle, height, real_ms in ((0.04, -4.0, REAL_MS["closure"]), (0.15, 6.0, REAL_MS["vowel"])):
            centre = begin + middle + (real_ms + late_ms) / 1e3
            opening += height * np.exp(-0.5 * ((seconds - centre) / 0.035) ** 2)
    opening += np.random.default_rng(seed).normal(0.0, 0.3, len(opening))
    return ClipMouth(name, "group", opening.astype(np.float32), 0.0, np.zeros(len(phones) * 160, np.float32), phones)


def test_phone_spans_follow_each_other() -> None:
    spans = phone_spans(np.array([3, 3, 5, 5, 5, 3], np.uint8))
    assert spans == [(3, 0, 2), (5, 2, 5), (3, 5, 6)]


def test_events_lie_at_phone_middles() -> None:
    events = events_of(talking(0.0, count=2))
    np.testing.assert_allclose(events["closure"], [0.04, 0.34])
    np.testing.assert_allclose(events["vowel"], [0.15, 0.45])
    assert len(events["parting"]) == 2


@pytest.mark.parametrize("late_ms", [-40.0, 0.0, 50.0])
def test_planted_lateness_is_measured(late_ms: float) -> None:
    """A mouth that is later than real people's by a known time is measured within 6 ms."""
    times = measured(talking(late_ms, str(seed), seed=seed) for seed in range(6))["group"]
    found = lateness(times)
    assert found.ms == pytest.approx(late_ms, abs=6.0)
    assert 0.0 < found.error_ms < 8.0
    assert times["closure"].low <= times["closure"].ms <= times["closure"].high
    assert times["vowel"].clips == 6


def test_lag_is_taken_out() -> None:
    """The times are those of the sound that belongs to the picture."""
    clip = talking(0.0)
    moved = ClipMouth("clip", "group", clip.opening, 1.0, clip.samples, clip.phones)
    early, late = (measured([each])["group"]["vowel"].ms for each in (clip, moved))
    assert late - early == pytest.approx(40.0, abs=1.0)


def test_parting_follows_the_opening() -> None:
    """Lips that part 20 ms later are measured 20 ms later."""
    first, second = (measured([talking(late)])["group"]["parting"].ms for late in (0.0, 20.0))
    assert second - first == pytest.approx(20.0, abs=5.0)


@pytest.mark.parametrize("release_at_s", [0.49, 0.5, 0.52])
def test_release_is_where_power_rises(release_at_s: float) -> None:
    samples: Float32 = (0.001 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
    samples[round(release_at_s * RATE) :] *= 100.0
    assert release_s(samples, 0.505) == pytest.approx(release_at_s, abs=0.003)


def test_few_phones_give_no_time() -> None:
    times = measured([talking(0.0, count=3)])["group"]
    assert math.isnan(times["vowel"].ms)
    assert math.isnan(lateness(times).ms)


def test_precise_estimates_count_more() -> None:
    found = joined([Lateness(30.0, 2.0), Lateness(50.0, 4.0), Lateness(math.nan, 1.0)])
    assert found.ms == pytest.approx(34.0)
    assert found.error_ms == pytest.approx(math.sqrt(1.0 / (1 / 4 + 1 / 16)))


def test_report_names_group_and_times() -> None:
    lines = list(report_lines(measured([talking(0.0)])))
    assert len(lines) == 4
    assert lines[0].startswith("group")
    assert "closure" in lines[0]
