"""A channel to one service, with its token and its errors."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from dubstage.client.errors import from_rpc_error

Request = TypeVar("Request")
Response = TypeVar("Response")

MAX_MESSAGE_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsFiles:
    """PEM files of a TLS connection.

    Attributes:
        ca: who may sign the server's certificate; None: the authorities that gRPC ships with.
        certificate, key: the client's own, for servers that require one.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class Connection:
    """A channel; made by `connect`, closed by `close` or as a context manager. Safe for several threads.

    Attributes:
        channel: for the generated stubs.
        target: HOST:PORT.
    """

    def __init__(self, target: str, channel: grpc.Channel, token: str | None, timeout_s: float) -> None:
        self.target = target
        self.channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._timeout_s = timeout_s

    def unary(self, method: Callable[..., Response], request: Any, *, timeout_s: float | None = None) -> Response:
        """One request, one response, by a method of a generated stub.

        Raises:
            DubstageCallError: the call failed.
        """
        try:
            return method(request, timeout=timeout_s or self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.target) from None

    def upload(self, method: Callable[..., Response], requests: Iterable[Any], *, timeout_s: float | None = None) -> Response:
        """Many requests, one response.

        Raises:
            DubstageCallError: the call failed.
        """
        return self.unary(method, iter(requests), timeout_s=timeout_s)

    def stream(
        self,
        method: Callable[..., Any],
        requests: Iterable[Any] | Any,
        *,
        timeout_s: float | None = None,
        on_call: Callable[[Any], None] | None = None,
    ) -> Generator[Any, None, None]:
        """One request or many, many responses. Closing the iterator cancels the call; `on_call` is given the call when it begins.

        Raises:
            DubstageCallError: the call failed.
            Exception: what the requests' own iterator raised, as it is.
        """
        failure: list[Exception] = []

        def sent(source: Iterable[Any]) -> Iterator[Any]:
            # gRPC would report a failing iterator as a cancelled call.
            try:
                yield from source
            except Exception as error:
                failure.append(error)
                raise

        given = sent(requests) if isinstance(requests, Iterable) else requests
        call = method(given, timeout=timeout_s or self._timeout_s, metadata=self._metadata)
        if on_call is not None:
            on_call(call)
        try:
            yield from call
        except grpc.RpcError as error:
            if failure:
                raise failure[0] from None
            raise from_rpc_error(error, self.target) from None
        finally:
            call.cancel()

    def close(self) -> None:
        """Close the channel; calls in progress are cancelled."""
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _checked(token: str | None) -> str | None:
    # Without the token itself: it must not get into logs.
    token = (token or "").strip()
    for place, character in enumerate(token):
        if not (character.isascii() and character.isprintable() and character != " "):
            kind = unicodedata.name(character, "a control character")
            raise ValueError(
                f"the token cannot be sent: character {place + 1} of {len(token)} is {kind}; a bearer token is one word of plain "
                "ASCII: give one line of the token file"
            )
    return token or None


def connect(
    target: str,
    *,
    token: str | None = None,
    tls: TlsFiles | None = None,
    timeout_s: float = 600.0,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> Connection:
    """A connection to a service. It is made when the first call needs it.

    Args:
        target: HOST:PORT, or any gRPC target. Calls are shared among the replicas that it stands for.
        token: bearer token; spaces and line ends around it do not count.
        tls: TLS files; None: plain text.
        timeout_s: time allowed to a call that names none of its own.
        max_message_bytes: largest message in or out; the servers have a limit of their own.

    Raises:
        ValueError: the token has characters that no header can carry.
        OSError: a TLS file cannot be read.
    """
    token = _checked(token)
    options = [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # Calls go to all addresses of the target in turn; by default gRPC stays with the first one that answers.
        ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.dns_min_time_between_resolutions_ms", 2_000),
    ]
    if tls is None:
        return Connection(target, grpc.insecure_channel(target, options=options), token, timeout_s)

    def read(file: Path | None) -> bytes | None:
        return file.read_bytes() if file is not None else None

    credentials = grpc.ssl_channel_credentials(
        root_certificates=read(tls.ca), private_key=read(tls.key), certificate_chain=read(tls.certificate)
    )
    return Connection(target, grpc.secure_channel(target, credentials, options=options), token, timeout_s)
