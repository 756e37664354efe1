"""Tests of the health service: answers to Check and Watch, and refused callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from services.common.server import health
from tests.refusals import raised

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
Watch = Callable[..., "asyncio.Task[None]"]


class RefusedError(Exception):
    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code)
        self.code = code


class Caller:
    """Stands for the context of one call."""

    def __init__(self, peer: str = "ipv4:10.0.0.1:40000") -> None:
        self._peer = peer
        self.told: list[int] = []
        self.reads = asyncio.Event()
        self.reads.set()

    def peer(self) -> str:
        return self._peer

    async def write(self, response: health_pb2.HealthCheckResponse) -> None:
        await self.reads.wait()
        self.told.append(response.status)

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        raise RefusedError(code)

    async def abort_with_status(self, status: grpc.Status) -> None:
        raise RefusedError(status.code)


@pytest.fixture
def servicer() -> health.HealthServicer:
    return health.HealthServicer("render")


@pytest.fixture
async def watch(servicer: health.HealthServicer) -> AsyncIterator[Watch]:
    tasks: list[asyncio.Task[None]] = []

    def begin(caller: Any, service: str = "") -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(servicer.Watch(health_pb2.HealthCheckRequest(service=service), caller)))
        return tasks[-1]

    yield begin
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def settle() -> None:
    """Let every task go on as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def check(servicer: health.HealthServicer, service: str) -> int:
    caller: Any = Caller()
    return (await servicer.Check(health_pb2.HealthCheckRequest(service=service), caller)).status


async def test_a_check_of_an_unknown_service_finds_nothing(servicer: health.HealthServicer) -> None:
    servicer.set("", SERVING)
    assert await check(servicer, "") == SERVING
    with raised(RefusedError, code=grpc.StatusCode.NOT_FOUND):
        await check(servicer, "another")


async def test_a_watcher_hears_each_change_once(servicer: health.HealthServicer, watch: Watch) -> None:
    caller = Caller()
    servicer.set("", NOT_SERVING)
    watch(caller)
    for status in (NOT_SERVING, SERVING, SERVING, NOT_SERVING):
        await settle()
        servicer.set("", status)
    await settle()
    assert caller.told == [NOT_SERVING, SERVING, NOT_SERVING]


async def test_unknown_service_watcher_waits(servicer: health.HealthServicer, watch: Watch) -> None:
    """A watcher of an unknown service hears when there is a status."""
    caller = Caller()
    watch(caller, "later")
    await settle()
    servicer.set("", SERVING)
    await settle()
    assert caller.told == [SERVICE_UNKNOWN]
    servicer.set("later", SERVING)
    await settle()
    assert caller.told == [SERVICE_UNKNOWN, SERVING]


async def test_ended_watch_leaves_others(servicer: health.HealthServicer, watch: Watch) -> None:
    """The end of a watch leaves the others and later ones their news."""
    stays, comes = Caller(), Caller()
    servicer.set("", NOT_SERVING)
    watch(stays)
    leaves = watch(Caller())
    await settle()
    leaves.cancel()
    await settle()
    watch(comes)
    await settle()
    servicer.set("", SERVING)
    await settle()
    assert stays.told == comes.told == [NOT_SERVING, SERVING]


async def test_slow_watcher_gets_newest_status(servicer: health.HealthServicer, watch: Watch) -> None:
    """A slow watcher gets the newest status and holds up no other watcher."""
    slow, quick = Caller(), Caller()
    slow.reads.clear()
    servicer.set("", NOT_SERVING)
    watch(slow)
    watch(quick)
    await settle()
    servicer.set("", SERVING)
    await settle()
    servicer.set("", NOT_SERVING)
    await settle()
    servicer.set("", SERVING)
    await settle()
    assert quick.told == [NOT_SERVING, SERVING, NOT_SERVING, SERVING]
    slow.reads.set()
    await settle()
    assert slow.told == [NOT_SERVING, SERVING]


async def test_a_server_that_shuts_down_stays_not_serving(servicer: health.HealthServicer, watch: Watch) -> None:
    known, unknown = Caller(), Caller()
    servicer.set("", SERVING)
    servicer.set("render", SERVING)
    watch(known, "render")
    watch(unknown, "another")
    await settle()
    servicer.enter_graceful_shutdown()
    servicer.set("", SERVING)
    servicer.set("another", SERVING)
    await settle()
    assert known.told == [SERVING, NOT_SERVING]
    assert unknown.told == [SERVICE_UNKNOWN]
    assert await check(servicer, "") == NOT_SERVING


@pytest.mark.parametrize(
    ("name", "is_taken"), [("x" * 256, True), ("ü" * 128, True), ("x" * 257, False), ("ü" * 129, False), ("x" * 200_000, False)]
)
async def test_a_name_has_at_most_256_bytes(servicer: health.HealthServicer, watch: Watch, name: str, is_taken: bool) -> None:
    caller: Any = Caller()
    watching = watch(caller, name)
    await settle()
    with pytest.raises(RefusedError) as refused:
        await servicer.Check(health_pb2.HealthCheckRequest(service=name), caller)
    if is_taken:
        assert caller.told == [SERVICE_UNKNOWN]
        assert refused.value.code is grpc.StatusCode.NOT_FOUND
    else:
        with pytest.raises(RefusedError):
            await watching
        assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_fields_that_no_contract_has_count_as_well(servicer: health.HealthServicer) -> None:
    # Field 15, 1000 bytes long.
    request = health_pb2.HealthCheckRequest.FromString(b"\x7a\xe8\x07" + b"x" * 1000)
    assert request.service == ""
    caller: Any = Caller()
    for rpc in (servicer.Check, servicer.Watch):
        with raised(RefusedError, code=grpc.StatusCode.INVALID_ARGUMENT):
            await rpc(request, caller)


async def test_one_host_cannot_take_the_places_of_all(servicer: health.HealthServicer, watch: Watch) -> None:
    tasks = [watch(Caller(f"ipv6:%5B::2%5D:{40_000 + n}")) for n in range(health.MAX_WATCHES_OF_HOST + 1)]
    await settle()
    with raised(RefusedError, code=grpc.StatusCode.RESOURCE_EXHAUSTED):
        await tasks.pop()
    other = Caller("ipv6:%5B::3%5D:40000")
    watch(other)
    await settle()
    assert other.told == [SERVICE_UNKNOWN]
    tasks.pop().cancel()
    again = Caller("ipv6:%5B::2%5D:40000")
    await settle()
    watch(again)
    await settle()
    assert again.told == [SERVICE_UNKNOWN]


async def test_all_hosts_together_have_a_limit(servicer: health.HealthServicer, watch: Watch) -> None:
    servicer.set("", SERVING)
    tasks = [watch(Caller(f"ipv4:10.0.{n // 100}.1:{40_000 + n}")) for n in range(health.MAX_WATCHES + 1)]
    await settle()
    with raised(RefusedError, code=grpc.StatusCode.RESOURCE_EXHAUSTED):
        await tasks.pop()
    assert not any(task.done() for task in tasks)
    assert await check(servicer, "") == SERVING


async def test_ended_watch_leaves_nothing(servicer: health.HealthServicer, watch: Watch) -> None:
    """Nothing is kept of a watch that has ended."""
    before = {name: len(value) for name, value in vars(servicer).items() if hasattr(value, "__len__")}
    task = watch(Caller(), "a service that nobody knows")
    await settle()
    task.cancel()
    await settle()
    assert {name: len(value) for name, value in vars(servicer).items() if hasattr(value, "__len__")} == before
