"""Requests of a call that streams them: read one by one, decoded, counted and within their bounds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, Self

from services.common.chassis.calls import Call
from services.common.chassis.messages import Received

# Seconds for which further requests of a failed call are read: altogether, and for each request.
_HEARING_S = 1.0
_NEXT_REQUEST_S = 0.3


class RequestStream:
    """Asynchronous iterator of the checked requests of one call.

    gRPC cannot take a read back: the request of a cancelled read is lost, and the next read ends at once as if the caller had sent
    all. Each read is therefore a task of its own. A handler that is cancelled, such as one that reads ahead, leaves the task
    alone, and whoever reads next gets the task's request.

    Args:
        received: gRPC's requests.
        call: counts the requests, and the time for which the handler waits for the caller.
    """

    def __init__(self, received: AsyncIterable[Received], call: Call) -> None:
        self._received = received
        self._call = call
        # Opened by the first read: a call that ends before leaves no iterator behind that nobody waited for.
        self._iterator: AsyncIterator[Received] | None = None
        self._reading: asyncio.Future[Received | None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        with self._call.awaited():
            received = await asyncio.shield(self._read())
        self._reading = None
        if received is None:
            raise StopAsyncIteration
        self._call.messages_received += 1
        return received.checked()

    async def hear_out(self) -> None:
        """Read further requests of a failed call and drop them, so that the error reaches the caller.

        A caller on grpc.aio whose write meets the end of the call sees INTERNAL in place of the status
        (https://github.com/grpc/grpc/issues/36066). The reading ends after a pause of the caller, or after _HEARING_S.
        """
        end = time.monotonic() + _HEARING_S
        while time.monotonic() < end:
            reading = self._read()
            if not (await asyncio.wait({reading}, timeout=_NEXT_REQUEST_S))[0]:
                return
            self._reading = None
            if reading.result() is None:
                return

    def _read(self) -> asyncio.Future[Received | None]:
        if self._iterator is None:
            self._iterator = aiter(self._received)
        if self._reading is None:
            self._reading = asyncio.ensure_future(anext(self._iterator, None))
            self._reading.add_done_callback(_look_at)
        return self._reading


def _look_at(reading: asyncio.Future[Received | None]) -> None:
    # A read that outlives the call fails, and asyncio reports failures that nobody looked at.
    if not reading.cancelled():
        reading.exception()
