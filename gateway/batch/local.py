"""The local engine: worker processes on this machine, which are started, given shots, and ended.

The database is the only journal, so that nothing is lost with the engine.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.async_utilities import entered_in_threads, gather_all, in_thread
from gateway.batch.leases import batch_lease
from gateway.batch.records import died
from gateway.batch.row_queue import RowQueue, again_in_s, rows_left
from gateway.batch.serve_shots import AnswerKind, WorkerAnswer, WorkerSetup
from gateway.batch.store import BatchStore
from gateway.batch.types import MAX_ATTEMPTS, WORKERS_FOLDER, ShotRecord, ShotState
from gateway.child_process import child_environment
from gateway.safe_paths import path_below
from gateway.settings import GatewaySettings
from gateway.times import now_ms
from services.common.errors import UnexpectedError

MODULE: Final = "gateway.batch.serve_shots"
SILENT_S: Final = 180.0
"""Seconds without a sign of life after which a worker is ended. A worker gives one every BEAT_S seconds."""
BEAT_S: Final = 5.0
_END_S: Final = 30.0
"""Seconds that a worker has to put its shot back and to close its stages."""
_LONGEST_LINE: Final = 16 << 20


class WorkerDiedError(Exception):
    """A worker process ended by itself, or gave no sign of life and was ended. The text says how."""


class WorkerProcess:
    """A running worker process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, setup: WorkerSetup, log: Path) -> WorkerProcess:
        """Start a worker process, and wait until its stages are warm.

        Args:
            setup: what the worker works with.
            log: file that gets what the worker prints.

        Raises:
            WorkerDiedError: the process ended.
            DubstageError: the worker cannot work here.
        """
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a file of the user's folder, such as signal.py, is no module of ours
                "-m",
                MODULE,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                # Ctrl-C reaches all processes of a terminal's session. The engine ends the workers itself.
                start_new_session=True,
                env=child_environment(),
                limit=_LONGEST_LINE,
            )
        worker = cls(process)
        try:
            await worker._say(setup.line())
            await worker._answer(AnswerKind.READY)
        except BaseException:
            await worker.end()
            raise
        return worker

    async def shot(self, row: int) -> ShotRecord:
        """Let the worker dub a shot, and return the shot's new record.

        Raises:
            WorkerDiedError: the process ended in the middle of the shot.
            DubstageError: the worker cannot work on, such as without the store of batches.
        """
        await self._say(f"{row}\n".encode())
        answer = await self._answer(AnswerKind.ENDED)
        assert answer.record is not None
        return answer.record

    async def end(self) -> None:
        """End the worker. A shot that it works on is put back. A worker that does not end in time is killed."""
        process = self._process
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(_END_S):
                await self._drained()
                await process.wait()
        except TimeoutError:
            await self._kill()

    async def _say(self, line: bytes) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        # The missing answer tells that the process is gone.
        with suppress(BrokenPipeError, ConnectionResetError):
            stdin.write(line)
            await stdin.drain()

    async def _answer(self, wanted: AnswerKind) -> WorkerAnswer:
        stdout = self._process.stdout
        assert stdout is not None
        while True:
            try:
                async with asyncio.timeout(SILENT_S):
                    line = await stdout.readline()
            except TimeoutError:
                await self._kill()
                raise WorkerDiedError(f"no sign of life for {SILENT_S:g} s") from None
            if not line.endswith(b"\n"):
                code = await self._process.wait()
                raise WorkerDiedError(f"signal {-code}" if code < 0 else f"exit code {code}")
            answer = WorkerAnswer.parsed(line)
            if answer.kind is AnswerKind.UNUSABLE:
                raise answer.error()
            if answer.kind is wanted:
                return answer

    async def _drained(self) -> None:
        """Read the remaining answers, so that the worker never waits for a reader."""
        stdout = self._process.stdout
        assert stdout is not None
        while await stdout.read(1 << 16):
            pass

    async def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


async def run_local(settings: GatewaySettings, store: BatchStore, name: str, *, workers: int) -> list[ShotRecord]:
    """Dub all shots of a batch that have not ended, and return the records of all shots in the order of the rows.

    A shot that is done is dubbed again only if its video is gone or was changed. If the task is cancelled, the workers put their
    shots back and end. The next run goes on from there.

    Args:
        settings: settings of the command. They hold for each worker, also `compute_threads`, on which the bytes of videos depend.
        store: store of batches.
        name: name of the batch.
        workers: most worker processes at once, 1 or more.

    Raises:
        BatchNotFoundError: there is no such batch.
        InvalidRequestError: another process runs the batch.
        DubstageError: no worker can work here: the stages cannot be opened, or a store cannot be used.
    """
    async with entered_in_threads(batch_lease(store, name)):
        rows = await rows_left(store, name, check_videos=True)
        engine = _Engine(settings, store, name, RowQueue(rows))
        await engine.run(min(workers, len(rows)))
    return await in_thread(store.records, name)


class _Engine:
    def __init__(self, settings: GatewaySettings, store: BatchStore, name: str, rows: RowQueue) -> None:
        self._setup = WorkerSetup(settings=settings.model_dump(mode="json"), name=name, beat_s=BEAT_S)
        self._logs = settings.data_dir / WORKERS_FOLDER
        self._store, self._name, self._rows = store, name, rows

    async def run(self, workers: int) -> None:
        """Work until all rows have ended. The first error that is not one of a shot ends all workers."""
        self._logs.mkdir(mode=0o700, exist_ok=True)
        await gather_all(self._work(number) for number in range(workers))

    async def _work(self, number: int) -> None:
        """Give rows to a worker process, one after the other, and replace the process when it dies."""
        log = path_below(self._logs, f"{self._name}-{number}.log", field="name")
        log.unlink(missing_ok=True)
        worker: WorkerProcess | None = None
        try:
            while (row := await self._rows.next()) is not None:
                wait_s: float | None = 0.0
                try:
                    worker = worker or await self._started(log)
                    wait_s = await self._dubbed(worker, row)
                except WorkerDiedError as problem:
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
                return await WorkerProcess.start(self._setup, log)
            except WorkerDiedError as problem:
                if tries == MAX_ATTEMPTS:
                    raise UnexpectedError(
                        f"a worker died {tries} times before its first shot ({problem}); its log is {log}"
                    ) from None
        raise AssertionError("a loop of one try or more")

    async def _dubbed(self, worker: WorkerProcess, row: int) -> float | None:
        """Let a worker dub a shot. Return the seconds after which the shot is to be tried again; None: the shot has ended."""
        return again_in_s(await worker.shot(row))

    async def _mourned(self, row: int, how: str) -> float | None:
        """Write down that the worker of a shot died, and return as `_dubbed` does."""
        shot = await in_thread(self._store.shot, self._name, row)
        record = await in_thread(self._store.record, self._name, shot.id)
        if record.state is ShotState.RUNNING:
            record = died(record, how, now_ms())
            await in_thread(self._store.put, self._name, record)
        return again_in_s(record)
