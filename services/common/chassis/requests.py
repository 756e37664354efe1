"""Requests of a call: read one by one, decoded, counted and within their bounds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Self, TypeVar

import grpc.aio

from services.common.chassis.calls import Call
from services.common.errors import InvalidRequest

Request = TypeVar("Request")

# Seconds for which further requests of a failed call are read: altogether, and for each request.
_HEARING_S = 1.0
_NEXT_REQUEST_S = 0.3


async def config_message(requests: AsyncIterator[Request]) -> Request:
    """Return the first message of a stream, which has to hold the stream's config.

    Raises:
        InvalidRequest: the stream has no message.
    """
    async for request in requests:
        return request
    raise InvalidRequest("the stream ended before its config", field="config")


class RequestStream:
    """Asynchronous iterator of the checked requests of one call.

    gRPC cannot take a read back: the request of a cancelled read is lost, and the next read ends at once as if the caller had sent
    all. Each read is therefore a task of its own. If a handler is cancelled during a read, for example while it reads ahead, the
    task goes on, and the next read waits for the same task.

    Args:
        context: context of the call.
        call: counts the requests, and the time for which the handler waits for the caller.
    """

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any], call: Call) -> None:
        self._context = context
        self._call = call
        self._reading: asyncio.Future[Any] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        with self._call.awaited():
            received = await asyncio.shield(self._read())
        self._reading = None
        if received is grpc.aio.EOF:
            raise StopAsyncIteration
        self._call.messages_received += 1
        return received.checked()

    async def only(self) -> Any:
        """Return the request of a call that has one request.

        Raises:
            InvalidRequest: the call ended without a request.
        """
        # No code reads ahead here, so the read needs no task.
        with self._call.awaited():
            received = await self._context.read()
        if received is grpc.aio.EOF:
            raise InvalidRequest(f"{self._call.rpc} takes one request, and the call ended without a request")
        self._call.messages_received += 1
        return received.checked()

    async def pause(self) -> None:
        """Wait for as long as a caller may take between two requests, and read nothing."""
        await asyncio.sleep(_NEXT_REQUEST_S)

    async def hear_out(self) -> None:
        """Read further requests of a failed call and drop them, until the caller pauses or _HEARING_S are over."""
        end = time.monotonic() + _HEARING_S
        while time.monotonic() < end:
            reading = self._read()
            if not (await asyncio.wait({reading}, timeout=_NEXT_REQUEST_S))[0]:
                return
            self._reading = None
            if reading.result() is grpc.aio.EOF:
                return

    def _read(self) -> asyncio.Future[Any]:
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._context.read())
            self._reading.add_done_callback(_retrieve)
        return self._reading


def _retrieve(reading: asyncio.Future[Any]) -> None:
    # A read that is still open when its call ends may fail. asyncio logs a failure that no code has retrieved.
    if not reading.cancelled():
        reading.exception()
