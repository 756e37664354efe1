"""Ends work with a person when any process erases the person, or when the consent ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from gateway.async_utilities import in_thread
from gateway.dub.job.dub_job import DubJob
from gateway.dub.job.outcome import DubOutcome
from gateway.dub.progress import OnFootage, OnProgress
from services.common.errors import ActorError, ConsentExpiredError, ConsentRefusedError, ConsentWithdrawnError, TransientError

T = TypeVar("T")

ENDED: Final = (ActorError, ConsentWithdrawnError, ConsentExpiredError)
"""Errors after which nothing of a person is kept, also not for other dubs."""
FORBIDDEN: Final = (ActorError, ConsentRefusedError)
"""Errors after which nothing of a dub is kept."""
POLL_S: Final = 1.0
"""Seconds between two looks at the database."""


async def while_allowed(check: Callable[[], None], work: Coroutine[Any, Any, T], *, every_s: float = POLL_S) -> T:
    """Return what `work` returns, or cancel it as soon as `check` says that it may not go on.

    Args:
        check: looks at the database and blocks. Raises an error if the work may not go on: the actor was erased, or the consent
            has ended.
        work: the work. When this function raises an error, the work was cancelled and has ended.
        every_s: seconds between two looks at the database.

    Raises:
        DubstageError: from `check`.
        Exception: from `work`.
    """
    task = asyncio.ensure_future(work)
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=every_s)
            if done:
                return await task
            try:
                await asyncio.to_thread(check)
            except TransientError:
                # A database that restarts is no reason to end the work: work that needs the database finds out on its own.
                continue
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def dub_while_allowed(job: DubJob, check: Callable[[], None], on_progress: OnProgress, on_footage: OnFootage) -> DubOutcome:
    """Run a dub, and return its outcome. If the dub may not go on, nothing of the dub is kept.

    Args:
        job: the dub.
        check: as for `while_allowed`.
        on_progress: called with every frame and step.
        on_footage: as for `DubJob.run`.

    Raises:
        ActorError: the actor was erased.
        ConsentRefusedError: the consent has ended.
        DubstageError: as `DubJob.run`.
    """
    try:
        return await while_allowed(check, job.run(on_progress, on_footage))
    except ENDED:
        await in_thread(job.forget)
        raise
    except FORBIDDEN:
        await in_thread(job.discard)
        raise
