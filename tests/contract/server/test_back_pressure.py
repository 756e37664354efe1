"""Calls over the limits, cancelled calls and second attempts, on real servers."""

import asyncio
from typing import Any

import pytest

from services.common import errors
from services.common.server.retries import RetryPolicy
from tests.contract.server.helpers import ONCE, SERVING, eventually, health, raw


async def test_excess_calls_get_retry_time(echo: Any) -> None:
    """Calls beyond places and queue are refused at once with a time to retry."""
    may_end = asyncio.Event()
    running: list[bytes] = []

    async def wait(message: bytes) -> bytes:
        running.append(message)
        await may_end.wait()
        return message

    server = await echo.serve(wait, max_concurrent_rpcs=2, max_queued_rpcs=1)
    client = echo.connect(server)
    in_flight = server.metrics.in_flight.labels("echo", f"{echo.service}/Unary")
    admitted = [asyncio.create_task(client.call("Unary", bytes([n]), policy=ONCE)) for n in range(3)]
    await eventually(lambda: in_flight.collect()[0].samples[0].value == 3)
    with pytest.raises(errors.OverloadedError) as caught:
        await client.call("Unary", b"refused", policy=ONCE)
    assert caught.value.retry_after_s > 0
    assert len(running) == 2
    assert await health(client) == SERVING
    may_end.set()
    await asyncio.gather(*admitted)
    await client.call("Unary", b"room again", policy=ONCE)


@pytest.mark.parametrize("kind", ["Unary", "Download", "Upload", "Stream"])
async def test_a_cancelled_call_gives_its_place_back(echo: Any, kind: str) -> None:
    entered = asyncio.Event()
    stop = True

    async def maybe_wait(message: bytes) -> bytes:
        if stop:
            entered.set()
            await asyncio.Event().wait()
        return message

    server = await echo.serve(maybe_wait, max_concurrent_rpcs=1, max_queued_rpcs=0)
    client = echo.connect(server)
    task = asyncio.create_task(client.call(kind))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stop = False
    # The server hears of the cancellation somewhat later.
    await eventually(lambda: server._admission.load.running == 0)
    await client.call(kind)


async def test_refused_call_retries_until_free(echo: Any) -> None:
    """A refused call is tried again until there is room."""
    refusals = 2

    async def refuse_twice(message: bytes) -> bytes:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise errors.OverloadedError("full", retry_after_s=0.01)
        return message

    client = echo.connect(await echo.serve(refuse_twice))
    await client.call("Upload", policy=RetryPolicy(max_attempts=3, initial_backoff_s=0.01))
    assert client.received == [b"x"]


async def test_retry_drops_earlier_requests(echo: Any) -> None:
    """A second attempt never goes out with what is left of the first ones requests."""

    async def refuse(message: bytes) -> bytes:
        raise errors.OverloadedError("full", retry_after_s=0.01)

    async def two() -> Any:
        yield b"one"
        yield b"two"

    client = echo.connect(await echo.serve(refuse))
    requests = two()
    method = raw(echo.service, "Upload")
    with pytest.raises(errors.ContractBrokenError, match="fresh requests, after: full"):
        await client.stage.upload(method, lambda: requests)
