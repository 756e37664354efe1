"""What a gateway removes: people who are erased, and once an hour what is old, or too much."""

from __future__ import annotations

from functools import partial

from gateway.api.batch_views import BatchViews
from gateway.api.erasing import ActorEraser
from gateway.api.job_context import JobContext
from gateway.batch.erasing import batch_pictures
from gateway.batch.expiry import expire_batches
from gateway.housekeeping.cleaning import expire, remove_unknown
from gateway.housekeeping.hourly import hourly
from gateway.live.streams import LiveStreams
from gateway.operations.expiry import expire_operations
from gateway.operations.runner import JobRunner
from gateway.settings import GatewaySettings


async def expire_hourly(settings: GatewaySettings, context: JobContext, batches: BatchViews) -> None:
    """Remove old jobs, old finished operations and old finished batches, now and once per hour, until cancelled.

    Args:
        settings: the limits.
        context: database, artefact store and folder of jobs.
        batches: looks at the batches.
    """
    await hourly(
        partial(expire, settings, context.actors, context.artefacts, context.jobs),
        # After the jobs: an operation stays as long as its job is on the disk.
        partial(
            expire_operations,
            context.actors.database,
            max_age_days=settings.operation_max_age_days,
            max_finished=settings.max_finished_operations,
        ),
        partial(expire_batches, settings, batches.is_worked_on),
    )


def eraser_of(settings: GatewaySettings, context: JobContext, runner: JobRunner, live: LiveStreams) -> ActorEraser:
    """Return what erases a tenant's people.

    Args:
        settings: settings of the process, with the places of the tenant.
        context: database, artefact store and folder of jobs.
        runner: runs the operations.
        live: opens live streams.
    """
    clean = partial(remove_unknown, context.actors, context.artefacts, context.jobs)
    return ActorEraser(context.actors, runner, live, clean, partial(batch_pictures, settings))
