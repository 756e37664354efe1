"""A channel to one server, with its token and its errors."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message

from dubstage.client.channel_calls import ChannelCalls
from dubstage.client.channels import MAX_MESSAGE_BYTES, TlsFiles, channel_options, token_metadata
from dubstage.client.errors import from_rpc_error
from dubstage.client.rpcs import Download, Stream, Unary, Upload

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


class Connection(ChannelCalls[grpc.Channel]):
    """A channel to one server; made by `connect`, closed by `close` or as a context manager. Safe for several threads.

    Attributes: see ChannelCalls.
    """

    def unary(self, rpc: Unary[Q, R], request: Q, *, timeout_s: float | None = None) -> R:
        """Send one request and return the one response.

        Raises:
            DubstageCallError: the call failed.
        """
        call = self._callable(rpc, self.channel.unary_unary)
        try:
            response: R = call(request, **self._options(timeout_s))
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.target) from None
        return response

    def upload(self, rpc: Upload[Q, R], requests: Iterable[Q], *, timeout_s: float | None = None) -> R:
        """Send many requests and return the one response.

        Raises:
            DubstageCallError: the call failed.
            Exception: what the iterator of the requests raised.
        """
        source = _Source(requests)
        call = self._callable(rpc, self.channel.stream_unary)
        try:
            response: R = call(source.messages(), **self._options(timeout_s))
        except grpc.RpcError as error:
            raise source.failure or from_rpc_error(error, self.target) from None
        return response

    def download(self, rpc: Download[Q, R], request: Q, *, timeout_s: float | None = None) -> Generator[R, None, None]:
        """Send one request and yield many responses. Closing the iterator cancels the call.

        Raises:
            DubstageCallError: the call failed.
        """
        call = self._callable(rpc, self.channel.unary_stream)(request, **self._options(timeout_s))
        try:
            yield from call
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.target) from None
        finally:
            call.cancel()

    def stream(
        self, rpc: Stream[Q, R], requests: Iterable[Q], *, timeout_s: float | None = None, once_ready: bool = False
    ) -> Generator[R, None, None]:
        """Send many requests and yield many responses, at the same time. Closing the iterator cancels the call.

        Args:
            requests: read in a thread of gRPC, as fast as the server takes them.
            timeout_s: seconds that the whole stream may take; None: `connection.timeout_s`.
            once_ready: take the second request only when the server has sent its initial metadata, and never if the server
                refuses the call. A call that fails while it waits for a later request takes and drops that request.

        Raises:
            DubstageCallError: the call failed.
            Exception: what the iterator of the requests raised.
        """
        source = _Source(requests)
        begun: SimpleQueue[Any] = SimpleQueue()

        def ready() -> bool:
            call = begun.get()
            call.initial_metadata()
            # gRPC gives a refused call initial metadata too, empty ones, once the call is over.
            return bool(call.is_active())

        messages = source.messages(ready if once_ready else None)
        call = self._callable(rpc, self.channel.stream_stream)(messages, **self._options(timeout_s))
        begun.put(call)
        try:
            yield from call
        except grpc.RpcError as error:
            raise source.failure or from_rpc_error(error, self.target) from None
        finally:
            call.cancel()

    def close(self) -> None:
        """Close the channel; calls in progress are cancelled."""
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Source:
    """Requests that keep the failure of their iterator, which gRPC would report as a cancelled call."""

    def __init__(self, requests: Iterable[Any]) -> None:
        self._requests = requests
        self.failure: Exception | None = None

    def messages(self, ready: Callable[[], bool] | None = None) -> Iterator[Any]:
        """Yield the requests. After the first one, `ready` waits for the server and returns whether the server wants the others."""
        try:
            for number, request in enumerate(self._requests):
                yield request
                if number == 0 and ready is not None and not ready():
                    return
        except Exception as error:
            self.failure = error
            raise


def connect(
    target: str,
    *,
    token: str | None = None,
    tls: TlsFiles | None = None,
    timeout_s: float | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> Connection:
    """Return a connection to a server. The channel connects at the first call.

    Args:
        target: HOST:PORT, or any gRPC target. Calls are shared among the replicas that the target stands for.
        token: bearer token; spaces and line ends around the token are removed.
        tls: TLS files; None: plain text.
        timeout_s: seconds that every call may take; None: 600 s for a short call, 3600 s for a call that streams.
        max_message_bytes: largest message in or out, bytes. Servers have a limit of their own.

    Raises:
        ValueError: the token has characters that no header can carry.
        OSError: a TLS file cannot be read.
    """
    metadata, options = token_metadata(token), channel_options(max_message_bytes)
    if tls is None:
        channel = grpc.insecure_channel(target, options=options)
    else:
        channel = grpc.secure_channel(target, tls.credentials(), options=options)
    return Connection(target, channel, metadata, timeout_s)
