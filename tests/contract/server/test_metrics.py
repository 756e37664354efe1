"""Tests of a server's metrics port, on a real server under real load."""

import asyncio
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from services.common import errors
from services.common.server import call_context
from services.common.server import server as server_server
from services.common.server.limits import WorkerPool
from tests.contract.server.helpers import ONCE, answer, eventually

RATIO = "dubstage_queue_to_compute_ratio"


async def scrape(port: int) -> dict[str, list[tuple[Mapping[str, str], float]]]:
    """All samples by name, read as Prometheus reads them."""

    def fetch() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
            return str(response.read().decode())

    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families(await asyncio.to_thread(fetch)):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(samples: dict[str, list[tuple[Mapping[str, str], float]]], name: str, /, **labels: str) -> float:
    (found,) = [number for have, number in samples[name] if labels.items() <= have.items()]
    return found


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.fixture
def pool() -> Any:
    made = WorkerPool(num_threads=1, max_queued=64, name="frames")
    yield made
    made.shutdown()


async def test_idle_server_metrics(echo: Any, pool: WorkerPool, free_port: int) -> None:
    """An idle server shows its ratio and its queues from the start."""
    await echo.serve(answer, workers=[pool], metrics_port=free_port)
    samples = await scrape(free_port)
    assert samples[RATIO] == [({"stage": "echo"}, 0.0)]
    for queue in ("calls", "frames"):
        assert value(samples, "dubstage_queued", queue=queue) == 0
        assert value(samples, "dubstage_running", queue=queue) == 0


async def test_ratio_rises_with_waiting_work(echo: Any, pool: WorkerPool, free_port: int) -> None:
    """The ratio rises while work waits and counts both queues."""
    gate = threading.Event()

    async def compute(message: bytes) -> bytes:
        await pool.run(gate.wait, 150.0)
        return message

    server = await echo.serve(compute, workers=[pool], metrics_port=free_port, max_concurrent_rpcs=4, max_queued_rpcs=16)
    client = echo.connect(server)
    running = [asyncio.create_task(client.call("Unary", policy=ONCE, timeout_s=150)) for _ in range(12)]

    async def queued(number: int, queue: str) -> bool:
        return value(await scrape(free_port), "dubstage_queued", queue=queue) == number

    async with asyncio.timeout(60):
        while not (await queued(8, "calls") and await queued(3, "frames")):  # noqa: ASYNC110 - what is waited for is a metric
            await asyncio.sleep(0.01)
    # One runs and eleven wait: each second adds eleven to what was waited for, one to what was computed.
    await asyncio.sleep(0.5)
    samples = await scrape(free_port)
    assert value(samples, "dubstage_running", queue="frames") == 1
    assert value(samples, "dubstage_running", queue="calls") == 4
    assert value(samples, "dubstage_queued", queue="frames") == 3
    assert value(samples, "dubstage_queued", queue="calls") == 8
    assert 1 < value(samples, RATIO) < 11.5
    gate.set()
    await asyncio.gather(*running)
    samples = await scrape(free_port)
    assert value(samples, RATIO) > 1
    assert value(samples, "dubstage_queued", queue="calls") == 0
    assert value(samples, "dubstage_compute_seconds_count", queue="frames") == 12
    assert value(samples, "dubstage_compute_seconds_sum", queue="frames") >= 0.5
    assert value(samples, "dubstage_queue_wait_seconds_sum", queue="frames") >= 1.5
    assert value(samples, "dubstage_queue_wait_seconds_count", queue="calls") == 12
    assert value(samples, "dubstage_rpcs_total", rpc=f"{echo.service}/Unary", code="OK") == 12
    assert value(samples, "dubstage_rpc_duration_seconds_count", rpc=f"{echo.service}/Unary") == 12


def handlers() -> set[threading.Thread]:
    """Threads of this process that serve a connection of a metrics port."""
    return {thread for thread in threading.enumerate() if "process_request_thread" in thread.name}


def half_request(port: int, source: str) -> socket.socket:
    """Connect from an address of this machine and send a request without its end."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0))
    connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: metrics\r\n")
    return connection


@pytest.mark.skipif(sys.platform != "linux", reason="needs the address 127.0.0.2")
async def test_half_sent_scrapes_take_few_threads(echo: Any, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half sent requests take few threads for little time and keep no scrape out."""
    monkeypatch.setattr(server_server, "CONNECTION_S", 2.0)
    before = handlers()
    await echo.serve(answer, metrics_port=free_port)
    connections = [half_request(free_port, "127.0.0.2") for _ in range(200)]
    try:
        await eventually(lambda: len(handlers() - before) >= server_server.MAX_CONNECTIONS_OF_HOST)
        for _ in range(5):
            # Another address: 127.0.0.1. The thread of a scrape ends shortly after its client has the answer.
            assert (await scrape(free_port))["dubstage_serving"]
            await eventually(lambda: len(handlers() - before) <= server_server.MAX_CONNECTIONS_OF_HOST)
        # The server closes every connection: those over the limit at once, the others after their time.
        for connection in connections:
            with suppress(ConnectionError):
                assert await asyncio.to_thread(connection.recv, 1) == b""
        await eventually(lambda: not handlers() - before)
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs the addresses 127.0.0.2 and so on")
async def test_connections_of_all_addresses_have_a_bound(echo: Any, free_port: int) -> None:
    before = handlers()
    await echo.serve(answer, metrics_port=free_port)
    connections = [half_request(free_port, f"127.0.1.{number % 50 + 1}") for number in range(200)]
    try:
        await eventually(lambda: len(handlers() - before) >= server_server.MAX_CONNECTIONS)
        await asyncio.sleep(0.5)
        assert len(handlers() - before) <= server_server.MAX_CONNECTIONS
    finally:
        for connection in connections:
            connection.close()


