"""What the operations of a gateway work with."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import structlog

from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.api.dub_messages import dub_request_from
from gateway.api.error_names import ErrorNames
from gateway.api.local_media import LocalMedia, Media
from gateway.batch.media import is_url
from gateway.confinement import confined_root, entry_of
from gateway.operations.store import OperationRecord
from gateway.pipeline.dub_request import DubRequest
from gateway.pipeline.removal import delete_unused, give_up, remove_partial_film
from gateway.provenance.seal import Sealer
from gateway.tenants.gate import TenantGate
from services.common.store.artefacts import ArtefactStore

_log = structlog.stdlib.get_logger("dubstage.operations")


@dataclass(frozen=True, slots=True)
class JobContext:
    """What the operations of a gateway work with.

    Attributes:
        actors: the enrolled people.
        artefacts: the store that the stages share.
        media: files and objects that callers may name.
        jobs: folder of all jobs.
        threads: threads of decoders and encoders.
        names: rewrites results and errors that name the server's files.
        max_job_bytes: most bytes of one job's folder.
        sealer: signs films.
        gate: limits of the tenant.
    """

    actors: ActorStore
    artefacts: ArtefactStore
    media: Media
    jobs: Path
    threads: int
    names: ErrorNames
    max_job_bytes: int
    sealer: Sealer
    gate: TenantGate

    async def dub_request(self, message: pb.CreateDubRequest, media: LocalMedia) -> DubRequest:
        """Return the dub that a message asks for.

        Args:
            message: the message.
            media: files of the message.

        Raises:
            ConsentRefused: a consent record does not allow the dub, or is missing and the installation requires one.
            InvalidRequest: a field cannot be used.
            ActorNotReady: there is no such actor.
        """
        actor = await asyncio.to_thread(self.actors.get, message.actor_id) if message.actor_id else None
        request = dub_request_from(message, media, actor, threads=self.threads)
        return await asyncio.to_thread(
            self.actors.consents.checked_dub,
            request,
            subject=message.actor_id or message.footage_uri,
            reference=message.reference_uri,
        )

    async def abandon(self, record: OperationRecord) -> None:
        """Remove what a cancelled operation has left: job folder, blobs that nothing else counts, partial file of the output."""
        await asyncio.to_thread(self._abandon, record)

    def _abandon(self, record: OperationRecord) -> None:
        self._give_up_folders(record)
        if record.output and not is_url(record.output):
            output = Path(os.path.abspath(record.output))
            if confined_root(output) is not None:
                remove_partial_film(output)
            else:
                _log.warning("output_outside_of_media_kept", operation=record.name, output=record.output)

    async def forget_others(self, record: OperationRecord) -> None:
        """Remove what other processes have left of an operation that succeeded here: job folders, and blobs that nothing counts.

        The folder of a process that still works there stays. That process removes the folder when it finds that it has lost the
        operation.
        """
        await asyncio.to_thread(self._give_up_folders, record)

    def _give_up_folders(self, record: OperationRecord) -> None:
        ledger = JobLedger(self.actors)
        for stored in self.actors.jobs.folders_of(record.name):
            folder = Path(stored)
            if entry_of(self.jobs, stored) is None:
                # The folder is on the disk of another gateway, which removes the folder, or the path is wrong.
                _log.info("folder_outside_of_jobs_kept", operation=record.name, folder=stored, jobs=str(self.jobs))
            elif give_up(folder, ledger, self.artefacts) is not None or folder.is_dir():
                continue
            delete_unused(folder, ledger.release(folder, ()), ledger, self.artefacts)
