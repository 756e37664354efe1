"""Second attempts of a unit of work (a pass, a window, a bank, a personalisation) on another replica, if a replica goes away.

Stages are pure, so a second attempt gives the same bytes on a replica of the same kind (docs/determinism.md). The second attempt
begins anew: all requests of the stream are made and sent again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from services.common.chassis.retries import RetryPolicy, retry

T = TypeVar("T")

JOB_POLICY: Final = RetryPolicy(max_attempts=8, initial_backoff_s=0.2, overload_patience_s=600.0)
"""Retries for about 18 s: a stage that restarts is found again, and a stage that stays away is an error within half a minute."""


async def until_done(work: Callable[[], Awaitable[T]], *, progress: Callable[[], int] | None = None) -> T:
    """Return the result of `work`, which begins anew after errors that are worth another attempt (see `retry`).

    Args:
        work: one attempt.
        progress: returns a number that grows as the work gets on; an attempt that gets further than all before counts as the first.

    Raises:
        DubstageError: the error of the last attempt.
    """
    return await retry(work, JOB_POLICY, progress=progress)


async def all_replies(call: Callable[[], AsyncIterator[T]]) -> list[T]:
    """Return all replies of one stream; all replies are of the same attempt.

    Args:
        call: opens the stream with fresh requests, once for each attempt.

    Raises:
        DubstageError: the error of the last attempt.
    """

    async def work() -> list[T]:
        return [reply async for reply in call()]

    return await until_done(work)
