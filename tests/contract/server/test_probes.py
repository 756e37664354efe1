"""Tests of the probes of a real server: liveness from the start on, and health on a plain port beside TLS."""

import asyncio
import threading
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def answer(message: bytes) -> bytes:
    return message


async def health(address: str, service: str = "") -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int((await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)).status)


async def test_liveness_during_warm_up(echo: Any) -> None:
    """Liveness is answered while the stage still warms up."""
    may_end = threading.Event()
    server = await echo.serve(answer, warm=False, warm_up=may_end.wait)
    warming = asyncio.create_task(server.warm_up())
    assert await health(server.address) == NOT_SERVING
    assert await health(server.address, "liveness") == SERVING
    assert server.metrics.registry.get_sample_value("dubstage_serving", {"stage": server.stage}) == 0
    may_end.set()
    await warming
    assert await health(server.address) == SERVING
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
    assert await health(f"127.0.0.1:{free_port}") == SERVING
    assert await health(f"127.0.0.1:{free_port}", echo.service) == SERVING
    await server.drain()


async def test_the_plain_port_serves_health_and_nothing_else(echo: Any, free_port: int) -> None:
    await echo.serve(answer, health_port=free_port)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{free_port}") as channel:
        call: Any = channel.unary_unary(f"/{echo.service}/Unary")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"x", timeout=60)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
