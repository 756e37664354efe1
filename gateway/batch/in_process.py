"""The engine of batches in a gateway: shots are dubbed in the gateway's process, with the stages that the gateway has opened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import structlog

from gateway.async_utilities import gather_all
from gateway.batch.row_queue import RowQueue, again_in_s, rows_left
from gateway.batch.store import BatchStore
from gateway.batch.worker import WorkerContext, run_shot
from gateway.dub.progress import OnProgress
from services.common.errors import DubstageError

PAUSE_S: Final = 10.0
"""Seconds before a further try if the database does not answer."""
_log = structlog.stdlib.get_logger("dubstage.batch")


async def run_in_process(
    context: WorkerContext,
    store: BatchStore,
    name: str,
    *,
    slots: AbstractAsyncContextManager[OnProgress],
    workers: int,
    confirm: Callable[[], None],
    check_videos: bool,
    pause_s: float = PAUSE_S,
) -> None:
    """Dub the shots of a batch until all have ended. Shots that begin anew meanwhile are dubbed too.

    If the task is cancelled, the running shots are put back. The next run goes on from there.

    Args:
        context: what the worker dubs with.
        store: store of batches.
        name: name of the batch.
        slots: entered for each attempt, so that all batches of the process together have a bound. Give what is called with every
            frame and step of the attempt.
        workers: most shots of this batch at once.
        confirm: raises WorkCancelledError if another gateway runs the batch; blocks.
        check_videos: dub shots anew that are done and whose video is gone or was changed.
        pause_s: seconds before a further try if a store does not answer.

    Raises:
        WorkCancelledError: from `confirm`.
        DubstageError: the store of batches or the stages cannot be used, and another try would end the same way.
    """
    while True:
        try:
            rows = await rows_left(store, name, check_videos=check_videos)
            if not rows:
                return
            await _Pass(context, store, name, RowQueue(rows), slots, confirm).run(min(workers, len(rows)))
            # Later passes look for shots that began anew. The videos of the first pass are known.
            check_videos = False
        except DubstageError as problem:
            if not problem.retryable:
                raise
            _log.warning("batch_waits", batch=name, reason=problem.reason, message=problem.message)
            await asyncio.sleep(pause_s)


class _Pass:
    """One walk through the rows that are left."""

    def __init__(
        self,
        context: WorkerContext,
        store: BatchStore,
        name: str,
        rows: RowQueue,
        slots: AbstractAsyncContextManager[OnProgress],
        confirm: Callable[[], None],
    ) -> None:
        self._context, self._store, self._name = context, store, name
        self._rows, self._slots, self._confirm = rows, slots, confirm

    async def run(self, workers: int) -> None:
        """Work until all rows have ended. The first error that is not one of a shot ends all workers."""
        await gather_all(self._work() for _ in range(workers))

    async def _work(self) -> None:
        while (row := await self._rows.next()) is not None:
            wait_s: float | None = 0.0
            try:
                async with self._slots as count:
                    record = await run_shot(self._context, self._store, self._name, row, on_progress=count, confirm=self._confirm)
                wait_s = again_in_s(record)
            finally:
                await self._rows.ended(row, again_in_s=wait_s)
