"""Client of a stage in another process: channel, token, deadline, context, error mapping and retries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from dubstage.client import AsyncConnection
from dubstage.client.connection import bearer, channel_options
from dubstage.client.rpcs import Unary, Upload
from services.common.errors import ContractBrokenError, DubstageError, InvalidRequestError, StageDeadlineExceededError
from services.common.server import call_context, error_status
from services.common.server.auth import OwnToken
from services.common.server.call_context import tenant_metadata
from services.common.server.retries import RetryPolicy, retry
from services.common.server.tls import Pems, RenewedTlsFiles

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientConfig:
    """Address and credentials of one stage."""

    stage: str
    """Name for error texts."""
    target: str
    """HOST:PORT, or any gRPC target such as `unix:///run/render.sock`. A target of several replicas, such as
    `dns:///render:50055` or `ipv4:10.0.0.1:50055,10.0.0.2:50055`, shares calls among the replicas in turn."""
    only_serving: bool = False
    """Send no call to a replica whose health is not SERVING. If no replica is SERVING, calls fail as BackendUnavailableError."""
    tls: bool = False
    tls_ca_file: Path | None = None
    """PEM of the authorities that may sign the server's certificate. None: the authorities that gRPC ships with."""
    tls_certificate_file: Path | None = None
    """PEM chain of the client's own certificate, for servers that require a client certificate."""
    tls_key_file: Path | None = None
    auth_token_file: Path | None = None
    """File whose first token is sent with each call, and with the watch of a replica's health. A token is only sent over TLS or to
    a loopback address."""
    max_message_bytes: int = 16 << 20
    deadline_s: float = 600.0
    """Seconds allowed to a call that states no time of its own."""


class StageConnection(AsyncConnection):
    """Connection whose calls have the context and the deadline of the call that this process serves, and fail by the error tree.

    Each call carries the job, shot, tenant and trace of the current context. Each call has a deadline: its own, the
    configuration's, or the time left to the call that this process serves, whichever comes first.
    """

    def __init__(self, config: ClientConfig, peer: str) -> None:
        super().__init__(peer, _channel(config), (), config.deadline_s)

    def _options(self, timeout_s: float | None) -> dict[str, Any]:
        allowed_s = self.timeout_s if timeout_s is None else timeout_s
        remaining_s = call_context.remaining_s()
        timeout_s = allowed_s if remaining_s is None or allowed_s is None else min(allowed_s, remaining_s)
        return {"timeout": timeout_s, "metadata": self.metadata()}

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return job, shot, trace and tenant, which each call carries, for callers that use a stub directly."""
        return (*call_context.outgoing_metadata().items(), *tenant_metadata())

    def _error(self, error: grpc.RpcError) -> Exception:
        assert isinstance(error, grpc.aio.AioRpcError)
        failed = error_status.from_rpc_error(error, peer=self.target)
        failed.__cause__ = error
        return failed


class StageClient:
    """A channel to one stage, for the RPCs of the table:

        async with StageClient(ClientConfig(stage="render", target="localhost:50055")) as client:
            models = await client.unary(rpcs.render.LIST_MODELS, ListModelsRequest())
            async for response in client.connection.stream(rpcs.render.RENDER, requests()):
                ...

    Unary calls and uploads are tried again here. `connection` makes each kind of call once.

    The token file and the TLS files are read again when they change: the next call has the new token, or goes over a new
    connection. Running calls stay on the connection that they began on.

    Raises:
        InvalidRequestError: a token or TLS file cannot be used, or a token would travel in plain text.
    """

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self.peer = f"{config.stage} at {config.target}"
        if config.auth_token_file is not None and not config.tls and not _is_local(config.target):
            raise InvalidRequestError(f"no token is sent to {self.peer} in plain text: use TLS", field="target")
        self.connection = StageConnection(config, self.peer)
        self.channel = self.connection.channel

    async def unary(self, rpc: Unary[Q, R], request: Q, *, timeout_s: float | None = None, policy: RetryPolicy | None = None) -> R:
        """Send one request and return the response. Retryable failures are tried again.

        Args:
            rpc: the RPC.
            timeout_s: time allowed to each attempt.
            policy: how to try again; None: the default policy.

        Raises:
            DubstageError: the error of the last attempt.
        """
        return await retry(lambda: self.connection.unary(rpc, request, timeout_s=timeout_s), policy)

    async def upload(
        self,
        rpc: Upload[Q, R],
        make_requests: Callable[[], AsyncIterable[Q]],
        *,
        timeout_s: float | None = None,
        policy: RetryPolicy | None = None,
    ) -> R:
        """Send many requests and return the response. Retryable failures are tried again, with fresh requests.

        Args:
            rpc: the RPC.
            make_requests: returns a new iterator of the same messages for each attempt. Pass `RetryPolicy(max_attempts=1)` if the
                messages cannot be sent again.
            timeout_s: time allowed to each attempt.
            policy: how to try again; None: the default policy.

        Raises:
            DubstageError: the error of the last attempt.
            ContractBrokenError: a second attempt was needed, and `make_requests` returned the iterator of the first attempt.
            Exception: an exception of the requests' own iterator, unchanged.
        """
        used: AsyncIterable[Q] | None = None
        failure: DubstageError | None = None

        async def attempt() -> R:
            nonlocal used, failure
            requests = make_requests()
            if requests is used and failure is not None:
                # The first attempt has read messages of this iterator: half a stream must not pass for a whole.
                raise ContractBrokenError(f"{self.peer}: no second attempt without fresh requests, after: {failure}") from failure
            used = requests
            try:
                return await self.connection.upload(rpc, requests, timeout_s=timeout_s)
            except DubstageError as error:
                failure = error
                raise

        return await retry(attempt, policy)

    async def wait_until_reachable(self, timeout_s: float) -> None:
        """Wait for a connection.

        Raises:
            StageDeadlineExceededError: there was no connection within `timeout_s`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self.channel.channel_ready()
        except TimeoutError:
            raise StageDeadlineExceededError(f"{self.peer} did not answer in {timeout_s:g} s: is it running?") from None

    async def close(self) -> None:
        """Close the channel. Calls in progress are cancelled."""
        await self.connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