async def test_stop_closes_metrics_connections(echo: Any, free_port: int) -> None:
    """A server that ends closes the connections of its metrics port."""
    before = handlers()
    server = await echo.serve(answer, metrics_port=free_port)
    with half_request(free_port, "127.0.0.1") as connection:
        await eventually(lambda: len(handlers() - before) == 1)
        await server.drain(grace_s=0)
        with suppress(ConnectionError):
            assert await asyncio.to_thread(connection.recv, 1) == b""
        await eventually(lambda: not handlers() - before)


async def test_every_metric_is_documented(echo: Any, pool: WorkerPool, free_port: int) -> None:
    server = await echo.serve(answer, workers=[pool], metrics_port=free_port)
    await echo.connect(server).call("Unary")
    guide = (Path(__file__).parents[3] / "docs" / "operations" / "observing.md").read_text(encoding="utf-8")
    names = {family.name for family in server.metrics.registry.collect() if family.name.startswith("dubstage_")}
    assert len(names) > 8
    assert [name for name in sorted(names) if f"`{name}`" not in guide and f"`{name}_total`" not in guide] == []


async def test_enough_threads_low_ratio(echo: Any, free_port: int) -> None:
    """Enough threads for the work mean a ratio near zero."""
    pool = WorkerPool(num_threads=4, max_queued=4, name="frames")

    gate = threading.Event()

    async def compute(message: bytes) -> bytes:
        await pool.run(gate.wait, 150.0)
        return message

    server = await echo.serve(compute, workers=[pool], metrics_port=free_port)
    client = echo.connect(server)
    running = [asyncio.create_task(client.call("Unary", policy=ONCE, timeout_s=150)) for _ in range(4)]
    await eventually(lambda: pool.load.running == 4)
    # The work waits no more. What it has waited until then weighs less with each second that is computed.
    async with asyncio.timeout(60):
        while value(await scrape(free_port), RATIO) >= 0.2:  # noqa: ASYNC110 - what is waited for is a metric
            await asyncio.sleep(0.1)
    gate.set()
    await asyncio.gather(*running)
    pool.shutdown()


async def test_failed_work_leaves_no_gauge(echo: Any, pool: WorkerPool, free_port: int) -> None:
    """Work that is given up or fails leaves no trace in the gauges."""

    async def compute(message: bytes) -> bytes:
        if message == b"bad":
            await pool.run(divmod, 1, 0)
        await pool.run(time.sleep, 0.4)
        return message

    server = await echo.serve(compute, workers=[pool], metrics_port=free_port, max_concurrent_rpcs=2, max_queued_rpcs=4)
    client = echo.connect(server)
    tasks = [asyncio.create_task(client.call("Stream", policy=ONCE)) for _ in range(4)]
    await eventually(lambda: pool.load.running == 1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    with pytest.raises(errors.UnexpectedError):
        await client.call("Unary", b"bad", policy=ONCE)
    async with asyncio.timeout(60):
        while True:
            samples = await scrape(free_port)
            gauges = [number for name in ("dubstage_queued", "dubstage_running") for _, number in samples[name]]
            assert len(gauges) == 4
            if not any(gauges):
                break
            await asyncio.sleep(0.01)


async def test_faces_are_counted_by_their_reason(echo: Any, free_port: int) -> None:
    async def track(message: bytes) -> bytes:
        call_context.count_frames(3)
        for reason in ("DUBBED", "DUBBED", "OCCLUDED_MOUTH"):
            call_context.count_reason(reason)
        return message

    await echo.connect(await echo.serve(track, metrics_port=free_port)).call("Unary")
    samples = await scrape(free_port)
    assert value(samples, "dubstage_frame_reasons_total", reason="DUBBED") == 2
    assert value(samples, "dubstage_frame_reasons_total", reason="OCCLUDED_MOUTH") == 1


async def test_health_answers_under_full_load(echo: Any, pool: WorkerPool, free_port: int) -> None:
    """Health answers while every place and thread is taken and metrics are read."""

    async def compute(message: bytes) -> bytes:
        while True:
            await pool.run(spin, 0.01)

    server = await echo.serve(compute, workers=[pool], metrics_port=free_port, max_concurrent_rpcs=8)
    client = echo.connect(server)
    work = [asyncio.create_task(client.call("Unary", policy=ONCE, timeout_s=150)) for _ in range(16)]
    await eventually(lambda: (server._admission.load.running, server._admission.load.queued) == (8, 8))
    stub: Any = health_pb2_grpc.HealthStub(client.stage.channel)
    for number in range(100):
        if number % 10 == 0:
            await scrape(free_port)
        # The places and the thread are never free again: an answer that waited for one of them would not come. How soon an answer
        # comes, the bench says.
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=60)
    assert not any(task.done() for task in work)
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)
