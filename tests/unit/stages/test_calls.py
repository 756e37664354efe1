"""A call that cannot end before its deadline is given up as soon as its speed is known, with the length that can."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.stages.calls import JOB_POLICY, CallTime, all_replies
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


def test_call_is_nearly_over_before_deadline() -> None:
    """A call that can go on in another call ends well before the deadline. Calls without a deadline never end."""
    clock = Clock()
    call, endless = CallTime(100.0, clock=clock), CallTime(None, clock=clock)
    for now, is_over in ((0.0, False), (75.0, False), (75.1, True), (1e9, True)):
        clock.now = now
        assert (call.nearly_over, endless.nearly_over) == (is_over, False)
