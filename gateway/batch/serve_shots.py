"""Worker process of the local engine: `python -m gateway.batch.serve_shots`.

stdin and stdout carry the protocol below: one JSON document a line.

The engine sends a `WorkerSetup`, and then the row of one shot after the other, as a number. The end of the pipe ends the worker.
The worker sends `WorkerAnswer`s: ALIVE every few seconds, READY once its stages are warm, and ENDED after each shot. A worker that
cannot work at all sends UNUSABLE and ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import Any, BinaryIO, Self, cast

from pydantic import BaseModel, ConfigDict

from gateway.batch.records import failure_of
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord
from gateway.batch.worker import open_worker_context, run_shot
from gateway.dub.request.spec_text import ROWS
from gateway.settings import GatewaySettings
from services.common.errors import DubstageError, UnexpectedError, leaves


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def line(self) -> bytes:
        """Return the document as one line."""
        return f"{self.model_dump_json()}\n".encode()

    @classmethod
    def parsed(cls, line: bytes) -> Self:
        """Return the document of a line.

        Raises:
            ValueError: the line holds something else.
        """
        return cls.model_validate_json(line)


class WorkerSetup(_Line):
    """Settings that a worker process gets first.

    Attributes:
        settings: settings of the command that started the worker, as JSON values.
        name: name of the batch.
        beat_s: seconds between two signs of life.
    """

    settings: dict[str, Any]
    name: str
    beat_s: float

    def gateway_settings(self) -> GatewaySettings:
        """Return the settings."""
        return GatewaySettings(**self.settings)


class AnswerKind(StrEnum):
    """Kind of an answer."""

    READY = "ready"
    ALIVE = "alive"
    ENDED = "ended"
    UNUSABLE = "unusable"


class WorkerAnswer(_Line):
    """A line of a worker.

    Attributes:
        kind: what the line says.
        record: new record of the shot, of ENDED.
        reason: reason of the error, of UNUSABLE.
        message: message of the error, of UNUSABLE.
    """

    kind: AnswerKind
    record: ShotRecord | None = None
    reason: str = ""
    message: str = ""

    @classmethod
    def unusable(cls, problem: DubstageError) -> Self:
        """Return the answer of a worker that cannot work."""
        return cls(kind=AnswerKind.UNUSABLE, reason=problem.reason, message=problem.in_words(ROWS))

    def error(self) -> DubstageError:
        """Return the error of an UNUSABLE worker."""
        kinds = {leaf.reason: leaf for leaf in leaves()}
        return kinds.get(self.reason, UnexpectedError)(self.message)


async def serve(commands: BinaryIO, answers: int) -> None:
    """Dub the shots whose rows come in, until no further row comes. If the pipe ends in the middle of a shot, the shot is put back.

    Args:
        commands: pipe from the engine.
        answers: descriptor of the pipe to the engine.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    reader = asyncio.StreamReader()
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), commands)

    def answer(what: WorkerAnswer) -> None:
        # An engine that is gone reads nothing. The end of its other pipe ends this process.
        with suppress(BrokenPipeError):
            os.write(answers, what.line())

    async def work() -> None:
        first = await reader.readline()
        if not first:
            return
        setup = WorkerSetup.parsed(first)
        rows: asyncio.Queue[int] = asyncio.Queue()
        async with (
            _beside(_listen(reader, rows, task)),
            _beside(_beat(answer, setup.beat_s)),
            open_worker_context(setup.gateway_settings(), warm_up=True) as context,
        ):
            await context.stages()
            store = BatchStore(context.installation.actors.database)
            answer(WorkerAnswer(kind=AnswerKind.READY))
            while True:
                answer(WorkerAnswer(kind=AnswerKind.ENDED, record=await run_shot(context, store, setup.name, await rows.get())))

    try:
        await work()
    except DubstageError as problem:
        answer(WorkerAnswer.unusable(problem))
    except Exception as problem:
        failure = failure_of(problem)
        answer(WorkerAnswer(kind=AnswerKind.UNUSABLE, reason=UnexpectedError.reason, message=failure.message))
    finally:
        pipe.close()


async def _listen(reader: asyncio.StreamReader, rows: asyncio.Queue[int], task: asyncio.Task[None]) -> None:
    """Queue the rows that come in. At the end of the pipe, cancel the task."""
    while line := await reader.readline():
        rows.put_nowait(int(line))
    task.cancel()


async def _beat(answer: Callable[[WorkerAnswer], None], every_s: float) -> None:
    while True:
        answer(WorkerAnswer(kind=AnswerKind.ALIVE))
        await asyncio.sleep(every_s)


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let a task run beside the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()


def main() -> None:
    """Serve shots until the engine closes the pipe."""
    # Libraries print to stdout, and processes that this one starts inherit stdin: both pipes get descriptors of their own.
    commands, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(asyncio.CancelledError):
        asyncio.run(serve(cast("BinaryIO", commands), answers))
    sys.exit(0)


if __name__ == "__main__":
    main()
