"""Check the health of the servers that the arguments name, with the token that each server asks for. `helm test` runs this file."""

import os
import sys
import time
from pathlib import Path

from grpc_health.v1 import health_pb2

from dubstage.client import DubstageCallError, TlsFiles, connect, rpcs

PATIENCE_S = float(os.environ.get("DUBSTAGE_TEST_PATIENCE_S", "120"))
CHECK = rpcs.Unary("grpc.health.v1.Health", "Check", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse)
SERVING = health_pb2.HealthCheckResponse.SERVING


def tls_files() -> TlsFiles | None:
    """Return the gateway's certificate, which the stages ask for; None: TLS is off."""
    folder = os.environ.get("DUBSTAGE_TLS_DIR")
    if not folder:
        return None
    return TlsFiles(ca=Path(folder, "ca.crt"), certificate=Path(folder, "tls.crt"), key=Path(folder, "tls.key"))


def token(target: str) -> str | None:
    """Return a token that a server accepts; None: the server asks for no token."""
    gateway = target == os.environ.get("DUBSTAGE_TEST_GATEWAY")
    file = os.environ.get("DUBSTAGE_AUTH_TOKEN_FILE" if gateway else "DUBSTAGE_STAGES_TOKEN_FILE")
    if not file:
        return None
    # A line is TOKEN or TENANT TOKEN.
    lines = [line.split() for line in Path(file).read_text(encoding="utf-8").splitlines()]
    return next((words[-1] for words in lines if words and not words[0].startswith("#")), None)


def check(target: str, tls: TlsFiles | None) -> str:
    """Return what is wrong with a server; empty: the server serves."""
    with connect(target, token=token(target), tls=tls, timeout_s=10.0) as server:
        reply = server.unary(CHECK, health_pb2.HealthCheckRequest())
        return "" if reply.status == SERVING else health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


def main() -> int:
    """Check all servers until all serve or the time is over, and return the exit code."""
    tls = tls_files()
    deadline = time.monotonic() + PATIENCE_S
    waiting = dict.fromkeys(sys.argv[1:], "not asked yet")
    while waiting:
        for target in list(waiting):
            try:
                waiting[target] = check(target, tls)
            except DubstageCallError as error:
                waiting[target] = str(error)
            if not waiting[target]:
                print(f"{target} serves", flush=True)
                del waiting[target]
        if waiting and time.monotonic() > deadline:
            for target, problem in waiting.items():
                print(f"{target}: {problem}", file=sys.stderr)
            return 1
        if waiting:
            time.sleep(2.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
