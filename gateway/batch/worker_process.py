"""A worker process as the local engine sees it: started, given shots, and ended."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.batch.lines import Answer, Kind, Setup
from gateway.batch.types import ShotRecord
from gateway.child_process import child_environment

MODULE: Final = "gateway.batch.serve_shots"
SILENT_S: Final = 180.0
"""Seconds without a sign of life after which a worker is ended. A worker gives one every BEAT_S seconds."""
BEAT_S: Final = 5.0
_END_S: Final = 30.0
"""Seconds that a worker has to put its shot back and to close its stages."""
_LONGEST_LINE: Final = 16 << 20


class WorkerDied(Exception):  # noqa: N818 - names what happened
    """A worker process ended by itself, or gave no sign of life and was ended. The text says how."""


class WorkerProcess:
    """A running worker process."""

    def __init__(self, process: asyncio.subprocess.Process, silent_s: float) -> None:
        self._process = process
        self._silent_s = silent_s

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @classmethod
    async def start(cls, setup: Setup, log: Path, *, silent_s: float = SILENT_S) -> WorkerProcess:
        """Start a worker process, and wait until its stages are warm.

        Args:
            setup: what the worker works with.
            log: file that gets what the worker prints.
            silent_s: seconds without a sign of life after which the worker is ended.

        Raises:
            WorkerDied: the process ended.
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
        worker = cls(process, silent_s)
        try:
            await worker._say(setup.line())
            await worker._answer(Kind.READY)
        except BaseException:
            await worker.end()
            raise
        return worker

    async def shot(self, row: int) -> ShotRecord:
        """Let the worker dub a shot, and return the shot's new record.

        Raises:
            WorkerDied: the process ended in the middle of the shot.
            DubstageError: the worker cannot work on, such as without the store of batches.
        """
        await self._say(f"{row}\n".encode())
        answer = await self._answer(Kind.ENDED)
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
        # Of a process that is gone, the missing answer tells.
        with suppress(BrokenPipeError, ConnectionResetError):
            stdin.write(line)
            await stdin.drain()

    async def _answer(self, wanted: Kind) -> Answer:
        stdout = self._process.stdout
        assert stdout is not None
        while True:
            try:
                async with asyncio.timeout(self._silent_s):
                    line = await stdout.readline()
            except TimeoutError:
                await self._kill()
                raise WorkerDied(f"no sign of life for {self._silent_s:g} s") from None
            if not line.endswith(b"\n"):
                code = await self._process.wait()
                raise WorkerDied(f"signal {-code}" if code < 0 else f"exit code {code}")
            answer = Answer.parsed(line)
            if answer.kind is Kind.UNUSABLE:
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
