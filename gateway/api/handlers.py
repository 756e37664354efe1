"""The operations that callers of a gateway see: their handlers by kind, and what runs them."""

from __future__ import annotations

from gateway.api.actor_jobs import ActorJobs
from gateway.api.audit_of_operations import happening_of
from gateway.api.dub_jobs import DubJobs
from gateway.api.job_context import JobContext
from gateway.api.opened_stages import OpenedStages
from gateway.api.operation_messages import ACTOR, DUB
from gateway.operations.job import Handler, for_tenant
from gateway.operations.runner import JobRunner
from gateway.operations.slots import Slots
from gateway.operations.store import OperationStore
from gateway.settings import GatewaySettings


def runner_of(settings: GatewaySettings, context: JobContext, stages: OpenedStages, slots: Slots) -> JobRunner:
    """Return what runs a tenant's operations of CreateDub and CreateActor. Each operation waits until the stages serve.

    Args:
        settings: settings of the process, with the places of the tenant.
        context: what the operations work with.
        stages: the stages of this process.
        slots: slots that all tenants of this process share.
    """
    handlers: dict[str, Handler] = {DUB: DubJobs(context, stages), ACTOR: ActorJobs(context, stages)}
    database = context.actors.database
    return JobRunner(
        OperationStore(database, kinds=tuple(handlers), audit_of=happening_of),
        {kind: for_tenant(settings.tenant, stages.once_serving(handler)) for kind, handler in handlers.items()},
        max_concurrent=settings.max_concurrent_jobs,
        max_queued=settings.max_queued_jobs,
        abandon=context.abandon,
        rewrite=context.names.rewrite,
        shared=database.shared,
        lease_s=settings.operation_lease_s,
        slots=slots,
    )
