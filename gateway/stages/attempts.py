"""A unit of work - a pass, a window, a bank, a personalisation - done again on another replica where one goes away in mid-work.

Stages are pure, so a second attempt gives the same bytes on a replica of the same kind (docs/determinism.md). It begins anew:
whatever the first one streamed is made and sent again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from services.common.retries import RetryPolicy, retry

T = TypeVar("T")

JOB_POLICY: Final = RetryPolicy(max_attempts=8, initial_backoff_s=0.2, overload_patience_s=600.0)
"""Some 18 s for a stage of which no replica serves: it may restart; where none comes, there is an answer in half a minute."""


async def until_done(work: Callable[[], Awaitable[T]], *, progress: Callable[[], int] | None = None) -> T:
    """The result of `work`, begun anew after errors that are worth it (see `retry`).

    Raises:
        DubstageError: the last attempt's.
    """
    return await retry(work, JOB_POLICY, progress=progress)


async def all_replies(call: Callable[[], AsyncIterator[T]]) -> list[T]:
    """All replies of one stream, all of the same attempt.

    Args:
        call: opens the stream, with requests of its own, each time.

    Raises:
        DubstageError: the last attempt's.
    """

    async def work() -> list[T]:
        return [reply async for reply in call()]

    return await until_done(work)
