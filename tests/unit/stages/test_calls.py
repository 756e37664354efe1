"""A call that cannot end before its deadline is given up as soon as its speed is known, with the length that can."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.stages.calls import JOB_POLICY, CallPace, CallTime, all_replies, shown_time
from services.common.errors import BackendUnavailableError, InvalidRequestError


def lost() -> BackendUnavailableError:
    return BackendUnavailableError("gone", retry_after_s=0.0)


async def test_broken_stream_replies_not_mixed() -> None:
    """Replies of a broken stream are not mixed with those of the next."""
    attempts = 0

    async def replies() -> AsyncIterator[int]:
        nonlocal attempts
        attempts += 1
        for number in range(5):
            if attempts == 1 and number == 3:
                raise lost()
            yield number

    assert await all_replies(replies) == [0, 1, 2, 3, 4]
    assert attempts == 2


async def test_request_error_comes_at_once() -> None:
    """An error in the request comes at once."""
    attempts = 0

    async def replies() -> AsyncIterator[int]:
        nonlocal attempts
        attempts += 1
        raise InvalidRequestError("no such model", field="model")
        yield 0

    with pytest.raises(InvalidRequestError):
        await all_replies(replies)
    assert attempts == 1


def test_lost_stage_given_up_soon() -> None:
    """A stage that is gone for good is given up within half a minute."""
    error = BackendUnavailableError("gone")
    waits = [JOB_POLICY.backoff_s(attempt, error) for attempt in range(1, JOB_POLICY.max_attempts)]
    assert 10 < sum(waits) < 25


class Clock:
    """A clock that a test sets, seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(rates: list[tuple[float, float]], num_frames: int, deadline_s: float | None) -> float:
    """Answer frames at (frames per second, seconds) until the video ends, and return the time of the end."""
    clock = Clock()
    pace = CallPace(deadline_s, "face", "film.mp4", num_frames, num_frames / 25, clock=clock)
    clock.now = 2.0  # the stage warms up
    done = 0.0
    for rate, seconds in rates:
        for _ in range(int(seconds)):
            pace.answered(int(done))
            clock.now += 1.0
            done += rate
            if done >= num_frames:
                return clock.now
    return clock.now


def test_impossible_deadline_given_up_soon() -> None:
    """A video that can never end in time is given up within seconds."""
    with pytest.raises(InvalidRequestError) as caught:
        run([(50.0, 60)], 12 * 3600 * 25, 3600.0)
    assert caught.value.field == "footage"
    assert "the face stage answers 50 frames per second, so its 1080000 frames take about 6:00:02" in caught.value.message
    assert "one call may last 1:00:00, which is enough for 162000 frames (1:48:00)" in caught.value.message
    assert "DUBSTAGE_STAGE_DEADLINE_S" in caught.value.message


def test_slightly_late_given_up_when_sure() -> None:
    """A video that is a little too long is given up when its speed is sure."""
    assert run([(50.0, 60)], 220_000, 3600.0) == 62.0
    with pytest.raises(InvalidRequestError, match="enough for 162000 frames"):
        run([(50.0, 120)], 220_000, 3600.0)


def test_fitting_video_completes() -> None:
    """A video that fits is worked on to its end."""
    assert run([(50.0, 4000)], 170_000, 3600.0) == pytest.approx(3402.0)


def test_slow_start_gets_time() -> None:
    """A stage that is slow at first gets its time."""
    assert run([(30.0, 15), (60.0, 4000)], 170_000, 3600.0) < 3600.0


def test_no_deadline_never_given_up() -> None:
    """Calls without a deadline and short videos are never given up."""
    run([(0.1, 600)], 1_000_000, None)
    run([(1.0, 100)], 90, 100.0)


def test_call_is_nearly_over_before_deadline() -> None:
    """A call that can go on in another call ends well before the deadline. Calls without a deadline never end."""
    clock = Clock()
    call, endless = CallTime(100.0, clock=clock), CallTime(None, clock=clock)
    clock.now = 74.0
    assert not call.nearly_over
    clock.now = 90.0
    assert call.nearly_over
    assert not endless.nearly_over


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0:00:00"), (61.0, "0:01:01"), (43_200.0, "12:00:00")])
def test_times_are_shown_in_hours(seconds: float, shown: str) -> None:
    assert shown_time(seconds) == shown
