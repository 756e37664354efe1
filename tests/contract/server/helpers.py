"""Shared code of the tests of the server."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dubstage.client.rpcs import Rpc
from services.common import errors
from services.common.server.retries import RetryPolicy

ONCE = RetryPolicy(max_attempts=1)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@contextmanager
def process_of(code: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process of a stage, and kill the process in the end.

    Args:
        code: Python code of the process; its first argument is the folder of these tests.
        arguments: further arguments of the process.
        environment: further variables of its environment.
    """
    command = [sys.executable, "-c", code, str(Path(__file__).parent), *arguments]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "DUBSTAGE_LOG_FORMAT": "json", **environment}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


class RawRpc(Rpc[Any, Any]):
    """An RPC whose messages are bytes."""

    __slots__ = ()

    @property
    def serialisers(self) -> dict[str, Any]:
        return {}


def raw(service: str, method: str) -> Any:
    """Return the RPC of a service whose messages are bytes."""
    return RawRpc(service, method, Message, Message)


async def sent(message: bytes, times: int) -> AsyncIterator[bytes]:
    for _ in range(times):
        yield message


async def answer(message: bytes) -> bytes:
    return message


async def health(client: Any, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(client.stage.channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)).status)


async def outlasted(client: Any, *, begun: Callable[[], bool]) -> float:
    """Call with a deadline that passes while the handler works, and return the deadline in seconds.

    A short deadline may pass before the call arrives, on a machine that pauses: then the next deadline is longer.

    Args:
        client: client of an echo server whose handler does not return.
        begun: whether the handler has begun to work on such a call.
    """
    for timeout_s in (0.2, 5.0, 20.0):
        with pytest.raises(errors.StageDeadlineExceededError):
            await client.call("Unary", timeout_s=timeout_s, policy=ONCE)
        if begun():
            return timeout_s
    raise AssertionError("no call arrived before its deadline")


def presenting(folder: Path, token: str) -> Path:
    """Write the token file of a client into a folder, and return the file."""
    file = folder / f"own-{token}"
    file.write_text(token)
    return file


async def eventually(condition: Any, timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - the condition lies in another process or in a metric
            await asyncio.sleep(0.005)
