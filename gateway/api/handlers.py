"""The operations that callers of a gateway see: their handlers by kind, and what runs them."""

from __future__ import annotations

from gateway.api.actor_jobs import ActorJobs
from gateway.api.dub_jobs import DubJobs
from gateway.api.job_context import JobContext
from gateway.api.opened_stages import OpenedStages
from gateway.api.operation_messages import ACTOR, DUB
from gateway.operations.job import Handler
from gateway.operations.runner import JobRunner
from gateway.operations.store import OperationStore
from gateway.settings import GatewaySettings


def runner_of(settings: GatewaySettings, context: JobContext, stages: OpenedStages) -> JobRunner:
    """Return what runs the operations of CreateDub and CreateActor. Each operation waits until the stages serve.

    Args:
        settings: settings of the process.
        context: what the operations work with.
        stages: the stages of this process.
    """
    handlers: dict[str, Handler] = {DUB: DubJobs(context, stages), ACTOR: ActorJobs(context, stages)}
    database = context.actors.database
    return JobRunner(
        OperationStore(database, max_finished=settings.max_finished_operations, kinds=tuple(handlers)),
        {kind: stages.once_serving(handler) for kind, handler in handlers.items()},
        max_concurrent=settings.max_concurrent_jobs,
        max_queued=settings.max_queued_jobs,
        abandon=context.abandon,
        rewrite=context.names.rewrite,
        shared=database.shared,
        lease_s=settings.operation_lease_s,
    )
