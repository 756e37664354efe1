"""Health from the warm-up to the drain, and its probes: liveness from the start on, and a plain port beside TLS."""

import asyncio
import threading
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.common import errors
from tests.contract.server.helpers import NOT_SERVING, ONCE, SERVING, answer, eventually, health
from tests.refusals import rpc_refused


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


# Probes


async def plain_health(address: str, service: str = "") -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int((await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)).status)


async def test_liveness_during_warm_up(echo: Any) -> None:
    """Liveness is answered while the stage still warms up."""
    may_end = threading.Event()
    server = await echo.serve(answer, warm=False, warm_up=may_end.wait)
    warming = asyncio.create_task(server.warm_up())
    assert await plain_health(server.address) == NOT_SERVING
    assert await plain_health(server.address, "liveness") == SERVING
    assert server.metrics.registry.get_sample_value("dubstage_serving", {"stage": server.stage}) == 0
    may_end.set()
    await warming
    assert await plain_health(server.address) == SERVING
    assert server.metrics.registry.get_sample_value("dubstage_serving", {"stage": server.stage}) == 1


async def test_plain_probe_beside_tls(echo: Any, certificates: Any, free_port: int) -> None:
    """A probe without TLS reads health beside a port with TLS."""
    server = await echo.serve(
        answer,
        health_port=free_port,
        tls_certificate_file=certificates.server.chain,
        tls_key_file=certificates.server.key,
        tls_client_ca_file=certificates.authority,
        require_client_certificate=True,
    )
    assert await plain_health(f"127.0.0.1:{free_port}") == SERVING
    assert await plain_health(f"127.0.0.1:{free_port}", echo.service) == SERVING
    await server.drain()


async def test_the_plain_port_serves_health_and_nothing_else(echo: Any, free_port: int) -> None:
    await echo.serve(answer, health_port=free_port)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{free_port}") as channel:
        call: Any = channel.unary_unary(f"/{echo.service}/Unary")
        with rpc_refused(code="UNIMPLEMENTED"):
            await call(b"x", timeout=60)
