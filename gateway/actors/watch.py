"""Ends work with an actor when any process erases the actor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from gateway.actors.ledger import JobLedger
from gateway.ahead import in_thread
from gateway.pipeline.dub import DubJob
from gateway.pipeline.outcome import DubOutcome
from gateway.pipeline.progress import OnProgress
from services.common.errors import ActorNotReady, TransientError

T = TypeVar("T")

LOOK_S: Final = 1.0
"""Seconds between two looks at the database."""


async def unless_erased(check: Callable[[], None], work: Coroutine[Any, Any, T], *, every_s: float = LOOK_S) -> T:
    """Return what `work` returns, or cancel it as soon as `check` says that the actor is gone.

    Args:
        check: looks at the database and blocks. Raises ActorNotReady if the actor was erased or is being erased.
        work: the work. When this function raises an error, the work was cancelled and has ended.
        every_s: seconds between two looks at the database.

    Raises:
        ActorNotReady: from `check`.
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


async def dub_unless_erased(job: DubJob, ledger: JobLedger, on_progress: OnProgress) -> DubOutcome:
    """Run a dub, and return its outcome. If the actor is erased meanwhile, nothing of the dub is kept.

    Raises:
        ActorNotReady: the actor was erased.
        DubstageError: as `DubJob.run`.
    """
    try:
        return await unless_erased(ledger.check, job.run(on_progress))
    except ActorNotReady:
        await in_thread(job.discard)
        raise
