from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest

from services.common import errors
from services.common.server import call_context
from services.common.server.retries import LONGEST_RETRY_AFTER_S, RetryPolicy, retry

QUICK = RetryPolicy(max_attempts=3, initial_backoff_s=0.001, max_backoff_s=0.002)


def lost(text: str = "gone") -> errors.BackendUnavailableError:
    return errors.BackendUnavailableError(text, retry_after_s=0.0)


def full(retry_after_s: float = 0.0) -> errors.OverloadedError:
    return errors.OverloadedError("full", retry_after_s=retry_after_s)


class Work:
    """Fails with each of `failures` in turn, then succeeds."""

    def __init__(self, failures: Iterable[Exception]) -> None:
        self._failures = list(failures)
        self.attempts = 0

    async def __call__(self) -> str:
        self.attempts += 1
        if self._failures:
            raise self._failures.pop(0)
        return "done"


async def test_retryable_error_is_retried() -> None:
    """A call that may succeed later is tried again until it does."""
    work = Work([lost(), full()])
    assert await retry(work, QUICK) == "done"
    assert work.attempts == 3


async def test_attempts_are_bounded() -> None:
    """Attempts are bounded and the last error comes out."""
    work = Work([lost("first"), lost("second"), lost("third"), lost("fourth")])
    with pytest.raises(errors.BackendUnavailableError, match="third"):
        await retry(work, QUICK)
    assert work.attempts == 3


@pytest.mark.parametrize("error", [errors.InvalidRequestError("wrong"), errors.StorageFullError("full"), ValueError("bug")])
async def test_what_cannot_succeed_later_is_not_tried_again(error: Exception) -> None:
    work = Work([error])
    with pytest.raises(type(error)):
        await retry(work, QUICK)
    assert work.attempts == 1


def test_the_wait_grows_up_to_its_bound() -> None:
    policy = RetryPolicy(initial_backoff_s=0.1, multiplier=2.0, max_backoff_s=1.0)
    waits = [policy.backoff_s(attempt, lost()) for attempt in range(1, 7)]
    for wait, expected in zip(waits, [0.1, 0.2, 0.4, 0.8, 1.0, 1.0], strict=True):
        assert expected <= wait <= 1.1 * expected


@pytest.mark.parametrize(("asked", "granted"), [(7.0, 7.0), (10_000.0, LONGEST_RETRY_AFTER_S)])
def test_servers_retry_time_is_kept(asked: float, granted: float) -> None:
    """The server's time to come back is kept beyond the policy's own bound."""
    wait = RetryPolicy(max_backoff_s=1.0).backoff_s(1, full(asked))
    assert granted <= wait <= 1.1 * granted


async def test_progress_makes_the_count_begin_anew() -> None:
    done = 0

    async def work() -> int:
        nonlocal done
        if done < 10:
            done += 1
            raise lost()
        return done

    assert await retry(work, QUICK, progress=lambda: done) == 10


async def test_work_that_never_gets_beyond_one_point_ends() -> None:
    attempts = done = 0

    async def work() -> None:
        nonlocal attempts, done
        attempts += 1
        done = 5
        raise lost()

    with pytest.raises(errors.BackendUnavailableError):
        await retry(work, QUICK, progress=lambda: done)
    # The first one came further than all before it, and counts as the first of three.
    assert attempts == 3


async def test_full_server_awaited_longer() -> None:
    """A full server is waited for longer than one that is gone."""
    patient = RetryPolicy(max_attempts=3, initial_backoff_s=0.001, max_backoff_s=0.002, overload_patience_s=30.0)
    work = Work([full() for _ in range(20)])
    assert await retry(work, patient) == "done"
    assert work.attempts == 21
    hurried = Work([full() for _ in range(20)])
    with pytest.raises(errors.OverloadedError):
        await retry(hurried, QUICK)
    assert hurried.attempts == 3


async def test_patience_with_a_full_server_has_an_end() -> None:
    policy = RetryPolicy(max_attempts=3, initial_backoff_s=0.01, max_backoff_s=0.02, overload_patience_s=0.1)
    begin, work = time.monotonic(), Work([full() for _ in range(1000)])
    with pytest.raises(errors.OverloadedError):
        await retry(work, policy)
    assert time.monotonic() - begin >= 0.1
    assert work.attempts < 1000


async def test_exhausted_attempt_repeated_once() -> None:
    """An attempt that took all its time is repeated once only."""
    work = Work([errors.StageDeadlineExceededError("late") for _ in range(5)])
    with pytest.raises(errors.StageDeadlineExceededError):
        await retry(work, RetryPolicy(max_attempts=5, initial_backoff_s=0.001))
    assert work.attempts == 2


async def test_wait_within_served_deadline() -> None:
    """No wait goes beyond the deadline of the call that is served."""
    call: Any = call_context.Call(stage="gateway", rpc="test", deadline=time.monotonic() + 20.0)
    call_context.set_current_call(call)
    try:
        begin = time.monotonic()
        with pytest.raises(errors.OverloadedError):
            await retry(Work([full(30.0)]), QUICK)
        assert time.monotonic() - begin < 20.0
    finally:
        call_context.set_current_call(None)
