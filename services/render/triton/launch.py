"""Start of a tritonserver: `python -m services.render.triton.launch --repository DIR` becomes a server. Tests and bench use it too.

This module imports the standard library only, so an image needs no more of dubstage than this folder and services/common/errors.py.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from services.common.errors import BackendUnavailableError
from services.render.triton.installation import DEFAULT_HOME, TritonInstallation, find

GRPC_PORT: Final = 8001
HTTP_PORT: Final = 8000
METRICS_PORT: Final = 8002
_LOOPBACK: Final = "127.0.0.1"
_NOT_FOR_PROBES: Final = "metadata,inference,shared-memory,model-config,model-repository,statistics,trace,logging"


def server_command(
    installation: TritonInstallation,
    repository: Path,
    *,
    grpc_address: str = _LOOPBACK,
    http_address: str = _LOOPBACK,
    metrics_address: str = _LOOPBACK,
    grpc_port: int = GRPC_PORT,
    http_port: int = HTTP_PORT,
    metrics_port: int = METRICS_PORT,
) -> list[str]:
    """Return the command line of a server that loads nothing by itself: the render stage decides what is loaded."""
    # Probes come from outside the pod. All other functions of HTTP need a random secret, which is not kept anywhere.
    restricted = [] if http_address == _LOOPBACK else [f"--http-restricted-api={_NOT_FOR_PROBES}:dubstage={secrets.token_hex(16)}"]
    return [
        str(installation.binary),
        f"--model-repository={repository}",
        f"--backend-directory={installation.backends}",
        "--model-control-mode=explicit",
        f"--grpc-address={grpc_address}",
        f"--grpc-port={grpc_port}",
        f"--http-address={http_address}",
        f"--http-port={http_port}",
        f"--metrics-address={metrics_address}",
        f"--metrics-port={metrics_port}",
        "--exit-timeout-secs=10",
        "--disable-auto-complete-config",
        f"--backend-config=python,shm-region-prefix-name={_memory_prefix(grpc_port)}",
        *restricted,
    ]


def server_environment(installation: TritonInstallation, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a server: its own interpreter first, its libraries, and nothing of dubstage on the Python path."""
    kept = {name: value for name, value in environment.items() if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}
    libraries = [*map(str, installation.libraries), *filter(None, [kept.get("LD_LIBRARY_PATH", "")])]
    return {
        **kept,
        "PATH": os.pathsep.join([str(installation.bin), kept.get("PATH", os.defpath)]),
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def remove_abandoned(grpc_port: int) -> None:
    """Remove shared memory that a killed server on this port left behind."""
    for left in Path("/dev/shm").glob(f"{_memory_prefix(grpc_port)}*"):
        left.unlink(missing_ok=True)


def _memory_prefix(grpc_port: int) -> str:
    return f"dubstage-triton-{grpc_port}-"


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


def main() -> int:
    """Replace this process by a tritonserver. Return the exit code only if there is no tritonserver."""
    parser = argparse.ArgumentParser(prog="python -m services.render.triton.launch", description=__doc__)
    parser.add_argument("--repository", type=Path, required=True, help="model repository, from services.render.triton.repository")
    parser.add_argument("--home", type=Path, default=DEFAULT_HOME, help="folder of the installation")
    parser.add_argument("--grpc-address", default=_LOOPBACK, help="gRPC; 0.0.0.0 lets every caller load and unload models")
    parser.add_argument("--http-address", default=_LOOPBACK, help="HTTP; 0.0.0.0 for probes of a pod, which then get health only")
    parser.add_argument("--metrics-address", default=_LOOPBACK, help="metrics; 0.0.0.0 for Prometheus")
    parser.add_argument("--grpc-port", type=int, default=GRPC_PORT, help="port of gRPC")
    parser.add_argument("--http-port", type=int, default=HTTP_PORT, help="port of HTTP")
    parser.add_argument("--metrics-port", type=int, default=METRICS_PORT, help="port of metrics")
    given = parser.parse_args()
    try:
        installation = find(given.home)
        command = server_command(
            installation,
            given.repository,
            grpc_address=given.grpc_address,
            http_address=given.http_address,
            metrics_address=given.metrics_address,
            grpc_port=given.grpc_port,
            http_port=given.http_port,
            metrics_port=given.metrics_port,
        )
        remove_abandoned(given.grpc_port)
        os.execve(command[0], command, server_environment(installation, os.environ))
    except BackendUnavailableError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
