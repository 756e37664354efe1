"""A channel to one server for asyncio, with its token and its errors: the twin of `dubstage.client.connection`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc.aio
from google.protobuf.message import Message

from dubstage.client.channel_calls import ChannelCalls
from dubstage.client.channels import MAX_MESSAGE_BYTES, TlsFiles, channel_options, token_metadata
from dubstage.client.errors import from_rpc_error
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
        try:
            response: R = await self._callable(rpc, self.channel.unary_unary)(request, **self._options(timeout_s))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, self.target) from None
        return response

    async def upload(self, rpc: Upload[Q, R], requests: AsyncIterable[Q], *, timeout_s: float | None = None) -> R:
        """Send many requests and return the one response.

        Raises:
            DubstageCallError: the call failed.
            Exception: what the iterator of the requests raised.
        """
        source = _Source(requests)
        call = self._callable(rpc, self.channel.stream_unary)
        with source.failure_first(self.target):
            response: R = await call(source.messages(), **self._options(timeout_s))
        return response

    async def download(self, rpc: Download[Q, R], request: Q, *, timeout_s: float | None = None) -> AsyncGenerator[R, None]:
        """Send one request and yield many responses. Closing the iterator cancels the call.

        Raises:
            DubstageCallError: the call failed.
        """
        call = self._callable(rpc, self.channel.unary_stream)(request, **self._options(timeout_s))
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, self.target) from None
        finally:
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
            with source.failure_first(self.target):
                async for response in call:
                    yield response
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the channel; calls in progress are cancelled."""
        await self.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


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
    def failure_first(self, target: str) -> Iterator[None]:
        """Raise the failure of the requests, where there is one, in place of the call's own error."""
        try:
            yield
        except asyncio.CancelledError:
            if self.failure is None:
                raise
            raise self.failure from None
        except grpc.aio.AioRpcError as error:
            raise self.failure or from_rpc_error(error, target) from None


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
