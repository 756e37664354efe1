"""Tests of the finished share of an operation."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from dubstage.client.names import step_name
from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.api.progress import FACE_STEPS, dub_steps, enrolment_steps, step_number
from gateway.dub.progress import STEP_NAMES
from gateway.dub.request.dub_request import DubRequest
from gateway.operations.progress import StepCost, StepState, WholeProgress
from services.common.methods import DEFAULT_METHOD, METHODS

STEPS = (StepCost("fetch", fixed_s=1), StepCost("track", frame_ms=10), StepCost("dub", frame_ms=30))
MORE = (*STEPS, StepCost("report", frame_ms=10))


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def states(progress: WholeProgress, *reports: tuple[str, int, int]) -> list[StepState]:
    return [progress.report(*report) for report in reports]


def test_preview_costs_its_first_seconds() -> None:
    """After tracking, a preview of a long video costs seconds, and no network is trained."""
    whole = DubRequest(footage=Path("a.mp4"), speech=Path("b.wav"), output=Path("c.mp4"), method="dubstage")

    def after_tracking(request: DubRequest) -> float:
        steps = dub_steps(request)
        begin = 1 + [step.name for step in steps].index("track")
        return sum(step.seconds(15_000, 2.0) for step in steps[begin:] if step.name != "enrol bank")

    assert after_tracking(replace(whole, preview=True)) < 20 < 600 < after_tracking(whole)


def test_fraction_weighs_steps() -> None:
    """A step counts by its cost, and a step that did not report counts as done."""
    progress = WholeProgress(STEPS)
    first, half, last = states(progress, ("track", 0, 1000), ("track", 500, 1000), ("dub", 1000, 1000))
    assert first.fraction == pytest.approx(1 / 41)
    assert half.fraction == pytest.approx(6 / 41)
    assert last.fraction == pytest.approx(36 / 41)
    assert progress.report("track", 1000, 1000).fraction == 0.999  # the end of the operation makes it 1


def test_fraction_never_falls() -> None:
    """Steps in turns, a step that begins anew and a resumed operation never lower the fraction."""
    progress = WholeProgress(STEPS, floor=0.1)
    reports = [(step, done, 100) for done in (0, 40, 100, 10) for step in ("track", "dub", "other")]
    found = [state.fraction for state in states(progress, *reports)]
    assert found[0] >= 0.1
    assert all(before <= after for before, after in itertools.pairwise(found))


def test_pace_and_rest() -> None:
    """Frames a second are those of the step. The rest follows from the share that this process has finished."""
    clock = Clock()
    progress = WholeProgress(STEPS, clock=clock)
    assert progress.report("track", 0, 1000).remaining_s is None
    clock.now = 10.0
    state = progress.report("track", 1000, 1000)
    assert state.per_second == 100
    assert state.remaining_s == pytest.approx(10 * 30 / 10)
    clock.now = 11.0
    assert progress.report("dub", 10, 1000).per_second == 0


def rest_after(clock: Clock, steps: tuple[StepCost, ...], *work: tuple[str, float]) -> float:
    """Time left after steps of 1000 frames, each with the milliseconds that a frame takes. Half of the last step is done."""
    progress, state = WholeProgress(steps, clock=clock), None
    for step, frame_ms in work:
        frames = 500 if step == work[-1][0] else 1000
        for done in range(0, frames + 1, 10):
            state = progress.report(step, done, 1000)
            clock.now += 10 * frame_ms / 1000
        clock.now -= 10 * frame_ms / 1000
    assert state is not None
    assert state.remaining_s is not None
    return state.remaining_s


def test_a_slow_step_says_nothing_of_later_steps() -> None:
    """A step that is slower than its cost is estimated by its own work, and the steps after it by the work before the step."""
    assert rest_after(Clock(), MORE, ("track", 10), ("dub", 60)) == pytest.approx(30 + 10, rel=0.25)


def test_a_slow_machine_is_slow_in_all_steps() -> None:
    assert rest_after(Clock(), MORE, ("track", 30), ("dub", 90)) == pytest.approx(45 + 30, rel=0.25)
    assert rest_after(Clock(), MORE, ("track", 30)) == pytest.approx(15 + 90 + 30, rel=0.25)


def test_recent_work_counts() -> None:
    """A machine that has become slower is estimated by its present speed, though most of the work was fast."""
    clock = Clock()
    progress = WholeProgress(STEPS, clock=clock)
    for done in range(1000):
        clock.now += 0.03 if done < 500 else 0.1
        state = progress.report("dub", done, 1000)
        if done == 900:
            assert state.remaining_s == pytest.approx(10, rel=0.3)


def test_work_of_an_earlier_process_is_no_pace() -> None:
    """A step that begins in its middle was done so far by another process."""
    clock = Clock()
    progress = WholeProgress(STEPS, clock=clock)
    for done in range(500, 801):
        state = progress.report("dub", done, 1000)
        clock.now += 0.06
    assert state.remaining_s == pytest.approx(12, rel=0.25)


def test_parts_of_a_report_are_no_frames() -> None:
    progress = WholeProgress((StepCost("dub", frame_ms=30), StepCost("report", frame_ms=10, counts_frames=False)))
    progress.report("dub", 1000, 1000)
    assert progress.report("report", 2500, 5000).fraction == pytest.approx(35 / 40)


def test_opening_the_stages_is_no_pace() -> None:
    """Seconds before the first step say nothing of the rest."""
    clock = Clock()
    progress = WholeProgress(STEPS[1:], clock=clock)
    clock.now = 60.0
    progress.report("start", 0, 1)
    progress.report("track", 0, 1000)
    clock.now = 70.0
    assert progress.report("track", 1000, 1000).remaining_s == pytest.approx(30)


def test_large_pictures_cost_more() -> None:
    """Steps that read pictures take longer in large ones, and a step of the person does not."""
    small, large = (WholeProgress((StepCost("track", 10, megapixel_ms=20), StepCost("enrol", fixed_s=30))) for _ in range(2))
    small.footage(1000, 0.5)
    large.footage(1000, 2.0)
    assert small.report("track", 1000, 1000).fraction == pytest.approx(20 / 50)
    assert large.report("track", 1000, 1000).fraction == pytest.approx(50 / 80)


def test_steps_are_in_the_contract() -> None:
    """Each step has a number."""
    for step in (*FACE_STEPS, *enrolment_steps(METHODS[DEFAULT_METHOD], skip=False)):
        assert step_number(step.name)
    assert step_number("no step") == pb.OPERATION_STEP_UNSPECIFIED


def test_every_step_has_a_name() -> None:
    """Commands and pages show no name of the code."""
    steps = [step_name(number) for number in pb.OperationStep.values() if number]
    assert not {*steps, *(step.name for step in FACE_STEPS)} - STEP_NAMES.keys()
