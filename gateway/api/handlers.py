"""The handlers of the gateway's operations, by kind."""

from __future__ import annotations

from gateway.api.actor_jobs import ActorJobs
from gateway.api.dub_jobs import DubJobs
from gateway.api.job_context import JobContext
from gateway.api.opened_stages import OpenedStages
from gateway.api.operation_messages import ACTOR, DUB
from gateway.operations.job import Handler


def handlers_of(context: JobContext, stages: OpenedStages) -> dict[str, Handler]:
    """Return the handlers of all kinds of operations. Each handler waits until the stages serve.

    Args:
        context: what the operations work with.
        stages: the stages of this process.
    """
    handlers: dict[str, Handler] = {DUB: DubJobs(context, stages), ACTOR: ActorJobs(context, stages)}
    return {kind: stages.once_serving(handler) for kind, handler in handlers.items()}
