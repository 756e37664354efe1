"""Messages of a call: decoded (gRPC itself would answer bad bytes with INTERNAL), read one by one, counted and checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import grpc.aio
from google.protobuf.message import DecodeError, Message

from services.common.errors import DubstageError, InvalidRequestError, MessageTooLargeError
from services.common.server.bounds import check_bounds
from services.common.server.call_context import Call, mebibytes
from services.common.server.limits import FirstMessages

_MARGIN_BYTES: Final = 1 << 20
_LARGEST: Final = (1 << 31) - 1
_LARGE_BYTES: Final = 64 << 10
"""Size above which a request is checked in a thread, bytes."""
Request = TypeVar("Request")
# Seconds for which further requests of a failed call are read: altogether, and for each request.
_DRAIN_S = 1.0
_NEXT_REQUEST_S = 0.3


@dataclass(frozen=True, slots=True)
class Received:
    """Request as it came.

    Attributes:
        message: the decoded message; None where there is an error.
        num_bytes: encoded size.
        error: why the bytes are no usable message.
    """

    message: Any
    num_bytes: int
    error: DubstageError | None = None

    def checked(self) -> Any:
        """Return the message. All its fields lie within their bounds.

        Raises:
            InvalidRequestError: the bytes are no message of their type, or a field lies outside its bounds.
            MessageTooLargeError: the message has more bytes than a message may have.
        """
        if self.error is not None:
            raise self.error
        if isinstance(self.message, Message):
            check_bounds(self.message, num_bytes=self.num_bytes)
        return self.message


def host_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Return the address of a caller without the port: a host has many connections."""
    return str(context.peer()).rpartition(":")[0]


def receive_limit(max_message_bytes: int) -> int:
    """Return the size of the largest message that gRPC reads, bytes: 1 MiB above the limit.

    The server refuses a message above the limit by name. gRPC ends the call of a still larger message as soon as the message's
    length has arrived, with its own status, RESOURCE_EXHAUSTED without details.
    """
    return min(max_message_bytes + _MARGIN_BYTES, _LARGEST)


def decoder(decode: Callable[[bytes], Any] | None, max_message_bytes: int) -> Callable[[bytes], Received]:
    """Return a request deserialiser that never raises.

    Args:
        decode: the generated deserialiser, such as `RenderRequest.FromString`. None: requests are bytes.
        max_message_bytes: size above which a request is not decoded.
    """
    name = str(getattr(getattr(getattr(decode, "__self__", None), "DESCRIPTOR", None), "full_name", "message"))

    def received(data: bytes) -> Received:
        if len(data) > max_message_bytes:
            return Received(None, len(data), _too_large(f"a {name}", len(data), max_message_bytes))
        if decode is None:
            return Received(data, len(data))
        try:
            return Received(decode(data), len(data))
        except DecodeError as error:
            refused = InvalidRequestError(f"the {len(data)} bytes that were sent are no {name}")
            refused.__cause__ = error
            return Received(None, len(data), refused)

    return received


def encoder(encode: Callable[[Any], bytes] | None, max_message_bytes: int) -> Callable[[Any], bytes]:
    """Return a response serialiser that the handler calls. gRPC calls the serialiser again with the bytes, which pass unchanged.

    Args:
        encode: the generated serialiser, such as `RenderResponse.SerializeToString`. None: responses are bytes.
        max_message_bytes: size above which a response is not sent.
    """

    def encoded(response: Any) -> bytes:
        data: bytes = response if encode is None or isinstance(response, bytes) else encode(response)
        if len(data) > max_message_bytes:
            raise _too_large("the answer", len(data), max_message_bytes)
        return data

    return encoded


def _too_large(what: str, num_bytes: int, most: int) -> MessageTooLargeError:
    return MessageTooLargeError(
        f"{what} of {mebibytes(num_bytes)} is too large: a message may have {mebibytes(most)}; send less in one message, or set "
        "DUBSTAGE_MAX_MESSAGE_BYTES higher on both sides"
    )


async def config_message(requests: AsyncIterator[Request]) -> Request:
    """Return the first message of a stream, which has to hold the stream's config.

    Raises:
        InvalidRequestError: the stream has no message.
    """
    async for request in requests:
        return request
    raise InvalidRequestError("the stream ended before its config", field="config")


class RequestStream:
    """Asynchronous iterator of the checked requests of one call.

    gRPC cannot take a read back: the request of a cancelled read is lost, and the next read ends at once as if the caller had sent
    all. Each read is therefore a task of its own. If a handler is cancelled during a read, for example while it reads ahead, the
    task goes on, and the next read waits for the same task.

    The first request is read when it has a slot in the server's byte budget. The wait for the slot does not count as idle.

    Args:
        context: context of the call.
        call: counts the requests, and the time for which the handler waits for the caller.
        first_messages: the server's byte budget for first requests.
    """

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any], call: Call, first_messages: FirstMessages) -> None:
        self._context = context
        self._call = call
        self._first_messages = first_messages
        self._begun = False
        self._reading: asyncio.Future[Any] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if not self._begun:
            release = await self._first_messages.acquire(host_of(self._context))
            self._begun = True
            self._read().add_done_callback(lambda _: release())
        reading = self._read()
        with self._call.awaited():
            received = await asyncio.shield(reading)
        self._reading = None
        if received is grpc.aio.EOF:
            raise StopAsyncIteration
        try:
            message = await _checked(received)
        except asyncio.CancelledError:
            # The request is not lost: the next read checks it again.
            self._reading = reading
            raise
        finally:
            self._call.messages_received += self._reading is None
        return message

    async def only(self) -> Any:
        """Return the request of a call that has one request.

        Raises:
            InvalidRequestError: the call ended without a request.
        """
        release = await self._first_messages.acquire(host_of(self._context))
        try:
            # No code reads ahead here, so the read needs no task.
            with self._call.awaited():
                received = await self._context.read()
        finally:
            release()
        if received is grpc.aio.EOF:
            raise InvalidRequestError(f"{self._call.rpc} takes one request, and the call ended without a request")
        self._call.messages_received += 1
        return await _checked(received)

    async def pause(self) -> None:
        """Wait for as long as a caller may take between two requests, and read nothing."""
        await asyncio.sleep(_NEXT_REQUEST_S)

    async def drain(self) -> None:
        """Read further requests of a failed call and drop them, until the caller pauses or _DRAIN_S are over."""
        end = time.monotonic() + _DRAIN_S
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


async def _checked(received: Received) -> Any:
    if received.num_bytes > _LARGE_BYTES:
        # The checks of 100,000 rows take seconds, in which the event loop would answer no other call.
        return await asyncio.to_thread(received.checked)
    return received.checked()


def _retrieve(reading: asyncio.Future[Any]) -> None:
    # A read that is still open when its call ends may fail. asyncio logs a failure that no code has retrieved.
    if not reading.cancelled():
        reading.exception()
