"""The rooms of all tenants of a gateway. A call reaches the room of the caller's tenant alone."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Final

import structlog
from opentelemetry import trace

from gateway.ahead import in_thread
from gateway.api.room import Room
from gateway.api.shared import Shared
from gateway.tenants.places import settings_of
from gateway.tenants.register import remember_tenant, served_tenants
from services.common.chassis.caller import DEFAULT_TENANT, current_caller
from services.common.errors import BackendUnavailable, DubstageError, InvalidRequest, StorageRefused

LOOK_S: Final = 5.0
"""Seconds between two looks for tenants that other gateways serve: if such a gateway dies, this one goes on with its work."""

_log = structlog.stdlib.get_logger("dubstage.tenants")


class Rooms:
    """The rooms of one gateway process. Used from one event loop.

    Attributes:
        default: room of the default tenant.

    Args:
        shared: what the tenants of the process share.

    Raises:
        DubstageError: as `Room`, of the default tenant.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.default = Room(shared, shared.settings)
        self._rooms = {DEFAULT_TENANT: self.default}
        self._opening = asyncio.Lock()
        self._tracer: trace.Tracer = trace.NoOpTracer()
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def unfinished(self) -> int:
        """Number of operations and batches that run in this process, and of those that wait for any gateway."""
        return sum(room.unfinished for room in self._rooms.values())

    async def of_caller(self) -> Room:
        """Return the room of the caller's tenant. The tenant's first call opens it.

        Raises:
            DubstageError: the places of the tenant cannot be used, or the gateway is shutting down.
        """
        tenant = current_caller().tenant
        room = self._rooms.get(tenant)
        if room is not None:
            return room
        try:
            return await self._open(tenant)
        except DubstageError as problem:
            # A file of the settings may have become wrong since the gateway started: the fault is not the caller's.
            wrong = isinstance(problem, InvalidRequest)
            told = StorageRefused(problem.message, subject=f"tenant {tenant}") if wrong else problem
            raise self.default.installation.context.names.rewrite(told) from None

    async def start(self, tracer: trace.Tracer) -> None:
        """Resume interrupted operations and batches of all tenants. The stages are open.

        Args:
            tracer: makes one span for each operation.
        """
        self._tracer = tracer
        await self.default.start(tracer)
        await self._look()
        if self.default.installation.context.actors.database.shared:
            self._looking = asyncio.create_task(self._look_for_ever())

    async def stop(self) -> None:
        """Stop the operations and batches of all tenants where they are; another process resumes them. No room opens any more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        async with self._opening:
            self._closed = True
        await asyncio.gather(*(room.stop() for room in self._rooms.values()))

    async def close_batches(self) -> None:
        """Remove the folders that batches have left. All calls have ended."""
        for room in self._rooms.values():
            await room.close_batches()

    async def close(self) -> None:
        """Close all databases and data folders. The stages are closed."""
        # The room of the default tenant comes last: the others use its connections.
        for room in reversed(self._rooms.values()):
            await room.close()

    async def _open(self, tenant: str) -> Room:
        # The room must neither end with the call that opens it, nor have that call's deadline and caller.
        return await asyncio.shield(asyncio.create_task(self._opened(tenant), context=contextvars.Context()))

    async def _opened(self, tenant: str) -> Room:
        async with self._opening:
            if tenant in self._rooms:
                return self._rooms[tenant]
            if self._closed:
                raise BackendUnavailable("the gateway is shutting down")
            await in_thread(remember_tenant, self.default.installation.context.actors.database, tenant)
            room = await in_thread(Room, self._shared, settings_of(self._shared.settings, tenant), self.default)
            try:
                room.watch()
                await room.start(self._tracer)
            except BaseException:
                # Calls find only rooms that have started. The tenant's next call tries again, with a new room.
                await room.stop()
                await room.close_batches()
                await room.close()
                raise
            self._rooms[tenant] = room
            _log.info("tenant_opened", tenant=tenant)
            return room

    async def _look(self) -> None:
        """Open the rooms of all tenants that a gateway has served."""
        for tenant in await in_thread(served_tenants, self.default.installation.context.actors.database):
            if tenant not in self._rooms:
                try:
                    await self._open(tenant)
                except DubstageError as problem:
                    # The others are served all the same. The tenant's next call tries again.
                    _log.warning("tenant_not_opened", tenant=tenant, reason=problem.reason, message=problem.message)

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._look()
            except DubstageError as problem:
                _log.warning("tenants_not_seen", reason=problem.reason, message=problem.message)
