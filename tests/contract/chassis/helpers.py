"""What the tests of the chassis share."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.chassis.retries import RetryPolicy

ONCE = RetryPolicy(max_attempts=1)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def answer(message: bytes) -> bytes:
    return message


async def health(client: Any, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(client.stage.channel)
    response = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
    return int(response.status)


async def eventually(condition: Any, timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - the condition lies in another process or in a metric
            await asyncio.sleep(0.005)
