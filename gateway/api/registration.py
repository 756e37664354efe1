"""The gateway's servicers on a server, with errors rewritten for callers."""

from __future__ import annotations

from typing import Final

import grpc.aio
from google.longrunning import operations_pb2, operations_pb2_grpc

from dubstage.gateway.v1alpha1 import batch_pb2, batch_pb2_grpc, gateway_pb2, gateway_pb2_grpc
from gateway.api.actor_servicer import ActorServicer
from gateway.api.batch_servicer import BatchServicer
from gateway.api.dub_servicer import DubServicer
from gateway.api.erasing import ActorEraser
from gateway.api.error_names import with_names
from gateway.api.job_context import JobContext
from gateway.api.operations_servicer import OperationsServicer
from gateway.live.streams import LiveStreams
from gateway.operations.runner import JobRunner

SERVICES: Final = (
    *(service.full_name for service in gateway_pb2.DESCRIPTOR.services_by_name.values()),
    *(service.full_name for service in batch_pb2.DESCRIPTOR.services_by_name.values()),
    *(service.full_name for service in operations_pb2.DESCRIPTOR.services_by_name.values()),
)
"""Full names of the services that `add_servicers` adds."""


def add_servicers(
    server: grpc.aio.Server, context: JobContext, runner: JobRunner, eraser: ActorEraser, live: LiveStreams, batches: BatchServicer
) -> None:
    """Add ActorService, DubService, BatchService and Operations to a server.

    Args:
        server: the server.
        context: what the operations work with.
        runner: runs the operations.
        eraser: erases people.
        live: opens live streams.
        batches: the RPCs of batches.
    """
    names = context.names
    gateway_pb2_grpc.add_ActorServiceServicer_to_server(with_names(ActorServicer(context, runner, eraser), names), server)
    gateway_pb2_grpc.add_DubServiceServicer_to_server(with_names(DubServicer(context, runner, live), names), server)
    batch_pb2_grpc.add_BatchServiceServicer_to_server(with_names(batches, names), server)
    operations_pb2_grpc.add_OperationsServicer_to_server(with_names(OperationsServicer(runner), names), server)
