"""The gateway's servicers on a server: each call is answered by the servicer of the caller's tenant."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

import grpc.aio
from google.longrunning import operations_pb2, operations_pb2_grpc

from dubstage.gateway.v1alpha1 import batch_pb2, batch_pb2_grpc, gateway_pb2, gateway_pb2_grpc
from gateway.api.actor_servicer import ActorServicer
from gateway.api.batch_servicer import BatchServicer
from gateway.api.dub_servicer import DubServicer
from gateway.api.operations_servicer import OperationsServicer
from gateway.api.rooms import Rooms
from gateway.api.servicers import Servicers

SERVICES: Final = (
    *(service.full_name for service in gateway_pb2.DESCRIPTOR.services_by_name.values()),
    *(service.full_name for service in batch_pb2.DESCRIPTOR.services_by_name.values()),
    *(service.full_name for service in operations_pb2.DESCRIPTOR.services_by_name.values()),
)
"""Full names of the services that `add_servicers` adds."""


def add_servicers(server: grpc.aio.Server, rooms: Rooms) -> None:
    """Add ActorService, DubService, BatchService and Operations to a server.

    Args:
        server: the server.
        rooms: rooms of the tenants.
    """
    actors: Any = _ByTenant(ActorServicer, rooms, lambda own: own.actors)
    dubs: Any = _ByTenant(DubServicer, rooms, lambda own: own.dubs)
    batches: Any = _ByTenant(BatchServicer, rooms, lambda own: own.batches)
    operations: Any = _ByTenant(OperationsServicer, rooms, lambda own: own.operations)
    gateway_pb2_grpc.add_ActorServiceServicer_to_server(actors, server)
    gateway_pb2_grpc.add_DubServiceServicer_to_server(dubs, server)
    batch_pb2_grpc.add_BatchServiceServicer_to_server(batches, server)
    operations_pb2_grpc.add_OperationsServicer_to_server(operations, server)


class _ByTenant:
    """Stands in for the servicers of all tenants. Generated code looks up the methods by name."""

    def __init__(self, kind: type[Any], rooms: Rooms, choose: Callable[[Servicers], Any]) -> None:
        self._kind = kind
        self._rooms = rooms
        self._choose = choose

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._kind, name)

        @functools.wraps(method)
        async def unary(request: Any, context: Any) -> Any:
            return await getattr(self._choose((await self._rooms.of_caller()).servicers), name)(request, context)

        @functools.wraps(method)
        async def streaming(request: Any, context: Any) -> AsyncIterator[Any]:
            async with aclosing(
                getattr(self._choose((await self._rooms.of_caller()).servicers), name)(request, context)
            ) as replies:
                async for reply in replies:
                    yield reply

        return streaming if inspect.isasyncgenfunction(method) else unary
