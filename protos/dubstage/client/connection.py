"""Channels to one server, with options, TLS files, token and errors: the base of all connections, and the blocking one."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import grpc
from google.protobuf.message import Message

from dubstage.client.errors import from_rpc_error
from dubstage.client.rpcs import Download, Rpc, Stream, Unary, Upload

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)
C = TypeVar("C")

MAX_MESSAGE_BYTES: Final = 64 << 20
"""Largest message of a connection that is given no other limit. Servers take 32 MiB at most if they are given no other limit, and
refuse larger messages by name. A 4K picture has 25 MB."""
CALL_S: Final = 600.0
"""Seconds that a call may take, unless the connection or the call has a time of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsFiles:
    """PEM files of a TLS connection.

    Attributes:
        ca: certificates of the authorities that may sign the server's certificate; None: the authorities that gRPC ships with.
        certificate: the client's own certificate, for servers that require one.
        key: private key of `certificate`.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Return the channel credentials that these files make.

        Raises:
            OSError: a file cannot be read.
        """
        ca, key, certificate = (None if file is None else file.read_bytes() for file in (self.ca, self.key, self.certificate))
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=certificate)


def channel_options(max_message_bytes: int, *, only_serving: bool = False) -> list[tuple[str, int | str]]:
    """Return the options of a channel.

    Args:
        max_message_bytes: largest message, in and out, bytes.
        only_serving: whether calls go to no replica whose health is not SERVING.
    """
    # Calls go to all addresses of the target in turn; by default gRPC stays with the first address that answers.
    service: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if only_serving:
        service["healthCheckConfig"] = {"serviceName": ""}
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.service_config", json.dumps(service)),
        # A service configuration in the DNS must not replace this one.
        ("grpc.service_config_disable_resolution", 1),
        # A replica that restarts is found again within seconds. gRPC's own limits are one second and two minutes.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # When a replica goes away, the name is resolved again. By default gRPC does so at most every 30 seconds.
        ("grpc.dns_min_time_between_resolutions_ms", 2_000),
    ]


def bearer(token: str) -> tuple[str, str]:
    """Return the metadata entry that presents a token."""
    return ("authorization", f"Bearer {token}")


def token_metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata that carries a bearer token; spaces and line ends around the token are removed.

    Raises:
        ValueError: the token has characters that no header can carry. The message does not show the token, which must not get into
            logs.
    """
    token = (token or "").strip()
    for index, character in enumerate(token):
        if not (character.isascii() and character.isprintable() and character != " "):
            kind = unicodedata.name(character, "a control character")
            raise ValueError(
                f"the token cannot be sent: character {index + 1} of {len(token)} is {kind}; a bearer token is one word of plain "
                "ASCII: give one line of the token file"
            )
    return (bearer(token),) if token else ()


class ChannelCalls(Generic[C]):
    """A channel to one server, with the options of the calls.

    Attributes:
        channel: the gRPC channel.
        target: HOST:PORT.
        timeout_s: seconds that every call may take; None: each call has a time of its own.
    """

    def __init__(self, target: str, channel: C, metadata: tuple[tuple[str, str], ...], timeout_s: float | None) -> None:
        self.target = target
        self.channel = channel
        self.timeout_s = timeout_s
        self._metadata = metadata
        self._callables: dict[Rpc[Any, Any], Callable[..., Any]] = {}

    def _callable(self, rpc: Rpc[Any, Any], make: Callable[..., Callable[..., Any]]) -> Callable[..., Any]:
        if rpc not in self._callables:
            self._callables[rpc] = make(rpc.path, **rpc.serialisers)
        return self._callables[rpc]

    def _options(self, timeout_s: float | None) -> dict[str, Any]:
        return {"timeout": timeout_s or self.timeout_s or CALL_S, "metadata": self._metadata}

    def _error(self, error: grpc.RpcError) -> Exception:
        """Return the exception of a failed call. Its `__cause__` is what it is raised from."""
        return from_rpc_error(error, self.target)


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
            raise self._error(error) from None
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
            raise source.failure or self._error(error) from None
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
            raise self._error(error) from None
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
            raise source.failure or self._error(error) from None
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
