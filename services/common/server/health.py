"""The health service (grpc.health.v1) of every server: who may ask, and how much memory callers can keep.

The port of the calls answers callers with a token, where the server asks for tokens. The plain port answers every caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias
from weakref import WeakValueDictionary

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from services.common.errors import (
    DubstageError,
    InvalidRequestError,
    OverloadedError,
    StageDeadlineExceededError,
    UnauthenticatedError,
)
from services.common.server import error_status
from services.common.server.auth import AUTHORIZATION_KEY, TokenCheck
from services.common.server.call_messages import host_of

HEALTH: Final = "/grpc.health."
"""First characters of the methods of the health service."""

MAX_NAME_BYTES: Final = 256
"""Longest name of a service, bytes."""
MAX_WATCHES: Final = 1024
"""Most Watch calls of one port at the same time. A gateway, and a worker of a batch, has one per connection and two while the
connection is replaced. A watch takes 28 to 43 KiB."""
MAX_WATCHES_OF_HOST: Final = 256
"""Most Watch calls of one client address at the same time, so that one host cannot take all slots from the gateways."""

MAX_REQUEST_BYTES: Final = 4 << 10
"""Largest request that the plain port reads, bytes: a longest name, and room for a refusal that says so."""
REQUEST_S: Final = 5.0
"""Seconds within which the request of a health call must have arrived."""

# The bytes are the field's tag and length, then the name. Protobuf keeps fields that it does not know, and they count too.
_MAX_USED_BYTES: Final = 3 + MAX_NAME_BYTES
# Requests of health calls that the port of the calls reads at the same time: of all callers, and of one client address. gRPC has
# one largest message for all methods of a port, so a request that is being read may take as much memory as a message of frames.
_READ_AT_ONCE: Final = 4
_READ_AT_ONCE_OF_HOST: Final = 2
# Seconds after which a refused watcher may come again.
_RETRY_S: Final = 5.0
_REQUEST: Final = health_pb2.HealthCheckRequest.DESCRIPTOR.full_name
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN: Final = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
# The type is in quotes: the class is generic in the type stubs only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Statuses of services, for callers that ask once and for callers that watch.

    Each watcher is independent of the others and always gets the newest status. All methods run in the event loop of the server.
    The servicer of grpc_health is not used, because there the end of one watch leaves the other watchers without news.

    Args:
        stage: name of the server, for errors.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._statuses: dict[str, int] = {}
        # For each running watch, the event that wakes it and the host of its caller.
        self._watches: dict[asyncio.Event, str] = {}
        self._shutting_down = False

    def set(self, service: str, status: int) -> None:
        """Set the status of a service, unless the server shuts down."""
        if not self._shutting_down:
            self._statuses[service] = status
            self._wake()

    def enter_graceful_shutdown(self) -> None:
        """Set every service to NOT_SERVING for good."""
        self._shutting_down = True
        self._statuses = dict.fromkeys(self._statuses, _NOT_SERVING)
        self._wake()

    async def Check(  # noqa: N802  # the RPC's name
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Return the status of a service. An unknown service is NOT_FOUND, a name that is too long is INVALID_ARGUMENT."""
        await self._check_size(request, context)
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:  # noqa: N802  # the RPC's name
        """Send the status of a service now and at every change. An unknown service is SERVICE_UNKNOWN until it has a status.

        A name that is too long is INVALID_ARGUMENT. A watch beyond MAX_WATCHES or MAX_WATCHES_OF_HOST is RESOURCE_EXHAUSTED.
        """
        await self._check_size(request, context)
        host = host_of(context)
        await self._check_space(host, context)
        changed = asyncio.Event()
        self._watches[changed] = host
        shown = None
        try:
            while True:
                changed.clear()
                status = self._statuses.get(request.service, _SERVICE_UNKNOWN)
                if status != shown:
                    await context.write(health_pb2.HealthCheckResponse(status=status))
                    shown = status
                await changed.wait()
        finally:
            del self._watches[changed]

    def _wake(self) -> None:
        for changed in self._watches:
            changed.set()

    async def _check_size(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        if (num_bytes := request.ByteSize()) > _MAX_USED_BYTES:
            await _refuse(_too_long(num_bytes), context, self._stage)

    async def _check_space(self, host: str, context: Context) -> None:
        if len(self._watches) >= MAX_WATCHES:
            text = f"{MAX_WATCHES} callers watch the health of this server, and no more may; ask with Check, or watch later"
            await _refuse(OverloadedError(text, retry_after_s=_RETRY_S), context, self._stage)
        if list(self._watches.values()).count(host) >= MAX_WATCHES_OF_HOST:
            text = f"{MAX_WATCHES_OF_HOST} callers of {host} watch the health of this server, and no more of one address may; "
            await _refuse(OverloadedError(f"{text}ask with Check, or watch later", retry_after_s=_RETRY_S), context, self._stage)


class HealthInterceptor(grpc.aio.ServerInterceptor):
    """Decides about health calls by their headers, and reads their requests: small ones, that arrive in REQUEST_S.

    As an interceptor the object is for a port that serves health only, with MAX_REQUEST_BYTES as gRPC's largest message.

    Args:
        stage: name of the server, for errors.
        tokens: which bearer tokens are accepted; None: every caller may ask.
    """

    def __init__(self, stage: str, tokens: TokenCheck | None = None) -> None:
        self._stage = stage
        self._tokens = tokens
        self._slots = asyncio.Semaphore(_READ_AT_ONCE)
        self._slots_of_host: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap the handler of a call of a port that serves health only."""
        handler = await continuation(handler_call_details)
        return None if handler is None else self.wrapped(handler, self._read)

    def of_calls(self, handler: Handler) -> Handler:
        """Wrap the handler of a health call of the port of the calls."""
        return self.wrapped(handler, self._read_in_turn)

    def wrapped(self, handler: Handler, read: Callable[[Context], Awaitable[Any]]) -> Handler:
        """Return a handler that gRPC calls before it reads the request. `read` reads the request."""
        behaviour: Any = handler.unary_stream if handler.response_streaming else handler.unary_unary

        async def answer(_: object, context: Context) -> Any:
            try:
                self._check_token(context)
                async with asyncio.timeout(REQUEST_S):
                    data = await read(context)
                if data is grpc.aio.EOF:
                    raise InvalidRequestError("a health call holds one request, and this call holds none")
                if len(data) > _MAX_USED_BYTES:
                    raise _too_long(len(data))
                request = health_pb2.HealthCheckRequest.FromString(data)
            except UnauthenticatedError as error:
                if handler.response_streaming:
                    # gRPC's clients watch health by themselves, often without a token. By this answer, they go on without health.
                    await context.abort(grpc.StatusCode.UNIMPLEMENTED, error.message)
                await _refuse(error, context, self._stage)
            except TimeoutError:
                await _refuse(StageDeadlineExceededError(f"the request did not arrive in {REQUEST_S:g} s"), context, self._stage)
            except DecodeError:
                await _refuse(InvalidRequestError(f"the {len(data)} bytes that were sent are no {_REQUEST}"), context, self._stage)
            except DubstageError as error:
                await _refuse(error, context, self._stage)
            return await behaviour(request, context)

        # gRPC reads the request of a call without streams before it calls the handler, and has no time for that.
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(answer, response_serializer=handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(answer, response_serializer=handler.response_serializer)

    def _check_token(self, context: Context) -> None:
        if self._tokens is None or not self._tokens.required:
            return
        given = next((value for key, value in context.invocation_metadata() or () if key == AUTHORIZATION_KEY), "")
        try:
            self._tokens.check(given if isinstance(given, str) else "")
        except UnauthenticatedError as error:
            text = f"{error.message}; health is served without a token on DUBSTAGE_HEALTH_PORT"
            raise UnauthenticatedError(text, field=error.field) from error

    async def _read(self, context: Context) -> Any:
        return await context.read()

    async def _read_in_turn(self, context: Context) -> Any:
        own = self._slots_of_host.setdefault(host_of(context), asyncio.Semaphore(_READ_AT_ONCE_OF_HOST))
        async with own, self._slots:
            return await context.read()


def _too_long(num_bytes: int) -> InvalidRequestError:
    text = f"service: the request has {num_bytes} bytes; the name of a service has at most {MAX_NAME_BYTES}"
    return InvalidRequestError(text, field="service")


async def _refuse(error: DubstageError, context: Context, stage: str) -> None:
    """End the call with an error. Raises grpc.aio.AbortError."""
    await context.abort_with_status(rpc_status.to_status(error_status.to_status(error, stage=stage)))
