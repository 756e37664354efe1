"""Workers of this machine, with the progress of the batch on the terminal."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from gateway.batch.records import progress_of
from gateway.batch.store import BatchStore
from gateway.batch.types import BatchFacts, ShotRecord
from gateway.cli.app import run_async
from gateway.cli.batch_show import show_end
from gateway.cli.batch_watch import POLL_SECONDS, BatchProgress
from gateway.settings import GatewaySettings
from services.common.errors import DubstageError


def run_here(settings: GatewaySettings, store: BatchStore, facts: BatchFacts, workers: int) -> int:
    """Dub the shots of a batch that are left by worker processes of this machine, with progress, and return the exit code.

    Args:
        settings: settings of the command.
        store: store of batches.
        facts: the batch.
        workers: worker processes; 0: one for each `compute_threads` cores.
    """
    from gateway.batch.local import run_local
    from gateway.batch.removal import expire_batches

    processes = workers or max(1, len(os.sched_getaffinity(0)) // settings.compute_threads)
    records: list[ShotRecord] = []

    async def work() -> None:
        with BatchProgress(facts.name) as progress:
            shown = asyncio.create_task(_show(store, facts.name, progress))
            try:
                records.extend(await run_local(settings, store, facts.name, workers=processes))
            finally:
                shown.cancel()
            progress.update(progress_of(records))

    run_async(work())
    # The next run, or a gateway, tries again. Batches of other engines are left to their gateway.
    with suppress(DubstageError):
        expire_batches(settings, lambda name: store.facts(name).engine != "local")
    return show_end(facts.name, records)


async def _show(store: BatchStore, name: str, progress: BatchProgress) -> None:
    """Show the progress of a batch again and again."""
    while True:
        # If the store does not answer, the workers try again or say so.
        with suppress(DubstageError):
            progress.update(progress_of(await asyncio.to_thread(store.records, name)))
        await asyncio.sleep(POLL_SECONDS)
