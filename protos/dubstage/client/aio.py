"""Connections for asyncio: the counterpart of `dubstage.client.connection`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc.aio
from google.protobuf.message import Message

from dubstage.client.connection import MAX_MESSAGE_BYTES, ChannelCalls, TlsFiles, channel_options, token_metadata
from dubstage.client.rpcs import Download, Stream, Unary, Upload

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


class AsyncConnection(ChannelCalls[grpc.aio.Channel]):
    """A channel to one server for one event loop; made by `connect_aio`, closed by `close` or as an async context manager.

    Attributes: see ChannelCalls.
    """

    async def unary(self, rpc: Unary[Q, R], request: Q, *, timeout_s: float | None = None) -> R:
        """Send one request and return the one response.

        Raises:
            DubstageCallError: the call failed.
        """
        with self._errors():
            response: R = await self._callable(rpc, self.channel.unary_unary)(request, **self._options(timeout_s))
        return response

    async def upload(self, rpc: Upload[Q, R], requests: AsyncIterable[Q], *, timeout_s: float | None = None) -> R:
        """Send many requests and return the one response.

        Raises:
            DubstageCallError: the call failed.
            Exception: what the iterator of the requests raised.
        """
        source = _Source(requests)
        call = self._callable(rpc, self.channel.stream_unary)(source.messages(), **self._options(timeout_s))
        with self._errors(source), _server_status_first(call):
            response: R = await call
        return response

    async def download(self, rpc: Download[Q, R], request: Q, *, timeout_s: float | None = None) -> AsyncGenerator[R, None]:
        """Send one request and yield many responses. Closing the iterator cancels the call.

        Raises:
            DubstageCallError: the call failed.
        """
        call = self._callable(rpc, self.channel.unary_stream)(request, **self._options(timeout_s))
        try:
            with self._errors():
                async for response in responses_of(call):
                    yield response
        finally:
            # The server must not work on for a caller that stopped early.
            call.cancel()

    async def stream(
        self, rpc: Stream[Q, R], requests: AsyncIterable[Q], *, timeout_s: float | None = None, once_ready: bool = False
    ) -> AsyncGenerator[R, None]:
        """Send many requests and yield many responses, at the same time. Closing the iterator cancels the call.

        Args:
            requests: read as fast as the server takes them.
            timeout_s: seconds that the whole stream may take; None: `connection.timeout_s`.
            once_ready: take the second request only when the server has sent its initial metadata, and never if the server
                refuses the call. A call that fails while it waits for a later request takes and drops that request.

        Raises:
            DubstageCallError: the call failed.
            Exception: what the iterator of the requests raised.
        """
        source = _Source(requests)
        begun: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def ready() -> bool:
            call = await begun
            await call.initial_metadata()
            # gRPC gives a refused call initial metadata too, empty ones, once the call is over.
            return not call.done()

        messages = source.messages(ready if once_ready else None)
        call = self._callable(rpc, self.channel.stream_stream)(messages, **self._options(timeout_s))
        begun.set_result(call)
        try:
            with self._errors(source), _server_status_first(call):
                async for response in responses_of(call):
                    yield response
        finally:
            call.cancel()

    @contextmanager
    def _errors(self, source: _Source | None = None) -> Iterator[None]:
        """Raise a failed call's own exception; before it, the failure of the requests, where there is one.

        grpc.aio cancels the call where the iterator of the requests fails. The caller could not tell that from a cancellation of
        its task.
        """
        try:
            yield
        except (asyncio.CancelledError, grpc.aio.AioRpcError) as error:
            if source is not None and source.failure is not None:
                raise source.failure from None
            if isinstance(error, asyncio.CancelledError):
                raise
            failed = self._error(error)
            raise failed from failed.__cause__

    async def close(self) -> None:
        """Close the channel; calls in progress are cancelled."""
        await self.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


async def responses_of(call: Any) -> AsyncGenerator[Any, None]:
    """Yield the responses of a call of grpc.aio. If the reader is cancelled, cancel the call, and wait until the read has ended.

    grpc.aio keeps the message of a read that is cancelled until the process ends (seen with 1.85), so no read is cancelled here.

    Args:
        call: call with many responses.

    Raises:
        grpc.aio.AioRpcError: the call failed.
    """
    responses = aiter(call)
    while True:
        read = asyncio.ensure_future(anext(responses, None))
        # asyncio logs a task's error unless the error is retrieved. A reader that is cancelled twice ends before the read does, so
        # this callback retrieves the error.
        read.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        try:
            response = await asyncio.shield(read)
        except asyncio.CancelledError:
            call.cancel()
            await asyncio.wait([read])
            raise
        if response is None:
            return
        yield response


class _Source:
    """Requests that keep the failure of their iterator, which gRPC would report as a cancelled call."""

    def __init__(self, requests: AsyncIterable[Any]) -> None:
        self._requests = requests
        self.failure: Exception | None = None

    async def messages(self, ready: Callable[[], Awaitable[bool]] | None = None) -> AsyncIterator[Any]:
        """Yield the requests. After the first one, `ready` waits for the server and returns whether the server wants the others."""
        try:
            first = True
            async for request in self._requests:
                yield request
                if first and ready is not None and not await ready():
                    return
                first = False
        except Exception as error:
            self.failure = error
            raise


@contextmanager
def _server_status_first(call: grpc.aio.Call) -> Iterator[None]:
    """Raise the status that the server sent, where grpc.aio replaces the status with INTERNAL.

    grpc.aio does so where a write meets the end of the call (https://github.com/grpc/grpc/issues/36066).
    """
    sent: list[grpc.aio.AioRpcError] = []

    def note(ended: Any) -> None:
        # The status is there, so no coroutine waits.
        code, details, trailing = _result(ended.code()), _result(ended.details()), _result(ended.trailing_metadata())
        if not sent and code is not grpc.StatusCode.OK:
            sent.append(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing or grpc.aio.Metadata(), details))

    call.add_done_callback(note)
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.INTERNAL and sent and sent[0].code() is not grpc.StatusCode.INTERNAL:
            raise sent[0] from error
        raise


def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that does not wait."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    coroutine.close()
    return None


def connect_aio(
    target: str,
    *,
    token: str | None = None,
    tls: TlsFiles | None = None,
    timeout_s: float | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> AsyncConnection:
    """Return a connection to a server for the running event loop. Arguments and errors are those of `connect`.

    Raises:
        ValueError: the token has characters that no header can carry.
        OSError: a TLS file cannot be read.
    """
    metadata, options = token_metadata(token), channel_options(max_message_bytes)
    if tls is None:
        channel = grpc.aio.insecure_channel(target, options=options)
    else:
        channel = grpc.aio.secure_channel(target, tls.credentials(), options=options)
    return AsyncConnection(target, channel, metadata, timeout_s)
