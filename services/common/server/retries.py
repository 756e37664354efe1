"""Retries of calls that may succeed later: bounded attempts, exponential backoff, waits that the server asked for. No gRPC."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from services.common.errors import DubstageError, OverloadedError, StageDeadlineExceededError, TransientError
from services.common.server import call_context

T = TypeVar("T")

LONGEST_RETRY_AFTER_S: Final = 60.0
"""Longest wait that a server can ask for, seconds."""

_log = structlog.stdlib.get_logger("dubstage.retries")


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """Bounded exponential backoff for errors that are `retryable`.

    Attributes:
        max_attempts: attempts in a row without progress.
        initial_backoff_s, multiplier, max_backoff_s: wait after the first failure, its growth per failure, and its bound.
        max_timeouts: attempts that may end at their own deadline.
        overload_patience_s: seconds for which refusals of a full server count as no attempts.
    """

    max_attempts: int = 5
    initial_backoff_s: float = 0.1
    multiplier: float = 2.0
    max_backoff_s: float = 5.0
    max_timeouts: int = 2
    overload_patience_s: float = 0.0

    def backoff_s(self, attempt: int, error: DubstageError) -> float:
        """Return the seconds to wait after failed attempt number `attempt` (from 1), at least what the server asked for.

        Up to a tenth is added at random, so that callers that were refused together do not come back together.
        """
        wait_s = min(self.initial_backoff_s * self.multiplier ** (attempt - 1), self.max_backoff_s)
        if isinstance(error, TransientError):
            wait_s = max(wait_s, min(error.retry_after_s, LONGEST_RETRY_AFTER_S))
        return wait_s * random.uniform(1.0, 1.1)


async def retry(
    call: Callable[[], Awaitable[T]], policy: RetryPolicy | None = None, *, progress: Callable[[], int] | None = None
) -> T:
    """Await `call()` until it succeeds, fails with an error that is not retryable, or the policy's attempts are used.

    No wait goes beyond the deadline of the current call.

    Args:
        call: begins the work anew each time.
        policy: how to try again; None: the default policy.
        progress: returns a number that grows with the work. An attempt that came further than all attempts before counts as the
            first: long work survives any number of interruptions, and work that never gets beyond one point ends.

    Raises:
        DubstageError: the error of the last attempt.
    """
    policy = policy or RetryPolicy()
    loop = asyncio.get_running_loop()
    attempt = timeouts = 0
    full_until: float | None = None
    reached = progress() if progress is not None else 0
    while True:
        attempt += 1
        try:
            return await call()
        except DubstageError as error:
            if not error.retryable:
                raise
            if progress is not None and progress() > reached:
                reached, attempt, timeouts, full_until = progress(), 1, 0, None
            if isinstance(error, StageDeadlineExceededError):
                timeouts += 1
            if isinstance(error, OverloadedError) and policy.overload_patience_s > 0:
                full_until = full_until or loop.time() + policy.overload_patience_s
                if loop.time() < full_until:
                    attempt = min(attempt, policy.max_attempts - 1)
            if attempt >= policy.max_attempts or timeouts >= policy.max_timeouts:
                raise
            wait_s = policy.backoff_s(attempt, error)
            remaining_s = call_context.remaining_s()
            if remaining_s is not None and remaining_s <= wait_s:
                raise
            _report(error, attempt, wait_s)
        await asyncio.sleep(wait_s)


def _report(error: DubstageError, attempt: int, wait_s: float) -> None:
    # Servers and the command line configure logging. In other programs, the line would go to standard output.
    if structlog.is_configured():
        _log.warning("trying_again", reason=error.reason, message=error.message, attempt=attempt, wait_s=round(wait_s, 2))
