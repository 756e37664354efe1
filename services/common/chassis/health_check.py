"""Ask a server whether it serves: `python -m services.common.chassis.health_check`. Prints the answer; exits with 0 if it serves.

This command is for container health checks and probes. Its only large import is gRPC. Without arguments the command asks the server
of its own environment: on DUBSTAGE_HEALTH_PORT, which is plain text, or on DUBSTAGE_PORT.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S: Final = 4.0


def check(address: str, *, service: str = "", timeout_s: float = TIMEOUT_S) -> str:
    """Return the status of a server: SERVING, NOT_SERVING or SERVICE_UNKNOWN.

    Args:
        address: HOST:PORT, plain text.
        service: full name of a gRPC service, or `liveness`. Empty: the server as a whole.
        timeout_s: longest wait, seconds.

    Raises:
        grpc.RpcError: the server does not answer, or does not know the service.
    """
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Return the exit code: 0 the server serves, 1 it does not, 2 there is no usable answer."""
    port = os.environ.get("DUBSTAGE_HEALTH_PORT") or os.environ.get("DUBSTAGE_PORT") or ""
    parser = argparse.ArgumentParser(prog="python -m services.common.chassis.health_check", description="Does a server serve?")
    parser.add_argument("--address", default=f"127.0.0.1:{port}", help="HOST:PORT; default: the port of this environment's server")
    parser.add_argument("--service", default="", help="full name of a gRPC service, or liveness; default: the server as a whole")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="SECONDS")
    given = parser.parse_args(arguments)
    try:
        status = check(given.address, service=given.service, timeout_s=given.timeout)
    except grpc.RpcError as error:
        print(f"{given.address}: {error.code().name}", file=sys.stderr)  # type: ignore[attr-defined]  # it is a Call as well
        return 2
    print(status)
    return 0 if status == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main())
