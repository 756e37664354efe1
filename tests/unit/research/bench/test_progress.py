"""Estimates of the time left against the time that was left."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.operations.progress import StepCost
from gateway.operations.step_paces import StepPaces
from research.bench.progress import Job, Recording, compared, looks_of, seconds_of_steps


def test_worst_estimate_and_share() -> None:
    """The first and the last tenth do not count, and a missing estimate is as wrong as one that says nothing is left."""
    looks = [(5.0, 900.0), (20.0, 80.0), (50.0, 60.0), (80.0, 30.0), (95.0, 50.0)]
    worst, within = compared(looks, 100.0)
    assert worst == pytest.approx(0.5)
    assert within == pytest.approx(2 / 3)
    assert compared([(20.0, None)], 100.0) == (1.0, 0.0)


def test_looks_at_every_hundredth_of_the_time() -> None:
    """A step that reports often has no more weight than one that reports as time goes by."""
    looks = [(50.0 + number / 1000, 100.0) for number in range(1000)] + [(60.0, 40.0)]
    assert compared(looks, 100.0) == (pytest.approx(1.0), 0.5)


def recording(dub_s: float) -> Recording:
    """A job of 100 frames that are tracked in 10 s and dubbed in so many seconds, with reports at every frame."""
    reports = [(0.1 * done, "track", done, 100) for done in range(101)]
    reports += [(10.0 + 0.01 * dub_s * done, "dub", done, 100) for done in range(101)]
    return Recording(job=Job(4, 360), frames=100, megapixels=0.2, reports=reports, wall_s=10 + dub_s, cpu_s=60.0, load=1.0)


def test_a_recording_is_estimated_again(tmp_path: Path) -> None:
    """With costs that fit, the estimates fit at every report."""
    steps = (StepCost("track", frame_ms=100), StepCost("dub", frame_ms=300))
    worst, within = compared(looks_of(recording(30.0), steps, StepPaces(tmp_path, "ugc")), 40.0)
    assert (worst, within) == (pytest.approx(0.0, abs=0.01), 1.0)
    assert seconds_of_steps(recording(30.0)) == {"track": pytest.approx(10), "dub": pytest.approx(30)}


def test_earlier_dubs_correct_later_estimates(tmp_path: Path) -> None:
    """A machine whose steps have other relations than the table is estimated well from its second dub on."""
    steps = (StepCost("track", frame_ms=100), StepCost("dub", frame_ms=100))
    first, second = (compared(looks_of(recording(90.0), steps, StepPaces(tmp_path, "ugc")), 100.0)[0] for _ in range(2))
    assert first > 0.5
    assert second < 0.05
