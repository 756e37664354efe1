"""A caller that neither sends nor takes anything does not keep its place for ever."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc.aio
import pytest

from services.common import errors
from services.common.server import call_context, watchdog
from services.common.server.limits import WorkerPool
from tests.contract.server.conftest import SERVICE
from tests.contract.server.helpers import ONCE, answer, eventually, raw
from tests.refusals import raised

IDLE_S = 0.4


@dataclass
class Clock:
    """A clock of calls and of the watchdog that goes on only when a test says so, however long the machine pauses."""

    now: float

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(time.monotonic())
    for module in (call_context, watchdog):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def pool() -> Any:
    pool = WorkerPool(num_threads=1, max_queued=8, name="compute")
    yield pool
    pool.shutdown()


async def silent_after(*messages: bytes) -> AsyncIterator[bytes]:
    for message in messages:
        yield message
    await asyncio.Event().wait()


async def drained(client: Any, *messages: bytes) -> None:
    """Read all answers to a stream that falls silent."""
    async for _ in client.stage.connection.stream(raw(SERVICE, "Stream"), silent_after(*messages), timeout_s=120):
        pass


@pytest.mark.parametrize("messages", [(), (b"a", b"b")])
async def test_idle_stream_ends(echo: Any, messages: tuple[bytes, ...]) -> None:
    """A stream without a message ends and says why."""
    server = await echo.serve(answer, max_idle_s=IDLE_S)
    client = echo.connect(server)
    with raised(errors.StageDeadlineExceededError, match=r"no message for 0\.4 s.*DUBSTAGE_MAX_IDLE_S", stage="echo"):
        await drained(client, *messages)
    assert server.metrics.ended.labels("echo", "STAGE_DEADLINE_EXCEEDED")._value.get() == 1


async def test_idle_upload_ends(echo: Any) -> None:
    """An upload without a message ends and says why."""
    client = echo.connect(await echo.serve(answer, max_idle_s=IDLE_S))
    with pytest.raises(errors.StageDeadlineExceededError, match="no message"):
        await client.stage.upload(raw(echo.service, "Upload"), lambda: silent_after(b"a"), timeout_s=120, policy=ONCE)


async def test_idle_streams_do_not_starve_a_stage(echo: Any) -> None:
    server = await echo.serve(answer, max_idle_s=IDLE_S, max_concurrent_rpcs=2, max_queued_rpcs=4)
    idlers = [echo.connect(server) for _ in range(6)]

    async def idle(client: Any) -> None:
        with pytest.raises(errors.StageDeadlineExceededError):
            await drained(client)

    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        for client in idlers:
            group.create_task(idle(client))
    # Those that waited for a place were not idle meanwhile: each had its own time once it was served.
    await echo.connect(server).call("Unary", policy=ONCE)


async def test_a_reader_that_takes_nothing_is_idle(echo: Any) -> None:
    async def grow(message: bytes) -> bytes:
        return bytes(4 << 20)

    server = await echo.serve(grow, max_idle_s=IDLE_S)
    async with grpc.aio.insecure_channel(server.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        call: Any = channel.stream_stream(f"/{echo.service}/Stream")(timeout=150)
        for _ in range(8):
            await call.write(b"x")
        await eventually(lambda: server.metrics.ended.labels("echo", "STAGE_DEADLINE_EXCEEDED")._value.get() == 1, timeout_s=60)
        # Its place is free although it has not taken the status either.
        await eventually(lambda: server._admission.load.running == 0)
        taken = 0
        with suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                taken += 1
        assert taken < 9
        assert (await call.code()).name == "DEADLINE_EXCEEDED"


async def test_time_that_is_computed_does_not_count(echo: Any, pool: WorkerPool, clock: Clock) -> None:
    async def compute(message: bytes) -> bytes:
        may_end = threading.Event()
        computing = asyncio.ensure_future(pool.run(may_end.wait))
        await eventually(lambda: pool.load.running == 1)
        clock.now += 3 * IDLE_S
        server._watchdog.look()
        may_end.set()
        await computing
        return message

    server = await echo.serve(compute, max_idle_s=IDLE_S, workers=[pool])
    client = echo.connect(server)
    await client.call("Stream", times=2)
    assert client.received == [b"first", b"x", b"x"]


async def test_slow_caller_is_not_idle(echo: Any, clock: Clock) -> None:
    """A caller that sends now and then goes on for as long as it likes."""
    server = await echo.serve(answer, max_idle_s=IDLE_S)
    client = echo.connect(server)
    answered = asyncio.Semaphore(0)

    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(6):
            await answered.acquire()
            clock.now += IDLE_S / 2
            server._watchdog.look()
            yield b"x"

    replies = []
    async for reply in client.stage.connection.stream(raw(echo.service, "Stream"), slowly(), timeout_s=60):
        replies.append(reply)
        answered.release()
    assert len(replies) == 7
