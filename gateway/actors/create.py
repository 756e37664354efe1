"""Enrolling a person: footage in, an actor of the store out."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from dubstage.common.v1alpha1 import common_pb2
from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.actors.stored import StoredActor
from gateway.ahead import in_thread
from gateway.consent import Consent
from gateway.media.inspection import inspect_film_aside
from gateway.media.regular_file import reading
from gateway.media.stills import open_footage
from gateway.media.types import MediaInfo
from gateway.methods import Method, method_named
from gateway.pipeline.allowance import MAX_JOB_BYTES
from gateway.pipeline.analysis import enrol_from, folder_of, select_face, track_footage
from gateway.pipeline.dub_request import check_footage, sha256_of
from gateway.pipeline.enrol import EnrolledActor, EnrolOptions
from gateway.pipeline.faces import FaceChoice
from gateway.pipeline.journal import step_key
from gateway.pipeline.messages import ref_from
from gateway.pipeline.records import FACE_RECORD
from gateway.pipeline.workspace import Workspace
from gateway.stages.interface import Stages
from services.common.artefacts import ArtefactRef, ArtefactStore
from services.common.errors import ConsentMissing, NoUsableFootage

OnProgress = Callable[[str, int, int], None]
"""Called with the pass, frames (or steps) done, and how many there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnrolRequest:
    """Who is enrolled, and from what."""

    actor_id: str
    footage: Path
    method: str = "ugc"
    face: FaceChoice = FaceChoice("largest")
    consent: Consent | None = None
    options: EnrolOptions = EnrolOptions()
    threads: int = 2


async def create_actor(
    request: EnrolRequest,
    stages: Stages,
    actors: ActorStore,
    artefacts: ArtefactStore,
    jobs: Path,
    *,
    require_consent: bool,
    on_progress: OnProgress,
    operation: str = "",
    max_bytes: int = MAX_JOB_BYTES,
) -> StoredActor:
    """Learn a person from their footage and keep them, with the footage itself for live streams.

    Nothing of an enrolment that fails or is cancelled is kept. What a killed enrolment has made is counted in the database: the
    same enrolment, or the erasure of the person, takes it up.

    Args:
        operation: name of the gateway's operation, if any.
        max_bytes: most bytes of the enrolment's folder.

    Raises:
        ConsentMissing: the installation requires a consent record and there is none.
        InvalidRequest: the id is taken, or the face is not there.
        NoUsableFootage: no face, or too few frames show it.
    """
    if request.consent is None and require_consent:
        raise ConsentMissing(
            "this installation enrols nobody without a consent record: give one with --consent FILE", subject=request.actor_id
        )
    await asyncio.to_thread(actors.check_free, request.actor_id)
    method = method_named(request.method)
    info = await inspect_film_aside(request.footage)
    check_footage(method, request.footage, info)
    footage_sha256 = await asyncio.to_thread(sha256_of, request.footage)
    folder = folder_of(jobs, step_key("enrol", footage=footage_sha256, actor=request.actor_id))
    made: list[ArtefactRef] = []
    with Workspace(folder, max_bytes=max_bytes) as workspace:
        ledger = JobLedger(actors, belongs_to=operation or f"actors/{request.actor_id}")

        def forget() -> None:
            for ref in ledger.release(folder, made):
                artefacts.delete(ref)
            shutil.rmtree(folder, ignore_errors=True)

        async def note(ref: ArtefactRef) -> None:
            await asyncio.to_thread(ledger.hold, folder, ref)
            made.append(ref)

        try:
            await asyncio.to_thread(ledger.begin, folder)
            facts = {"kind": "enrol", "footage": request.footage.name, "method": method.name, "actor": request.actor_id}
            await asyncio.to_thread(workspace.describe, facts)
            enrolment = _Enrolment(request, method, info, workspace, stages, artefacts, note, on_progress)
            enrolled, more = await enrolment.run()
            return await asyncio.to_thread(
                lambda: actors.create(
                    request.actor_id,
                    method=method.name,
                    enrolled=enrolled,
                    footage_sha256=footage_sha256,
                    consent=request.consent,
                    more=more,
                    superseded=made,
                )
            )
        finally:
            # What the actor's rows count stays; what was learned of a person does not outlive a failed or cancelled enrolment.
            await in_thread(forget)


@dataclass(frozen=True, slots=True)
class _Enrolment:
    """What one enrolment works with."""

    request: EnrolRequest
    method: Method
    info: MediaInfo
    workspace: Workspace
    stages: Stages
    artefacts: ArtefactStore
    note: Callable[[ArtefactRef], Awaitable[None]]
    on_progress: OnProgress

    async def run(self) -> tuple[EnrolledActor, dict[str, ArtefactRef]]:
        """What was learned of the person, and further blobs of theirs, by kind."""
        request, workspace, method = self.request, self.workspace, self.method
        info = await asyncio.to_thread(open_footage, self.info, workspace.folder, threads=request.threads)
        index = await track_footage(
            self.stages,
            info,
            workspace,
            threads=request.threads,
            on_frame=lambda done: self.on_progress("track", done, info.video.num_frames),
        )
        face_id = await select_face(self.stages, info, workspace, index, request.face, method.features)
        if face_id is None:
            raise NoUsableFootage(f"{request.footage} shows no face", subject=str(request.footage))

        async def note(ref: common_pb2.ArtefactRef) -> None:
            await self.note(ref_from(ref))

        enrolled = await enrol_from(
            self.stages,
            method,
            info,
            workspace,
            index,
            face_id,
            request.options,
            lambda name, done, steps: self.on_progress(f"enrol {name}", done, steps),
            on_artefact=note,
        )
        rows = index.rows_of(face_id)
        faces = await asyncio.to_thread(lambda: workspace.faces.read_rows(rows[rows >= 0][:300].tolist()))
        kept = {name: faces[name].copy() for name in FACE_RECORD.names or () if name != "landmarks"}
        records = await asyncio.to_thread(self.artefacts.put_arrays, kept)
        await self.note(records)
        footage = await asyncio.to_thread(_keep_footage, self.artefacts, request.footage)
        await self.note(footage)
        return enrolled, {"faces": records, "footage": footage}


def _keep_footage(artefacts: ArtefactStore, footage: Path) -> ArtefactRef:
    """Store the footage's bytes, read from the file that was opened and checked, whatever its path names by then."""
    with reading(footage, field="video") as handle:
        return artefacts.put_file(f"/proc/self/fd/{handle}")
