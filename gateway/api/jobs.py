"""What the gateway's operations do: enrol a person, dub a film."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.actors.create import create_actor
from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore, StoredActor
from gateway.api.convert import actor_message, dub_request_from, enrol_request_from, result_message
from gateway.api.media_folder import MediaFolder
from gateway.consent import Consent
from gateway.operations.runner import Job
from gateway.pipeline.dub import DubJob
from gateway.pipeline.dub_request import DubRequest, sha256_of
from gateway.stages.interface import Stages
from services.common.artefacts import ArtefactStore
from services.common.errors import ConsentMissing


@dataclass(frozen=True, slots=True)
class JobContext:
    """What the jobs of a gateway work with.

    Attributes:
        actors: the enrolled people.
        artefacts: the store that the stages share.
        media: files that callers may name.
        jobs: folder of the jobs' workspaces.
        require_consent: nobody is enrolled or dubbed without a record.
        threads: of decoders and encoders.
    """

    actors: ActorStore
    artefacts: ArtefactStore
    media: MediaFolder
    jobs: Path
    require_consent: bool
    threads: int

    async def dub_request(self, message: pb.CreateDubRequest) -> DubRequest:
        """The dub that is asked for.

        Raises:
            ConsentMissing: the installation requires a record, and neither the request nor the actor has one.
            InvalidRequest: a field cannot be used.
            ActorNotReady: no such actor.
        """
        actor = await asyncio.to_thread(self.actors.get, message.actor_id) if message.actor_id else None
        request = dub_request_from(message, self.media, actor, threads=self.threads)
        self.check_consent(request.consent, message.actor_id or message.footage_uri)
        return request

    def check_consent(self, consent: Consent | None, subject: str) -> None:
        """Refuse what this installation does not do without a consent record.

        Raises:
            ConsentMissing: it requires one, and there is none.
        """
        if consent is None and self.require_consent:
            raise ConsentMissing(
                "this installation enrols and dubs nobody without a consent record: give one, or an actor that has one",
                subject=subject,
            )


class DubJobs:
    """Handler of CreateDub's operations."""

    def __init__(self, context: JobContext, stages: Callable[[], Stages]) -> None:
        self._context = context
        self._stages = stages
        self._running: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, job: Job) -> bytes:
        """Dub; a resumed job goes on from its finished windows."""
        message = pb.CreateDubRequest.FromString(job.record.request)
        context = self._context
        request = await context.dub_request(message)
        ledger = JobLedger(context.actors, message.actor_id)
        dub = DubJob(request, self._stages(), context.artefacts, context.jobs, ledger)
        async with self._alone(message):
            try:
                outcome = await dub.run(DubReporter(job))
            except BaseException:
                # What is wanted no more leaves nothing behind; what failed or was interrupted keeps its finished windows.
                if job.is_cancelled():
                    dub.discard()
                raise
            await asyncio.to_thread(dub.discard)
        return result_message(message.output_uri, request, outcome).SerializeToString()

    def _alone(self, message: pb.CreateDubRequest) -> asyncio.Lock:
        """The same dub to two outputs has one workspace: one after the other."""
        same = pb.CreateDubRequest()
        same.CopyFrom(message)
        same.ClearField("output_uri")
        return self._running.setdefault(same.SerializeToString(deterministic=True), asyncio.Lock())


class DubReporter:
    """Turns a dub's progress into DubProgress."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._stage = ""
        self._began = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Told of every frame and step."""
        if stage != self._stage:
            self._stage, self._began = stage, time.monotonic()
        spent = time.monotonic() - self._began
        progress = pb.DubProgress(
            stage=stage, frames_done=done, frames_total=total, frames_per_second=done / spent if spent > 0.2 else 0.0
        )
        self._job.report(progress.SerializeToString())


class ActorJobs:
    """Handler of CreateActor's operations."""

    def __init__(self, context: JobContext, stages: Callable[[], Stages]) -> None:
        self._context = context
        self._stages = stages

    async def __call__(self, job: Job) -> bytes:
        """Enrol; a resumed job that had got to its end answers with the actor it made."""
        message = pb.CreateActorRequest.FromString(job.record.request)
        context = self._context
        request = enrol_request_from(message, context.media, threads=context.threads)
        actor = await self._made_before(request.actor_id, request.footage) if job.resumed else None
        if actor is None:
            actor = await create_actor(
                request,
                self._stages(),
                context.actors,
                context.artefacts,
                context.jobs,
                require_consent=context.require_consent,
                on_progress=lambda stage, done, total: job.report(
                    pb.ActorProgress(stage=stage, done=done, total=total).SerializeToString()
                ),
            )
        return actor_message(actor).SerializeToString()

    async def _made_before(self, actor_id: str, footage: Path) -> StoredActor | None:
        actor = await asyncio.to_thread(self._context.actors.find, actor_id)
        if actor is None or actor.footage_sha256 != await asyncio.to_thread(sha256_of, footage):
            return None
        return actor
