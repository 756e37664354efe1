"""The local engine: worker processes on this machine.

The store of batches is the only journal, so that nothing is lost with the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gateway.ahead import all_together, in_thread
from gateway.batch.alone import LOGS, alone
from gateway.batch.lines import Setup
from gateway.batch.row_queue import RowQueue
from gateway.batch.rows_left import again_in_s, rows_left
from gateway.batch.store import BatchStore
from gateway.batch.transitions import died, present_time
from gateway.batch.types import MAX_ATTEMPTS, ShotRecord, ShotState
from gateway.batch.worker_process import BEAT_S, SILENT_S, WorkerDied, WorkerProcess
from gateway.settings import GatewaySettings
from services.common.errors import Unexpected


async def run_local(
    settings: GatewaySettings,
    store: BatchStore,
    name: str,
    *,
    workers: int,
    on_record: Callable[[ShotRecord], None] = lambda _: None,
    silent_s: float = SILENT_S,
) -> list[ShotRecord]:
    """Dub all shots of a batch that have not ended, and return the records of all shots in the order of the rows.

    A shot that is done is dubbed again only if its film is gone or was changed. If the task is cancelled, the workers put their
    shots back and end. The next run goes on from there.

    Args:
        settings: settings of the command. They hold for each worker, also `compute_threads`, on which the bytes of films depend.
        store: store of batches.
        name: name of the batch.
        workers: most worker processes at once, 1 or more.
        on_record: called with the new record of a shot after each attempt.
        silent_s: seconds without a sign of life after which a worker is ended, and its shot is tried again.

    Raises:
        BatchNotFound: there is no such batch.
        InvalidRequest: another process of this machine runs the batch.
        DubstageError: no worker can work here: the stages cannot be opened, or a store cannot be used.
    """
    await in_thread(store.facts, name)
    with alone(settings, store, name):
        rows = await rows_left(store, name, check_films=True)
        engine = _Engine(settings, store, name, RowQueue(rows), on_record, silent_s)
        await engine.run(min(workers, len(rows)))
    return await in_thread(store.records, name)


class _Engine:
    def __init__(
        self,
        settings: GatewaySettings,
        store: BatchStore,
        name: str,
        rows: RowQueue,
        on_record: Callable[[ShotRecord], None],
        silent_s: float,
    ) -> None:
        self._setup = Setup(settings=settings.model_dump(mode="json"), store=store.url, name=name, beat_s=min(BEAT_S, silent_s / 4))
        self._logs = settings.data_dir / LOGS
        self._store, self._name, self._rows, self._on_record, self._silent_s = store, name, rows, on_record, silent_s

    async def run(self, workers: int) -> None:
        """Work until all rows have ended. The first error that is not one of a shot ends all workers."""
        self._logs.mkdir(mode=0o700, exist_ok=True)
        await all_together(self._work(number) for number in range(workers))

    async def _work(self, number: int) -> None:
        """Give rows to a worker process, one after the other, and replace the process when it dies."""
        log = self._logs / f"{self._name}-{number}.log"
        log.unlink(missing_ok=True)
        worker: WorkerProcess | None = None
        try:
            while (row := await self._rows.next()) is not None:
                wait_s: float | None = 0.0
                try:
                    worker = worker or await self._started(log)
                    wait_s = await self._dubbed(worker, row)
                except WorkerDied as problem:
                    worker = None
                    wait_s = await self._mourned(row, f"{problem}; its log is {log}")
                finally:
                    await self._rows.ended(row, again_in_s=wait_s)
        finally:
            if worker is not None:
                await worker.end()

    async def _started(self, log: Path) -> WorkerProcess:
        """Start a worker process. No shot is to blame for a process that dies before its first shot."""
        for tries in range(1, MAX_ATTEMPTS + 1):
            try:
                return await WorkerProcess.start(self._setup, log, silent_s=self._silent_s)
            except WorkerDied as problem:
                if tries == MAX_ATTEMPTS:
                    raise Unexpected(f"a worker died {tries} times before its first shot ({problem}); its log is {log}") from None
        raise AssertionError("a loop of one try or more")

    async def _dubbed(self, worker: WorkerProcess, row: int) -> float | None:
        """Let a worker dub a shot. Return the seconds after which the shot is to be tried again; None: the shot has ended."""
        record = await worker.shot(row)
        self._on_record(record)
        return again_in_s(record)

    async def _mourned(self, row: int, how: str) -> float | None:
        """Write down that the worker of a shot died, and return as `_dubbed` does."""
        shot = (await in_thread(self._store.manifest, self._name))[row]
        record = await in_thread(self._store.record, self._name, shot.id)
        if record.state is ShotState.RUNNING:
            record = died(record, how, present_time())
            await in_thread(self._store.put, self._name, record)
        self._on_record(record)
        return again_in_s(record)
