"""Server processes that start again when they die, as a cluster does with containers."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

POLL_S = 0.2
"""Seconds between two looks whether a server has ended."""
START_S = 180.0
ROOT = Path(__file__).parents[2]


class Server:
    """One server process after another, at one address; a context manager.

    Args:
        name: name of the server in the report.
        command: command line.
        folder: gets the log and the file that says that the server is ready.
        waits: whether the server writes the file DUBSTAGE_READY_FILE.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, *, waits: bool = True
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.starts = 0
        self._command, self._environment, self._folder, self._waits = list(command), dict(environment), folder, waits
        self._ready = folder / f"{name}.ready"
        self._process: subprocess.Popen[bytes] | None = None
        self._ends = threading.Event()
        self._guard = threading.Thread(target=self._keep, name=f"keeps {name}", daemon=True)

    @property
    def pid(self) -> int:
        """Number of the process that runs now, or that ran last."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End the process at once; another one starts soon."""
        os.kill(self.pid, signal.SIGKILL)

    def wait_until_ready(self) -> None:
        """Wait until the present process serves.

        Raises:
            TimeoutError: the server does not come up within START_S.
        """
        deadline = time.monotonic() + START_S
        while self._waits and not self._ready.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} did not come up; see {self.log}")
            time.sleep(POLL_S)

    def __enter__(self) -> Self:
        self._start()
        self._guard.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ends.set()
        self._guard.join()
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _start(self) -> None:
        self.starts += 1
        self._ready.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env={**self._environment, "DUBSTAGE_READY_FILE": str(self._ready)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )

    def _keep(self) -> None:
        while not self._ends.wait(POLL_S):
            assert self._process is not None
            if self._process.poll() is not None:
                self._start()
