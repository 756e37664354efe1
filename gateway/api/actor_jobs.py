"""The work of CreateActor's operations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.actors.create import EnrolRequest, ForOperation, create_actor
from gateway.actors.footage import digests_of_files, joined_digest
from gateway.actors.stored import StoredActor
from gateway.api.actor_messages import actor_message, enrol_request_from
from gateway.api.job_context import JobContext
from gateway.operations.job import Job
from gateway.stages.interface import Stages


@dataclass(frozen=True, slots=True)
class ActorJobs:
    """Handler of CreateActor's operations.

    Attributes:
        context: what the operations work with.
        stages: returns the opened stages.
    """

    context: JobContext
    stages: Callable[[], Stages]

    async def __call__(self, job: Job) -> bytes:
        """Enrol a person; return the serialised Actor. A resumed job that had stored the actor answers that actor."""
        message = pb.CreateActorRequest.FromString(job.record.request)
        context = self.context

        def report(stage: str, done: int, total: int) -> None:
            job.report(pb.ActorProgress(stage=stage, done=done, total=total).SerializeToString())

        async with context.media.opened() as media:
            request = enrol_request_from(message, media, threads=context.threads)
            await media.fetch(report, max_bytes=context.max_job_bytes, confirm=job.confirm)
            actor = await self._made_before(request) if job.resumed else None
            if actor is None:
                actor = await create_actor(
                    request,
                    self.stages(),
                    context.actors,
                    context.artefacts,
                    context.jobs,
                    max_bytes=context.max_job_bytes,
                    on_progress=report,
                    operation=ForOperation(job.record.name, job.confirm),
                )
        if job.resumed:
            await context.forget_others(job.record)
        made = actor_message(actor.summary)
        made.warnings.extend(context.names.told(media.told(warning)) for warning in actor.warnings)
        return made.SerializeToString()

    async def _made_before(self, request: EnrolRequest) -> StoredActor | None:
        """Return the actor that an earlier process stored from this footage; None: there is none."""
        actor = await asyncio.to_thread(self.context.actors.find, request.actor_id)
        if actor is None or actor.footage_sha256 != joined_digest(await asyncio.to_thread(digests_of_files, request.files)):
            return None
        return actor
