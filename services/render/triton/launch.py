"""Start of a tritonserver: `python -m services.render.triton.launch --repository DIR` becomes a server."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

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
        try:
            os.execve(command[0], command, server_environment(installation, os.environ))
        except OSError as error:
            raise BackendUnavailableError(f"{command[0]} does not run: {error}: install it again") from error
    except BackendUnavailableError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
