"""Work with an actor ends where the actor is erased meanwhile, in whichever process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from gateway.actors.ledger import JobLedger
from gateway.ahead import in_thread
from gateway.pipeline.dub import DubJob, OnProgress
from gateway.pipeline.outcome import DubOutcome
from services.common.errors import ActorNotReady, TransientError

T = TypeVar("T")

LOOK_S: Final = 1.0
"""Seconds between two looks at the database."""


async def unless_erased(check: Callable[[], None], work: Coroutine[Any, Any, T], *, every_s: float = LOOK_S) -> T:
    """Return what `work` returns, or cancel it as soon as `check` says that the actor is gone.

    Args:
        check: looks at the database, blocking; raises ActorNotReady where the actor was erased, or is being erased.
        work: is cancelled, and has ended, when this raises an error.
        every_s: seconds between two looks.

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
                # A database that restarts is no reason to end: the work itself finds out where it needs the database.
                continue
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def dub_unless_erased(job: DubJob, ledger: JobLedger, on_progress: OnProgress) -> DubOutcome:
    """Run a dub; where its actor is erased meanwhile, nothing of the dub is kept.

    Raises:
        ActorNotReady: the actor was erased.
        DubstageError: as `DubJob.run`.
    """
    try:
        return await unless_erased(ledger.check, job.run(on_progress))
    except ActorNotReady:
        await in_thread(job.discard)
        raise
