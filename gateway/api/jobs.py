"""What the gateway's operations do: enrol a person, dub a film."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.actors.create import create_actor
from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.actors.stored import StoredActor
from gateway.api.convert import actor_message, dub_request_from, enrol_request_from, result_message
from gateway.api.error_names import ErrorNames
from gateway.api.media_folder import MediaFolder
from gateway.consent import Consent
from gateway.media.output_file import remove_leftovers
from gateway.operations.runner import Job
from gateway.operations.store import OperationRecord
from gateway.pipeline.allowance import MAX_JOB_BYTES
from gateway.pipeline.dub import DubJob
from gateway.pipeline.dub_request import DubRequest, sha256_of
from gateway.pipeline.removal import give_up
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
        names: how results and errors name the server's files.
        max_job_bytes: most bytes of one job's folder.
    """

    actors: ActorStore
    artefacts: ArtefactStore
    media: MediaFolder
    jobs: Path
    require_consent: bool
    threads: int
    names: ErrorNames
    max_job_bytes: int = MAX_JOB_BYTES

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

    async def abandon(self, record: OperationRecord) -> None:
        """Remove what a cancelled operation has left: folder, blobs that nothing else counts, partial file of the output."""
        await asyncio.to_thread(self._abandon, record)

    def _abandon(self, record: OperationRecord) -> None:
        folder = self.actors.jobs.folder_of(record.name)
        if folder is not None and give_up(folder, JobLedger(self.actors), self.artefacts) is None and not folder.is_dir():
            for ref in self.actors.jobs.uncounted(self.actors.jobs.release(folder)):
                self.artefacts.delete(ref)
        if record.output:
            with suppress(OSError):
                remove_leftovers(Path(record.output))

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
        ledger = JobLedger(context.actors, message.actor_id, job.record.name)
        dub = DubJob(request, self._stages(), context.artefacts, context.jobs, ledger, max_bytes=context.max_job_bytes)
        async with self._alone(message):
            # What fails or is interrupted keeps its finished windows; what is cancelled is abandoned by the runner.
            outcome = await dub.run(DubReporter(job))
            await asyncio.to_thread(dub.discard)
        result = result_message(message.output_uri, request, outcome)
        result.warnings[:] = [context.names.told(warning) for warning in result.warnings]
        return result.SerializeToString()

    def _alone(self, message: pb.CreateDubRequest) -> asyncio.Lock:
        """The same dub to two outputs has one workspace: one after the other."""
        same = pb.CreateDubRequest()
        same.CopyFrom(message)
        same.ClearField("output_uri")
        same.ClearField("overwrite")
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
                max_bytes=context.max_job_bytes,
                on_progress=lambda stage, done, total: job.report(
                    pb.ActorProgress(stage=stage, done=done, total=total).SerializeToString()
                ),
                operation=job.record.name,
            )
        return actor_message(actor.summary).SerializeToString()

    async def _made_before(self, actor_id: str, footage: Path) -> StoredActor | None:
        actor = await asyncio.to_thread(self._context.actors.find, actor_id)
        if actor is None or actor.footage_sha256 != await asyncio.to_thread(sha256_of, footage):
            return None
        return actor
