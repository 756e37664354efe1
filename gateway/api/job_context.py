"""What the operations of a gateway work with."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.api.dub_messages import dub_request_from
from gateway.api.error_names import ErrorNames
from gateway.api.media_folder import MediaFolder
from gateway.consent import Consent, reference_refusal
from gateway.media.output_file import remove_leftovers
from gateway.operations.store import OperationRecord
from gateway.pipeline.dub_request import DubRequest
from gateway.pipeline.removal import give_up
from services.common.errors import ConsentMissing
from services.common.store.artefacts import ArtefactStore


@dataclass(frozen=True, slots=True)
class JobContext:
    """What the operations of a gateway work with.

    Attributes:
        actors: the enrolled people.
        artefacts: the store that the stages share.
        media: files that callers may name.
        jobs: folder of all jobs.
        require_consent: whether this installation refuses to enrol or dub a person without a consent record.
        threads: threads of decoders and encoders.
        names: rewrites results and errors that name the server's files.
        max_job_bytes: most bytes of one job's folder.
    """

    actors: ActorStore
    artefacts: ArtefactStore
    media: MediaFolder
    jobs: Path
    require_consent: bool
    threads: int
    names: ErrorNames
    max_job_bytes: int

    async def dub_request(self, message: pb.CreateDubRequest) -> DubRequest:
        """Return the dub that a message asks for.

        Raises:
            ConsentMissing: the installation requires a consent record, and neither the request nor the actor has one, or there is
                none of the person in the reference.
            InvalidRequest: a field cannot be used.
            ActorNotReady: there is no such actor.
        """
        actor = await asyncio.to_thread(self.actors.get, message.actor_id) if message.actor_id else None
        request = dub_request_from(message, self.media, actor, threads=self.threads)
        self.check_consent(request.consent, message.actor_id or message.footage_uri)
        if request.reference is not None and request.reference_consent is None and self.require_consent:
            raise reference_refusal(message.reference_uri)
        return request

    async def abandon(self, record: OperationRecord) -> None:
        """Remove what a cancelled operation has left: job folder, blobs that nothing else counts, partial file of the output."""
        await asyncio.to_thread(self._abandon, record)

    def _abandon(self, record: OperationRecord) -> None:
        self._give_up_folders(record)
        if record.output:
            with suppress(OSError):
                remove_leftovers(Path(record.output))

    async def forget_others(self, record: OperationRecord) -> None:
        """Remove what other processes have left of an operation that succeeded here: job folders, and blobs that nothing counts.

        The folder of a process that still works there stays. That process removes the folder when it finds that it has lost the
        operation.
        """
        await asyncio.to_thread(self._give_up_folders, record)

    def _give_up_folders(self, record: OperationRecord) -> None:
        jobs = self.actors.jobs
        for folder in jobs.folders_of(record.name):
            if give_up(folder, JobLedger(self.actors), self.artefacts) is None and not folder.is_dir():
                # The folder is gone, or on the disk of another gateway.
                for ref in jobs.uncounted(jobs.release(folder)):
                    self.artefacts.delete(ref)

    def check_consent(self, consent: Consent | None, subject: str) -> None:
        """Check that there is a consent record if this installation requires one.

        Args:
            consent: the record; None: there is none.
            subject: whom or what the error is about.

        Raises:
            ConsentMissing: the installation requires a consent record, and there is none.
        """
        if consent is None and self.require_consent:
            raise ConsentMissing(
                "this installation refuses an enrolment or a dub without a consent record: give a consent record, "
                "or an actor that has one",
                subject=subject,
            )
