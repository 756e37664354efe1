"""A tritonserver on free ports of this machine, as a context manager."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from services.common.errors import BackendUnavailableError
from services.render.triton.installation import DEFAULT_HOME, find
from services.render.triton.launch import remove_abandoned, server_command, server_environment


class TritonProcess:
    """Server on free ports of this machine. A context manager: the server ends with the context.

    Args:
        log: file for the server's output.
        home: folder of the installation.
        start_timeout_s: time within which the server must be live, seconds.

    Raises:
        BackendUnavailableError: there is no installation, or the server does not come up.
    """

    def __init__(self, repository: Path, log: Path, *, home: Path = DEFAULT_HOME, start_timeout_s: float = 30.0) -> None:
        self.grpc_port, self.http_port, self.metrics_port = free_ports(3)
        self._installation = find(home)
        self._repository = repository
        self._log = log
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """HOST:PORT of the server's gRPC."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def pid(self) -> int:
        """Process id of the server.

        Raises:
            BackendUnavailableError: the server does not run.
        """
        if self._process is None:
            raise BackendUnavailableError("tritonserver does not run")
        return self._process.pid

    def start(self) -> None:
        """Start the server on its ports and wait until the server is live."""
        command = server_command(
            self._installation,
            self._repository,
            grpc_port=self.grpc_port,
            http_port=self.http_port,
            metrics_port=self.metrics_port,
        )
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=server_environment(self._installation, os.environ),
                start_new_session=True,
            )
        deadline = time.monotonic() + self._start_timeout_s
        while not self._live():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                end = self._log.read_text(encoding="utf-8", errors="replace").strip()[-800:]
                raise BackendUnavailableError(f"tritonserver did not come up:\n{end}")
            time.sleep(0.05)

    def stop(self, *, kill: bool = False) -> None:
        """End the server: orderly, or by SIGKILL."""
        if self._process is None:
            return
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        try:
            self._process.wait(timeout=15.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # The processes of models are in the server's group. They would outlive a server that was killed.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None
        remove_abandoned(self.grpc_port)

    def _live(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/v2/health/live", timeout=1.0) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # An orderly end takes seconds and saves nothing.
        self.stop(kill=True)


def free_ports(count: int) -> list[int]:
    """Return free TCP ports of the loopback."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
