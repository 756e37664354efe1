"""Enrolling a person: footage in, an actor of the store out."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dubstage.common.v1alpha1 import common_pb2
from gateway.actors.store import ActorStore, StoredActor
from gateway.ahead import in_thread
from gateway.consent import Consent
from gateway.media.probe import probe
from gateway.media.stills import open_footage
from gateway.methods import method_named
from gateway.pipeline.analysis import enrol_from, folder_of, select_face, track_footage
from gateway.pipeline.dub_request import check_footage, sha256_of
from gateway.pipeline.enrol import EnrolOptions
from gateway.pipeline.faces import FaceChoice
from gateway.pipeline.journal import step_key
from gateway.pipeline.messages import ref_from
from gateway.pipeline.records import FACE_RECORD
from gateway.pipeline.workspace import Workspace
from gateway.stages.interface import Stages
from services.common.artefacts import ArtefactRef, ArtefactStore
from services.common.errors import ConsentMissing, NoUsableFootage


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
    on_progress: Callable[[str, int, int], None],
) -> StoredActor:
    """Learn a person from their footage and keep them, with the footage itself for live streams.

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
    info = await asyncio.to_thread(probe, request.footage)
    check_footage(method, request.footage, info)
    footage_sha256 = await asyncio.to_thread(sha256_of, request.footage)
    made: list[ArtefactRef] = []

    async def note(ref: common_pb2.ArtefactRef) -> None:
        made.append(ref_from(ref))

    folder = folder_of(jobs, step_key("enrol", footage=footage_sha256, actor=request.actor_id))
    try:
        with Workspace(folder) as workspace:
            info = await asyncio.to_thread(open_footage, info, folder, threads=request.threads)
            total = info.video.num_frames
            index = await track_footage(
                stages,
                info,
                workspace,
                threads=request.threads,
                on_frame=lambda done: on_progress("track", done, total),
            )
            face_id = await select_face(stages, info, workspace, index, request.face, method.features)
            if face_id is None:
                raise NoUsableFootage(f"{request.footage} shows no face", subject=str(request.footage))
            enrolled = await enrol_from(
                stages,
                method,
                info,
                workspace,
                index,
                face_id,
                request.options,
                lambda name, done, steps: on_progress(f"enrol {name}", done, steps),
                on_artefact=note,
            )
            rows = index.rows_of(face_id)
            faces = await asyncio.to_thread(lambda: workspace.faces.read_rows(rows[rows >= 0][:300].tolist()))
        records = await asyncio.to_thread(
            artefacts.put_arrays, {name: faces[name].copy() for name in FACE_RECORD.names or () if name != "landmarks"}
        )
        made.append(records)
        footage = await asyncio.to_thread(artefacts.put_file, request.footage)
        made.append(footage)
        return await asyncio.to_thread(
            lambda: actors.create(
                request.actor_id,
                method=method.name,
                enrolled=enrolled,
                footage_sha256=footage_sha256,
                consent=request.consent,
                more={"faces": records, "footage": footage},
                superseded=made,
            )
        )
    except BaseException:
        # Not kept, so not counted: what was learned of a person does not outlive a failed or cancelled enrolment.
        def forget() -> None:
            for ref in actors.uncounted(made):
                artefacts.delete(ref)

        await in_thread(forget)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
