"""Ask a server whether it serves: `python -m services.common.server.health_check`. Prints the answer; exits with 0 if it serves.

This command is for container health checks and probes. Its only large import is gRPC. Without arguments the command asks the server
of its own environment: on DUBSTAGE_HEALTH_PORT, which is plain text and asks for no token, or on DUBSTAGE_PORT, with the first
token of DUBSTAGE_AUTH_TOKEN_FILE.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.errors import DubstageError

TIMEOUT_S: Final = 4.0


def check(address: str, *, service: str = "", timeout_s: float = TIMEOUT_S, token: str = "") -> str:
    """Return the status of a server: SERVING, NOT_SERVING or SERVICE_UNKNOWN.

    Args:
        address: HOST:PORT, plain text.
        service: full name of a gRPC service, or `liveness`. Empty: the server as a whole.
        timeout_s: longest wait, seconds.
        token: bearer token, for a server that asks for one on this port.

    Raises:
        grpc.RpcError: the server does not answer, or does not know the service.
    """
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s, metadata=metadata)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Return the exit code: 0 the server serves, 1 it does not, 2 there is no usable answer."""
    port = os.environ.get("DUBSTAGE_HEALTH_PORT") or os.environ.get("DUBSTAGE_PORT") or ""
    parser = argparse.ArgumentParser(prog="python -m services.common.server.health_check", description="Does a server serve?")
    parser.add_argument("--address", default=f"127.0.0.1:{port}", help="HOST:PORT; default: the port of this environment's server")
    parser.add_argument("--service", default="", help="full name of a gRPC service, or liveness; default: the server as a whole")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="SECONDS")
    given = parser.parse_args(arguments)
    try:
        # Only the server itself gets its token.
        own = given.address == parser.get_default("address") and not os.environ.get("DUBSTAGE_HEALTH_PORT")
        status = check(given.address, service=given.service, timeout_s=given.timeout, token=_own_token() if own else "")
    except DubstageError as error:
        print(error.message, file=sys.stderr)
        return 2
    except grpc.RpcError as error:
        print(f"{given.address}: {error.code().name}", file=sys.stderr)  # type: ignore[attr-defined]  # it is a Call as well
        return 2
    print(status)
    return 0 if status == "SERVING" else 1


def _own_token() -> str:
    """Return the first token that the server of this environment accepts; empty: the server asks for no token."""
    file = os.environ.get("DUBSTAGE_AUTH_TOKEN_FILE")
    if not file:
        return ""
    from services.common.server.auth import read_tokens

    return next(iter(read_tokens(Path(file))))


if __name__ == "__main__":
    sys.exit(main())