class _Token(grpc.AuthMetadataPlugin):
    """Token of each call on a channel, also of the calls that gRPC itself makes to watch health."""

    def __init__(self, token: OwnToken) -> None:
        self._token = token

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        callback((bearer(self._token.current()),), None)


class _RenewedChannel(grpc.aio.Channel):
    """Channel over TLS that is made anew when a TLS file changes. Running calls end on the channel that they began on.

    Args:
        make: makes a channel with the content of the files.
        grace_s: seconds that running calls have to end after a change.
    """

    def __init__(self, files: RenewedTlsFiles, make: Callable[[Pems], grpc.aio.Channel], grace_s: float) -> None:
        self._files = files
        self._make = make
        self._grace_s = grace_s
        self._pems = files.current()
        self._channel = make(self._pems)
        self._replaced: dict[grpc.aio.Channel, asyncio.Task[None]] = {}

    def _current(self) -> grpc.aio.Channel:
        pems = self._files.current()
        if pems is not self._pems:
            replaced = self._channel
            self._pems, self._channel = pems, self._make(pems)
            self._replaced[replaced] = asyncio.create_task(replaced.close(self._grace_s))
            self._replaced[replaced].add_done_callback(lambda _: self._replaced.pop(replaced, None))
        return self._channel

    def _method(self, kind: str, *arguments: Any, **options: Any) -> Any:
        channel: grpc.aio.Channel | None = None
        method: Any = None

        def call(*given: Any, **named: Any) -> Any:
            nonlocal channel, method
            current = self._current()
            if current is not channel:
                channel, method = current, getattr(current, kind)(*arguments, **options)
            return method(*given, **named)

        return call

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        return self._method("unary_unary", *arguments, **options)

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        return self._method("unary_stream", *arguments, **options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        return self._method("stream_unary", *arguments, **options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        return self._method("stream_stream", *arguments, **options)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._current().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._current().channel_ready()

    async def close(self, grace: float | None = None) -> None:
        for channel in (*self._replaced, self._channel):
            await channel.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


def _channel(config: ClientConfig) -> grpc.aio.Channel:
    """Return the channel of a configuration. Raises InvalidRequestError."""
    options = _options(config)
    token = config.auth_token_file and grpc.metadata_call_credentials(_Token(OwnToken(config.auth_token_file)))

    def secure(credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
        # A token of the channel's credentials goes with the health watch too, which gRPC begins by itself.
        both = grpc.composite_channel_credentials(credentials, token) if token else credentials
        return grpc.aio.secure_channel(config.target, both, options=options)

    if config.tls:
        files = RenewedTlsFiles(authorities=config.tls_ca_file, certificate=config.tls_certificate_file, key=config.tls_key_file)
        return _RenewedChannel(files, lambda pems: secure(pems.client_credentials), config.deadline_s)
    if token:
        kind = grpc.LocalConnectionType.UDS if config.target.startswith("unix:") else grpc.LocalConnectionType.LOCAL_TCP
        return secure(grpc.local_channel_credentials(kind))
    return grpc.aio.insecure_channel(config.target, options=options)


def _is_local(target: str) -> bool:
    """Return whether every address of a target is on this machine."""
    if target.startswith("unix:"):
        return True
    addresses = target.removeprefix("ipv4:").removeprefix("ipv6:").rpartition("/")[2].split(",")
    hosts = {address.rpartition(":")[0].strip("[]") for address in addresses}
    return hosts <= {"localhost", "127.0.0.1", "::1"}


def _options(config: ClientConfig) -> list[tuple[str, int | str]]:
    return [
        *channel_options(config.max_message_bytes, only_serving=config.only_serving),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        # A new client connects at once, even while an older client of the same address waits to connect again.
        ("grpc.use_local_subchannel_pool", 1),
        # Stages talk to each other directly, without the web proxy of the environment.
        ("grpc.enable_http_proxy", 0),
    ]
