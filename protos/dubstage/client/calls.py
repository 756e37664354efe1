"""Typed calls: one declaration makes the request builder, the blocking call and the asyncio call of an RPC.

    @unary_call(rpcs.motion.ENCODE_STYLE, lambda reply: reply.style)
    def encode_style(*, method: str, ...) -> pb.EncodeStyleRequest: ...

    encode_style.request(method=..., ...)              # the message alone
    encode_style(connection, method=..., ...)          # over a Connection
    await encode_style.aio(connection, method=..., ...)  # over an AsyncConnection

Every call raises DubstageCallError if the RPC fails.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar

from google.protobuf.message import Message

from dubstage.client.aio import AsyncConnection
from dubstage.client.connection import Connection
from dubstage.client.names import identified
from dubstage.client.rpcs import Download, Rpc, Stream, Unary, Upload

P = ParamSpec("P")
T = TypeVar("T")
I = TypeVar("I")
Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

LONG_S = 3600.0
"""Seconds that a call may take which works on whole videos, trains, or lasts as long as somebody speaks."""


@dataclass(frozen=True, slots=True)
class Requests(Generic[I, Q]):
    """The requests of one streaming call: the configuration, then one request for each item.

    Attributes:
        config: the first request.
        item: makes the request of the next item. Items are numbered in the order of these calls, unless they have numbers.
    """

    config: Q
    item: Callable[[I], Q]

    def of(self, items: Iterable[I]) -> Iterator[Q]:
        """Yield the configuration, then the requests of `items`, while they come."""
        yield self.config
        for item in items:
            yield self.item(item)

    async def of_async(self, items: AsyncIterable[I] | Iterable[I]) -> AsyncIterator[Q]:
        """Yield the configuration, then the requests of `items`, while they come."""
        yield self.config
        if isinstance(items, AsyncIterable):
            async for item in items:
                yield self.item(item)
        else:
            for item in items:
                yield self.item(item)


class Call:
    """Base of all typed calls.

    Attributes:
        rpc: the RPC that is called.
    """

    rpc: Rpc[Any, Any]


class UnaryCall(Call, Generic[P, Q, R, T]):
    """One request, one result."""

    def __init__(self, rpc: Unary[Q, R], build: Callable[P, Q], read: Callable[[R], T]) -> None:
        update_wrapper(self, build)
        self.rpc: Unary[Q, R] = rpc
        self.request = build
        self._read = read

    def __call__(self, connection: Connection, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the RPC and return the result."""
        return self._read(connection.unary(self.rpc, identified(self.request(*args, **kwargs))))

    async def aio(self, connection: AsyncConnection, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the RPC and return the result."""
        return self._read(await connection.unary(self.rpc, identified(self.request(*args, **kwargs))))


class UploadCall(Call, Generic[P, I, Q, R, T]):
    """Many items, one result."""

    def __init__(self, rpc: Upload[Q, R], build: Callable[P, Requests[I, Q]], read: Callable[[R], T]) -> None:
        update_wrapper(self, build)
        self.rpc: Upload[Q, R] = rpc
        self.requests = build
        self._read = read

    def __call__(self, connection: Connection, items: Iterable[I], *args: P.args, **kwargs: P.kwargs) -> T:
        """Send the items while they come and return the result."""
        requests = self.requests(*args, **kwargs).of(items)
        return self._read(connection.upload(self.rpc, requests, timeout_s=connection.timeout_s or LONG_S))

    async def aio(self, connection: AsyncConnection, items: AsyncIterable[I] | Iterable[I], *args: P.args, **kwargs: P.kwargs) -> T:
        """Send the items while they come and return the result."""
        requests = self.requests(*args, **kwargs).of_async(items)
        return self._read(await connection.upload(self.rpc, requests, timeout_s=connection.timeout_s or LONG_S))


class DownloadCall(Call, Generic[P, Q, R, T]):
    """One request, many results."""

    def __init__(self, rpc: Download[Q, R], build: Callable[P, Q], read: Callable[[R], Iterable[T]]) -> None:
        update_wrapper(self, build)
        self.rpc: Download[Q, R] = rpc
        self.request = build
        self._read = read

    def __call__(self, connection: Connection, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        """Yield the results while they come. Closing the iterator cancels the call."""
        request = self.request(*args, **kwargs)
        return _each(connection.download(self.rpc, request, timeout_s=connection.timeout_s or LONG_S), self._read)

    def aio(self, connection: AsyncConnection, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
        """Yield the results while they come. Closing the iterator cancels the call."""
        request = self.request(*args, **kwargs)
        return _each_async(connection.download(self.rpc, request, timeout_s=connection.timeout_s or LONG_S), self._read)


class StreamCall(Call, Generic[P, I, Q, R, T]):
    """Many items, many results, at the same time."""

    def __init__(
        self, rpc: Stream[Q, R], build: Callable[P, Requests[I, Q]], read: Callable[[R], Iterable[T]], once_ready: bool
    ) -> None:
        update_wrapper(self, build)
        self.rpc: Stream[Q, R] = rpc
        self.requests = build
        self._read = read
        self._once_ready = once_ready

    def __call__(self, connection: Connection, items: Iterable[I], *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        """Send the items while they come and yield the results. Closing the iterator cancels the call."""
        requests = self.requests(*args, **kwargs).of(items)
        timeout_s = connection.timeout_s or LONG_S
        return _each(connection.stream(self.rpc, requests, timeout_s=timeout_s, once_ready=self._once_ready), self._read)

    def aio(
        self, connection: AsyncConnection, items: AsyncIterable[I] | Iterable[I], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncGenerator[T, None]:
        """Send the items while they come and yield the results. Closing the iterator cancels the call."""
        requests = self.requests(*args, **kwargs).of_async(items)
        timeout_s = connection.timeout_s or LONG_S
        return _each_async(connection.stream(self.rpc, requests, timeout_s=timeout_s, once_ready=self._once_ready), self._read)


class PagedCall(Call, Generic[P, Q, R, T]):
    """A list that comes page by page."""

    def __init__(self, rpc: Unary[Q, R], build: Callable[P, Q], read: Callable[[R], Iterable[T]]) -> None:
        update_wrapper(self, build)
        self.rpc: Unary[Q, R] = rpc
        self.request = build
        self._read = read

    def __call__(self, connection: Connection, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        """Yield the entries of all pages. The next page is asked for when the entries of one page have been taken."""
        request: Any = self.request(*args, **kwargs)
        while True:
            page: Any = connection.unary(self.rpc, request)
            yield from self._read(page)
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def aio(self, connection: AsyncConnection, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
        """Yield the entries of all pages. The next page is asked for when the entries of one page have been taken."""
        request: Any = self.request(*args, **kwargs)
        while True:
            page: Any = await connection.unary(self.rpc, request)
            for entry in self._read(page):
                yield entry
            request.page_token = page.next_page_token
            if not request.page_token:
                return


def unary_call(rpc: Unary[Q, R], read: Callable[[R], T]) -> Callable[[Callable[P, Q]], UnaryCall[P, Q, R, T]]:
    """Make the call of a unary RPC from the function that builds its request; `read` makes the result from the response."""
    return lambda build: UnaryCall(rpc, build, read)


def upload_call(rpc: Upload[Q, R], read: Callable[[R], T]) -> Callable[[Callable[P, Requests[I, Q]]], UploadCall[P, I, Q, R, T]]:
    """Make the call of an upload from the function that builds its requests; `read` makes the result from the response."""
    return lambda build: UploadCall(rpc, build, read)


def download_call(rpc: Download[Q, R], read: Callable[[R], Iterable[T]]) -> Callable[[Callable[P, Q]], DownloadCall[P, Q, R, T]]:
    """Make the call of a download from the function that builds its request; `read` gives the results in one response."""
    return lambda build: DownloadCall(rpc, build, read)


def stream_call(
    rpc: Stream[Q, R], read: Callable[[R], Iterable[T]], *, once_ready: bool = False
) -> Callable[[Callable[P, Requests[I, Q]]], StreamCall[P, I, Q, R, T]]:
    """Make the call of a stream from the function that builds its requests.

    Args:
        read: gives the results in one response.
        once_ready: take the first item only when the server has sent its initial metadata, and none if the server refuses the call.
    """
    return lambda build: StreamCall(rpc, build, read, once_ready)


def paged_call(rpc: Unary[Q, R], read: Callable[[R], Iterable[T]]) -> Callable[[Callable[P, Q]], PagedCall[P, Q, R, T]]:
    """Make the call of a list from the function that builds its first request; `read` gives the entries of one page."""
    return lambda build: PagedCall(rpc, build, read)


def _each(replies: Generator[R, None, None], read: Callable[[R], Iterable[T]]) -> Generator[T, None, None]:
    try:
        for reply in replies:
            yield from read(reply)
    finally:
        replies.close()


async def _each_async(replies: AsyncGenerator[R, None], read: Callable[[R], Iterable[T]]) -> AsyncGenerator[T, None]:
    try:
        async for reply in replies:
            for result in read(reply):
                yield result
    finally:
        await replies.aclose()
