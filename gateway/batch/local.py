"""The local engine: worker processes on this machine, which are started, given shots, and ended.

The database is the only journal, so that nothing is lost with the engine.

Queue of the rows that are left to dub: each row once, and again later if its attempt failed.

The engine of batches in a gateway: shots are dubbed in the gateway's process, with the stages that the gateway has opened.
"""

from __future__ import annotations

import asyncio
import heapq
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Final

import structlog

from gateway.async_utilities import entered_in_threads, gather_all, in_thread
from gateway.batch.leases import batch_lease
from gateway.batch.lists import ShotQuery
from gateway.batch.records import died, present_time
from gateway.batch.serve_shots import AnswerKind, WorkerAnswer, WorkerSetup
from gateway.batch.store import BatchStore
from gateway.batch.types import ENDED, MAX_ATTEMPTS, WORKERS_FOLDER, WRITTEN, ShotRecord, ShotState
from gateway.batch.worker import WorkerContext, run_shot, video_fault
from gateway.child_process import child_environment
from gateway.dub.progress import OnProgress
from gateway.safe_paths import path_below
from gateway.settings import GatewaySettings
from services.common.errors import DubstageError, UnexpectedError

RETRY_S: Final = 3.0
"""Seconds before a second attempt; five times as long before a third."""
MODULE: Final = "gateway.batch.serve_shots"
SILENT_S: Final = 180.0
"""Seconds without a sign of life after which a worker is ended. A worker gives one every BEAT_S seconds."""
BEAT_S: Final = 5.0
_END_S: Final = 30.0
"""Seconds that a worker has to put its shot back and to close its stages."""
_LONGEST_LINE: Final = 16 << 20
PAUSE_S: Final = 10.0
"""Seconds before a further try if the database does not answer."""

_log = structlog.stdlib.get_logger("dubstage.batch")


class RowQueue:
    """Rows to dub.

    Args:
        rows: rows, drawn in this order.
    """

    def __init__(self, rows: Iterable[int]) -> None:
        self._waiting = [(0.0, row) for row in rows]
        heapq.heapify(self._waiting)
        self._drawn: set[int] = set()
        self._changed = asyncio.Condition()

    async def next(self) -> int | None:
        """Return the next row to dub; None: all rows have ended. Wait while every row is dubbed now or waits for its next try."""
        loop = asyncio.get_running_loop()
        async with self._changed:
            while self._waiting or self._drawn:
                rest_s = self._waiting[0][0] - loop.time() if self._waiting else None
                if rest_s is not None and rest_s <= 0:
                    _, row = heapq.heappop(self._waiting)
                    self._drawn.add(row)
                    return row
                try:
                    async with asyncio.timeout(rest_s):
                        await self._changed.wait()
                except TimeoutError:
                    continue
            return None

    async def ended(self, row: int, *, again_in_s: float | None) -> None:
        """Give a drawn row back.

        Args:
            again_in_s: seconds until the row can be drawn again; None: the row has ended.
        """
        async with self._changed:
            self._drawn.discard(row)
            if again_in_s is not None:
                heapq.heappush(self._waiting, (asyncio.get_running_loop().time() + again_in_s, row))
            self._changed.notify_all()


async def rows_left(store: BatchStore, name: str, *, check_videos: bool) -> list[int]:
    """Return the rows of the shots that are to be dubbed.

    Args:
        store: store of batches.
        name: name of the batch.
        check_videos: also return shots that are done and whose video is gone or was changed. Every video is read.

    Raises:
        DubstageError: the store of batches, or the place of a video, cannot be used.
    """
    rows = list(await in_thread(store.left, name))
    if check_videos:
        written = await in_thread(store.shots, name, ShotQuery(states=WRITTEN))
        rows += [row for row, shot, record, _ in written if await video_fault(shot, record)]
    return sorted(rows)


def again_in_s(record: ShotRecord) -> float | None:
    """Return the seconds after which a shot is to be tried again; None: the shot has ended."""
    return None if record.state in ENDED else float(RETRY_S * 5 ** max(0, record.attempts - 1))


class WorkerDiedError(Exception):
    """A worker process ended by itself, or gave no sign of life and was ended. The text says how."""


class WorkerProcess:
    """A running worker process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

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
            record = died(record, how, present_time())
            await in_thread(self._store.put, self._name, record)
        return again_in_s(record)


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
