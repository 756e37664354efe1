"""The health service (grpc.health.v1) of every server. It asks for no token, so it bounds what callers can keep in memory."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from services.common.chassis import error_status
from services.common.errors import DubstageError, InvalidRequest, Overloaded

MAX_NAME_BYTES: Final = 256
"""Longest name of a service, bytes."""
MAX_WATCHES: Final = 1024
"""Most Watch calls of one port at the same time. A gateway, and a worker of a batch, has one per connection and two while the
connection is replaced. A watch takes 28 to 43 KiB."""
MAX_WATCHES_OF_HOST: Final = 256
"""Most Watch calls of one client address at the same time, so that one host cannot take all places from the gateways."""

# The field's tag and length, then the name. Protobuf keeps fields that it does not know, and they count too.
_MAX_REQUEST_BYTES: Final = 3 + MAX_NAME_BYTES
# Seconds after which a refused watcher may come again.
_RETRY_S: Final = 5.0
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN: Final = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


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
        # Without the port: a host has many connections.
        host = context.peer().rpartition(":")[0]
        await self._check_room(host, context)
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
        if (num_bytes := request.ByteSize()) > _MAX_REQUEST_BYTES:
            text = f"service: the request has {num_bytes} bytes; the name of a service has at most {MAX_NAME_BYTES}"
            await self._refuse(InvalidRequest(text, field="service"), context)

    async def _check_room(self, host: str, context: Context) -> None:
        if len(self._watches) >= MAX_WATCHES:
            text = f"{MAX_WATCHES} callers watch the health of this server, and no more may; ask with Check, or watch later"
            await self._refuse(Overloaded(text, retry_after_s=_RETRY_S), context)
        if list(self._watches.values()).count(host) >= MAX_WATCHES_OF_HOST:
            text = f"{MAX_WATCHES_OF_HOST} callers of {host} watch the health of this server, and no more of one address may; "
            await self._refuse(Overloaded(f"{text}ask with Check, or watch later", retry_after_s=_RETRY_S), context)

    async def _refuse(self, error: DubstageError, context: Context) -> None:
        """End the call with an error. Raises grpc.aio.AbortError."""
        await context.abort_with_status(rpc_status.to_status(error_status.to_status(error, stage=self._stage)))
