"""How fast a stage answers health checks: `python -m research.bench.health HOST:PORT SECONDS`, one JSON list of milliseconds.

The command is a process of its own, as a kubelet is: the work of the benchmark's clients in their interpreter must not count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_PAUSE_S: Final = 0.01
_TIMEOUT_S: Final = 10.0


def check_health(address: str, seconds: float) -> list[float]:
    """Check for so long, one check after the other; milliseconds of each.

    Raises:
        RuntimeError: an answer was not SERVING.
    """
    took: list[float] = []
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S)  # connects
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S)
            took.append(1000.0 * (time.perf_counter() - begun))
            if answer.status != health_pb2.HealthCheckResponse.SERVING:
                raise RuntimeError(f"health of {address} is {answer.status}")
            time.sleep(_PAUSE_S)
    return took


async def health_while(address: str, seconds: float) -> list[float]:
    """The same, from a process of its own.

    Raises:
        RuntimeError: it failed; the message holds what it printed.
    """
    command = [sys.executable, "-m", "research.bench.health", address, str(seconds)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    output, errors = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(errors.decode("utf-8", "replace")[-800:])
    took: list[float] = json.loads(output)
    return took


def main() -> None:
    """Check and print."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.health", description=__doc__)
    parser.add_argument("address")
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    print(json.dumps(check_health(options.address, options.seconds)))


if __name__ == "__main__":
    main()
