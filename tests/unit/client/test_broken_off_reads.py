"""Streams whose reader goes away."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import psutil
import pytest

from dubstage.client.aio import responses_of

CALLS = 300
MESSAGE_BYTES = 256 << 10
MOST_GROWTH = 0.3
"""Most memory that stays, as a share of one message per call."""


class Messages(grpc.GenericRpcHandler):
    """A server that sends large messages, and knows no other method."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        if handler_call_details.method != "/test.Messages/Send":
            return None

        async def send(request: bytes, context: Any) -> AsyncIterator[bytes]:
            for _ in range(40):
                yield bytes(MESSAGE_BYTES)

        return grpc.unary_stream_rpc_method_handler(send)


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server of messages."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Messages(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(0)


async def test_broken_off_reads_keep_no_message(channel: grpc.aio.Channel) -> None:
    """Readers that are cancelled while they wait for a message leave nothing in memory."""
    method: Any = channel.unary_stream("/test.Messages/Send")

    async def broken_off() -> None:
        responses = responses_of(method(b"", timeout=60))
        await anext(responses)
        reader = asyncio.ensure_future(anext(responses))
        for _ in range(3):
            await asyncio.sleep(0)
        reader.cancel()
        with suppress(asyncio.CancelledError, StopAsyncIteration):
            await reader

    async def run(calls: int) -> int:
        for _ in range(calls):
            await broken_off()
        await asyncio.sleep(0.2)
        gc.collect()
        return int(psutil.Process().memory_info().rss)

    # Pools fill first.
    before = await run(CALLS)
    after = await run(CALLS)
    assert after - before < MOST_GROWTH * CALLS * MESSAGE_BYTES


async def test_reader_cancelled_twice_logs_nothing(channel: grpc.aio.Channel) -> None:
    """A reader that is cancelled again while it waits for the end of its read leaves no error that asyncio logs."""
    logged: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    missing: Any = channel.unary_stream("/test.Missing/Send")
    # Growing delays, so that in some calls the error arrives after the second cancellation has ended the reader.
    for steps in range(800):
        responses = responses_of(missing(b"", timeout=60))
        reader = asyncio.ensure_future(anext(responses))
        await asyncio.sleep(steps * 2e-6)
        reader.cancel()
        await asyncio.sleep(0)
        reader.cancel()
        with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await reader
    await asyncio.sleep(0.2)
    gc.collect()
    assert not logged


async def test_all_responses_arrive(channel: grpc.aio.Channel) -> None:
    call: Any = channel.unary_stream("/test.Messages/Send")(b"", timeout=60)
    assert [len(response) async for response in responses_of(call)] == [MESSAGE_BYTES] * 40
