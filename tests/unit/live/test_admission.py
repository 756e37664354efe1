"""Live streams are taken as long as the time that their frames take allows, and tenants get places in turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from prometheus_client import CollectorRegistry

from gateway.live.admission import (
    MAX_FRAME_S,
    MEASURED_FRAMES,
    MEASURED_S,
    MOST_DROPPED,
    SHOWN_FRAMES,
    SHOWN_S,
    LiveAdmission,
    LiveMetrics,
    LiveStream,
)
from services.common.errors import OverloadedError


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def shows(clock: Clock, *streams: LiveStream, frame_s: float, count: int = MEASURED_FRAMES, between_s: float = 0.04) -> None:
    """Frames of each stream, `between_s` after each other, each `frame_s` after its motion."""
    for _ in range(count):
        clock.s += between_s
        for stream in streams:
            stream.took(stream.begin() - frame_s)


def refusal(admission: LiveAdmission, tenant: str = "ann") -> OverloadedError:
    with pytest.raises(OverloadedError) as caught, admission.stream(tenant):
        pass
    assert caught.value.retry_after_s
    return caught.value


def test_admission_until_frames_slow(clock: Clock, stack: ExitStack) -> None:
    """Streams are taken until their frames take too long."""
    admission = LiveAdmission(100, now=clock)
    streams = []
    # Each further stream makes all frames slower.
    for frame_s in (0.03, 0.05, 0.08, 0.13):
        streams.append(stack.enter_context(admission.stream("ann")))
        shows(clock, *streams, frame_s=frame_s)
    assert admission.frame_s == pytest.approx(0.13)
    assert admission.load == pytest.approx(0.13 / MAX_FRAME_S)
    assert "4 live streams run, and their frames take 130 ms" in refusal(admission).message
    shows(clock, *streams, frame_s=0.05)
    stack.enter_context(admission.stream("ann"))
    assert (admission.running, dict(admission.refused)) == (5, {"capacity": 1})


def test_stream_count_limit(clock: Clock, stack: ExitStack) -> None:
    """No more streams than the limit run whatever they cost."""
    admission = LiveAdmission(2, now=clock)
    for _ in range(2):
        shows(clock, stack.enter_context(admission.stream("ann")), frame_s=0.01)
    assert admission.load == 1.0
    assert "2 live streams run already" in refusal(admission).message
    stack.close()
    assert admission.load == 0.0
    with admission.stream("ann"):
        assert admission.running == 1
        assert admission.load == 0.5


def test_unmeasured_streams_are_few(clock: Clock, stack: ExitStack) -> None:
    """Streams that have not shown their cost are few, but a stream that sends nothing keeps no stream out."""
    admission = LiveAdmission(100, now=clock)
    first = stack.enter_context(admission.stream("ann"))
    stack.enter_context(admission.stream("ann"))
    assert refusal(admission).retry_after_s == 1.0
    shows(clock, first, frame_s=0.03, count=SHOWN_FRAMES)
    stack.enter_context(admission.stream("ann"))
    refusal(admission)
    clock.s += SHOWN_S
    stack.enter_context(admission.stream("ann"))
    assert (admission.running, admission.refused["new"]) == (4, 2)


def test_fast_fed_stream_by_pace(clock: Clock, stack: ExitStack) -> None:
    """A stream that is fed faster than it is spoken is measured by its pace."""
    admission = LiveAdmission(100, now=clock)
    fast = stack.enter_context(admission.stream("ann"))
    # Eight frames wait for each other all the time, and a frame comes every 25 ms.
    shows(clock, fast, frame_s=0.2, between_s=0.025, count=MEASURED_FRAMES + 1)
    assert admission.frame_s == pytest.approx(0.025)


def test_slow_reader_time_ignored(clock: Clock, stack: ExitStack) -> None:
    """The time of a slow reader does not count."""
    admission = LiveAdmission(100, now=clock)
    stream = stack.enter_context(admission.stream("ann"))
    for _ in range(SHOWN_FRAMES):
        begun = stream.begin()
        clock.s += 0.035
        with stream.given():
            clock.s += 5.0
        stream.took(begun)
    assert admission.frame_s == pytest.approx(0.035)


def test_place_goes_to_smaller_tenant(clock: Clock, stack: ExitStack) -> None:
    """A place goes to the waiting tenant with fewer streams."""
    admission = LiveAdmission(3, now=clock)
    of_ann = [ExitStack() for _ in range(3)]
    for place in of_ann:
        shows(clock, place.enter_context(admission.stream("ann")), frame_s=0.01)
    refusal(admission, "bob")
    of_ann.pop().close()
    # Ann comes first, and bob, who has none, was told to come again.
    assert "the turn of another caller" in refusal(admission, "ann").message
    stack.enter_context(admission.stream("bob"))
    clock.s += SHOWN_S
    refusal(admission, "bob")
    of_ann.pop().close()
    # Both have one, and bob's was taken later.
    stack.enter_context(admission.stream("ann"))
    assert admission.running == 3
    for place in of_ann:
        place.close()


def test_standing_stream_blocks_nobody(clock: Clock, stack: ExitStack) -> None:
    """A stream that stands still does not keep others out for ever."""
    admission = LiveAdmission(100, now=clock)
    shows(clock, stack.enter_context(admission.stream("ann")), frame_s=0.3)
    refusal(admission)
    clock.s += MEASURED_S + 0.1
    stack.enter_context(admission.stream("ann"))


def test_tenants_take_turns(clock: Clock) -> None:
    """Tenants who want one place have it in turn."""
    admission = LiveAdmission(1, now=clock)
    got = []
    for _ in range(6):
        with ExitStack() as place:
            for tenant in ("ann", "ann", "bob"):
                try:
                    place.enter_context(admission.stream(tenant))
                    got.append(tenant)
                except OverloadedError:
                    clock.s += 1.0
    assert got == ["ann", "bob"] * 3


def test_late_frames_dropped_not_frozen(clock: Clock, stack: ExitStack) -> None:
    """Late frames are left out but the picture never stands still."""
    admission = LiveAdmission(2, now=clock)
    stream = stack.enter_context(admission.stream("ann"))
    for _ in range(2 * MOST_DROPPED + 2):
        clock.s += 0.04
        if stream.may_drop():
            stream.drop()
        else:
            stream.keep()
            stream.took(stream.begin() - 0.01)
    assert (admission.dropped, stream.frames) == (2 * MOST_DROPPED, 2)
    # The frames that come are quick, because the others are left out.
    assert "there is no time for another" in refusal(admission).message
    stack.close()
    assert (admission.dropped, admission.frame_s) == (2 * MOST_DROPPED, 0.0)


def test_missed_frames_block_nobody(clock: Clock, stack: ExitStack) -> None:
    """Frames that a slow reader misses keep no stream out."""
    admission = LiveAdmission(2, now=clock)
    stream = stack.enter_context(admission.stream("ann"))
    for _ in range(10):
        clock.s += 0.04
        stream.took(stream.begin() - 0.03)
        with stream.given():
            clock.s += 0.2
        for _ in range(5):
            stream.drop()
    assert (admission.dropped, admission.frame_s) == (50, pytest.approx(0.03))
    stack.enter_context(admission.stream("bob"))


def test_live_metrics() -> None:
    """Metrics show streams refusals and frames that were left out."""
    admission, registry = LiveAdmission(1), CollectorRegistry()
    registry.register(LiveMetrics(admission))
    assert registry.get_sample_value("dubstage_live_streams") == 0
    with admission.stream("ann") as stream:
        stream.took(stream.begin())
        stream.drop()
        with pytest.raises(OverloadedError), admission.stream("bob"):
            pass
        assert registry.get_sample_value("dubstage_live_streams") == 1
        assert registry.get_sample_value("dubstage_live_frames_dropped_total") == 1
        assert registry.get_sample_value("dubstage_live_refused_total", {"reason": "limit"}) == 1
        assert (registry.get_sample_value("dubstage_live_frame_seconds") or 0) > 0
    assert registry.get_sample_value("dubstage_live_streams") == 0
    # The count stays.
    assert registry.get_sample_value("dubstage_live_frames_dropped_total") == 1
