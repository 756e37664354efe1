"""The servicers of one tenant, with errors rewritten for callers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from gateway.api.actor_servicer import ActorServicer
from gateway.api.batch_servicer import BatchServicer
from gateway.api.dub_servicer import DubServicer
from gateway.api.erasing import ActorEraser
from gateway.api.error_names import with_names
from gateway.api.job_context import JobContext
from gateway.api.operations_servicer import OperationsServicer
from gateway.live.streams import LiveStreams
from gateway.operations.runner import JobRunner
from gateway.tenants.long_calls import LongCalls


@dataclass(frozen=True, slots=True)
class Servicers:
    """The servicers of one tenant: ActorService, DubService, BatchService and Operations."""

    actors: Any
    dubs: Any
    batches: Any
    operations: Any

    @classmethod
    def of(
        cls,
        context: JobContext,
        runner: JobRunner,
        eraser: ActorEraser,
        live: LiveStreams,
        batches: BatchServicer,
        long_calls: LongCalls,
    ) -> Self:
        """Return the servicers that work with these places.

        Args:
            context: what the operations work with.
            runner: runs the operations.
            eraser: erases people.
            live: opens live streams.
            batches: the RPCs of batches.
            long_calls: long calls of all tenants.
        """
        names = context.names
        return cls(
            with_names(ActorServicer(context, runner, eraser), names),
            with_names(DubServicer(context, runner, live), names),
            with_names(batches, names),
            with_names(OperationsServicer(runner, context.actors.audit, long_calls), names),
        )
