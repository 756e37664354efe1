"""Health from the warm-up to the drain, on real servers."""

import asyncio
import threading
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.common import errors
from tests.contract.server.helpers import NOT_SERVING, ONCE, SERVING, answer, eventually, health


async def test_nothing_served_before_warm_up(echo: Any) -> None:
    may_end = threading.Event()
    server = await echo.serve(answer, warm=False, warm_up=may_end.wait)
    client = echo.connect(server)
    warming = asyncio.create_task(server.warm_up())
    assert await health(client) == NOT_SERVING
    assert await health(client, echo.service) == NOT_SERVING
    with pytest.raises(errors.ModelNotReadyError):
        await client.call("Unary", policy=ONCE)
    may_end.set()
    await warming
    assert await health(client) == SERVING
    assert await health(client, echo.service) == SERVING
    await client.call("Unary")


async def test_a_failed_warm_up_ends_the_server(echo: Any) -> None:
    def fail() -> None:
        raise errors.ModelNotFoundError("weights/renderer.onnx is missing", resource="renderer.onnx")

    server = await echo.serve(answer, warm=False, warm_up=fail)
    with pytest.raises(errors.ModelNotFoundError):
        await server.warm_up()
    assert await health(echo.connect(server)) == NOT_SERVING


async def test_reflection_lists_the_services(echo: Any) -> None:
    client = echo.connect(await echo.serve(answer))
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(client.stage.channel)
    call = stub.ServerReflectionInfo(timeout=60)
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    response = await call.read()
    await call.done_writing()
    names = {service.name for service in response.list_services_response.service}
    assert names == {echo.service, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_drain_finishes_running_call(echo: Any) -> None:
    """Drain lets the running call end and refuses new ones."""
    may_end = asyncio.Event()

    async def wait(message: bytes) -> bytes:
        await may_end.wait()
        return message

    server = await echo.serve(wait)
    client = echo.connect(server)
    stub: Any = health_pb2_grpc.HealthStub(client.stage.channel)
    watcher = stub.Watch(health_pb2.HealthCheckRequest(), timeout=600)
    assert (await watcher.read()).status == SERVING
    running = asyncio.create_task(client.call("Stream", b"late"))
    await eventually(lambda: client.received == [b"first"])
    draining = asyncio.create_task(server.drain(grace_s=600))
    assert (await watcher.read()).status == NOT_SERVING
    assert await health(client) == NOT_SERVING
    with pytest.raises(errors.BackendUnavailableError, match="shutting down"):
        await client.call("Unary", policy=ONCE)
    may_end.set()
    await running
    assert client.received == [b"first", b"late"]
    # One who watches the health does not hold up the end.
    await asyncio.wait_for(draining, 60)
    watcher.cancel()


async def test_call_beyond_grace_is_retryable(echo: Any) -> None:
    """A call longer than the grace ends as an error worth trying elsewhere."""
    server = await echo.serve(lambda _: asyncio.Event().wait())
    client = echo.connect(server)
    running = asyncio.create_task(client.call("Stream"))
    await eventually(lambda: client.received == [b"first"])
    await server.drain(grace_s=0.05)
    with pytest.raises(errors.BackendUnavailableError):
        await running


async def test_a_port_that_is_taken_is_named(echo: Any) -> None:
    server = await echo.serve(answer)
    with pytest.raises(errors.InvalidRequestError, match=str(server.port)):
        await echo.serve(answer, port=server.port)
