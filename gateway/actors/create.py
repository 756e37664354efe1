"""Enrolment of a person: from one file, or several takes that are joined to one video, to an actor in the store."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.actors.stored import PICTURE, StoredActor
from gateway.actors.watch import while_allowed
from gateway.async_utilities import in_stoppable_thread, in_thread
from gateway.consent.record import Consent, ConsentUse
from gateway.consent.subject import Shown, check_shown
from gateway.dub.analyse.face_choice import AUTOMATIC, FaceChoice, about_faces
from gateway.dub.choices import EnrolOptions
from gateway.dub.job.key import enrolment_key
from gateway.dub.job.outcome import about_mouth, about_voice
from gateway.dub.learn.analysis import SOUND_SECONDS, FootageAnalysis, folder_of
from gateway.dub.learn.enrol import EnrolledActor
from gateway.dub.learn.face_list import clearest_picture
from gateway.dub.learn.live_span import LIVE_SPAN, longest_span
from gateway.dub.progress import OnFootage, OnProgress
from gateway.dub.request.dub_request import check_footage, sha256_of
from gateway.dub.state.disk import MAX_JOB_BYTES, job_folder
from gateway.dub.state.journal import MOST_TRIES, artefact_lost_error
from gateway.dub.state.records import FACE_RECORD
from gateway.dub.state.workspace import Workspace, delete_unused, open_workspace
from gateway.media.inspection import inspect_in_child
from gateway.media.stills import is_still
from gateway.media.takes import TAKES_SUFFIX, Take, check_number_of_takes, join_takes, takes_in_order
from gateway.media.types import MediaInfo
from gateway.safe_paths import open_media_file
from gateway.stages.interface import Stages
from gateway.stages.opening import models_for
from services.common.errors import InvalidRequestError, NoUsableFootageError, WorkCancelledError
from services.common.methods import method_named
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from services.common.wire.convert import ref_from_proto

_BYTES_PER_PIXEL: Final = 0.1
"""About how much of the disk a pixel of the joined video takes."""
OnBlob = Callable[[ArtefactRef], Awaitable[bool]]
"""Awaited with each artefact as enrolment creates it."""
KEPT_FRAMES: Final = 300
"""Face records that are kept: consent checks find the person by them."""


def digests_of_files(files: Sequence[Path]) -> list[str]:
    """Return the SHA-256 of each file, hexadecimal.

    Raises:
        MediaUnsupportedError: a file is missing, no regular file, empty, or may not be read.
    """
    return [sha256_of(file) for file in files]


def joined_digest(digests: Sequence[str]) -> str:
    """Return the SHA-256 of footage from those of its files, hexadecimal: that of the only file, or that of the joined digests."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


async def one_video(infos: Sequence[MediaInfo], workspace: Workspace, threads: int, on_progress: OnProgress) -> MediaInfo:
    """Return the only take, or the video of all takes, which is written into the workspace's folder.

    The first SOUND_SECONDS of all takes together are joined: enrolment hears no more than that.

    Args:
        infos: the takes, at least one.
        workspace: of the enrolment.
        threads: threads of decoder and encoder.
        on_progress: called with every frame.

    Raises:
        InvalidRequestError: a take is a single picture, there are too many takes, or the video would be larger than a job may be.
        MediaUnsupportedError: a take breaks off or cannot be decoded.
        StorageFullError: no space is left.
    """
    if len(infos) == 1:
        return infos[0]
    takes = takes_in_order(infos, Fraction(SOUND_SECONDS))
    await in_thread(workspace.allowance.check, _size(takes), "the joined footage")
    stopped = threading.Event()

    def on_frame(done: int, total: int) -> None:
        if stopped.is_set():
            raise WorkCancelledError("the enrolment is cancelled")
        on_progress("join", done, total)

    def join() -> MediaInfo:
        with job_folder(workspace.folder):
            return join_takes(takes, workspace.folder / f"takes{TAKES_SUFFIX}", threads=threads, on_frame=on_frame)

    return await in_stoppable_thread(join, stopped.set)


def _size(takes: Sequence[Take]) -> int:
    """Return about how many bytes the joined video takes."""
    sizes = [take.info.video.orientation.upright_size for take in takes]
    pixels = max(width for width, _ in sizes) * max(height for _, height in sizes)
    return int(sum(take.num_frames for take in takes) * pixels * _BYTES_PER_PIXEL)


@dataclass(frozen=True, kw_only=True, slots=True)
class EnrolRequest:
    """Request of an enrolment.

    Attributes:
        actor_id: id of the new actor.
        footage: video file, or a picture for methods that take one.
        more_footage: further video files of the person, which are joined to the first.
        method: name of the method that the person is enrolled for.
        face: face to enrol.
        consent: consent record of the person; None: there is none.
        project: project that the enrolment belongs to, which the consent record must cover; empty: none is named.
        options: which parts of the enrolment are done.
        threads: threads of the decoder.
    """

    actor_id: str
    footage: Path
    method: str
    more_footage: tuple[Path, ...] = ()
    face: FaceChoice = AUTOMATIC
    consent: Consent | None = None
    project: str = ""
    options: EnrolOptions = EnrolOptions()
    threads: int = 2

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of footage."""
        return (self.footage, *self.more_footage)

    @property
    def use(self) -> ConsentUse:
        """Use that the consent record must cover. An enrolment has no speech, so that the record's languages do not matter yet."""
        return ConsentUse(self.project, language=None)


@dataclass(frozen=True, slots=True)
class ForOperation:
    """The gateway's operation that enrols a person.

    Attributes:
        name: name of the operation; empty: there is none.
        confirm: called before the actor is stored; blocks. Raises WorkCancelledError if another gateway does the operation now.
    """

    name: str = ""
    confirm: Callable[[], None] = lambda: None


async def create_actor(
    request: EnrolRequest,
    stages: Stages,
    actors: ActorStore,
    artefacts: ArtefactStore,
    jobs: Path,
    *,
    on_progress: OnProgress,
    on_footage: OnFootage = lambda frames, megapixels: None,
    operation: ForOperation = ForOperation(),
    max_bytes: int = MAX_JOB_BYTES,
) -> StoredActor:
    """Learn a person from footage, and return the stored actor. The store keeps the footage too, for live streams.

    An enrolment that fails or is cancelled leaves nothing. (A cancellation while the actor is stored comes too late.) The artefacts
    of a killed enrolment are counted in the database until the same enrolment runs again or the person is erased.

    Args:
        request: who is enrolled, and from what.
        actors: store of actors.
        artefacts: artefact store of the stages.
        jobs: folder of all jobs.
        on_progress: called with every frame and step.
        on_footage: called with the number of frames of the footage, and the million pixels of a frame.
        operation: the gateway's operation, if any.
        max_bytes: most bytes of the enrolment's folder.

    Raises:
        ConsentRefusedError: the consent record does not allow the enrolment, ends meanwhile, or is missing and required.
        InvalidRequestError: the id is taken, there are too many files of footage, the footage does not show the chosen face, or the
            footage changed meanwhile.
        ModelNotFoundError: the stages do not have the method.
        NoUsableFootageError: the footage shows no face, or too few frames show the face.
    """
    consents = actors.consents
    await asyncio.to_thread(consents.check_enrolment, request.consent, request.use, request.actor_id)

    async def enrol() -> StoredActor:
        check_number_of_takes(len(request.files))
        await asyncio.to_thread(actors.check_free, request.actor_id)
        method = method_named(request.method)
        models = await models_for(stages, method)
        takes = []
        for file in request.files:
            takes.append(await inspect_in_child(file))
            check_footage(method, file, takes[-1])
        digests = await asyncio.to_thread(digests_of_files, request.files)
        footage_sha256 = joined_digest(digests)
        folder = folder_of(jobs, enrolment_key(footage_sha256, request.actor_id, method, models, stages.face_model))
        ledger = JobLedger(actors, belongs_to=operation.name or f"actors/{request.actor_id}")
        made: list[ArtefactRef] = []
        with open_workspace(folder, operation.name, max_bytes=max_bytes) as workspace:
            async with _counted(ledger, workspace.folder, artefacts, made) as note:
                facts = {"kind": "enrol", "footage": request.footage.name, "method": method.name, "actor": request.actor_id}
                await asyncio.to_thread(workspace.describe, facts)
                info = await one_video(takes, workspace, request.threads, on_progress)
                shot = await FootageAnalysis.open(stages, method, info, workspace, threads=request.threads)
                on_footage(*info.video.size)
                enrolled = await _learn(shot, request, digests, note, on_progress)
                more = await _keep_for_live(shot, info.path, artefacts, note)
                if len(takes) == 1 and more["footage"].sha256 != footage_sha256:
                    raise InvalidRequestError(
                        f"{request.footage} changed while the person was enrolled: enrol again when no program writes the file",
                        field="video",
                    )
                more[PICTURE] = await _keep_picture(shot, artefacts, note, request.threads)
                await in_thread(operation.confirm)
                # A thread goes on when its caller is cancelled, so the enrolment ends only when the thread has stored the actor.
                stored = await in_thread(
                    lambda: actors.create(
                        request.actor_id,
                        method=method.name,
                        enrolled=enrolled,
                        footage_sha256=footage_sha256,
                        consent=request.consent,
                        more=more,
                        superseded=made,
                        operation=operation.name,
                        folder=workspace.folder,
                    )
                )
                return replace(stored, warnings=tuple(_warnings(shot, request, enrolled)))

    return await while_allowed(lambda: consents.check_lasting([request.consent], subject=request.actor_id), enrol())


@asynccontextmanager
async def _counted(ledger: JobLedger, folder: Path, artefacts: ArtefactStore, made: list[ArtefactRef]) -> AsyncIterator[OnBlob]:
    """Give the function that counts the blob of each artefact of an enrolment. At the end, unused blobs and the folder are removed.

    Args:
        ledger: counts the blobs.
        folder: folder of the enrolment.
        artefacts: artefact store of the stages.
        made: gets the reference of each blob as the blob is counted.
    """

    async def note(ref: ArtefactRef) -> bool:
        there = await asyncio.to_thread(ledger.hold, folder, ref)
        made.append(ref)
        return there

    def forget() -> None:
        delete_unused(folder, ledger.release(folder, made), ledger, artefacts)
        shutil.rmtree(folder, ignore_errors=True)

    try:
        await asyncio.to_thread(ledger.begin, folder)
        yield note
    finally:
        # Blobs that the actor uses stay. After a failed or cancelled enrolment no actor uses them, so all of them go.
        await in_thread(forget)


async def _learn(
    shot: FootageAnalysis, request: EnrolRequest, digests: Sequence[str], note: OnBlob, on_progress: OnProgress
) -> EnrolledActor:
    """Learn the person, if the consent record is about the person. Nothing is learned before the record is compared."""
    consent = request.consent if request.consent is not None and request.consent.names_person else None
    await shot.track(lambda done: on_progress("track", done, shot.info.video.num_frames), embed=consent is not None)
    if await shot.select(request.face) is None:
        raise NoUsableFootageError(f"{request.footage} shows no face", subject=str(request.footage))
    if consent is not None:
        footage = f"the footage {', '.join(map(str, request.files))}"
        check_shown(consent, Shown(footage, joined_digest(digests), shot.face, files=tuple(digests)), request.actor_id)
    return await shot.enrol(
        request.options,
        lambda name, done, steps: on_progress(f"enrol {name}", done, steps),
        on_artefact=lambda ref: note(ref_from_proto(ref, "artefact")),
    )


def _warnings(shot: FootageAnalysis, request: EnrolRequest, enrolled: EnrolledActor) -> list[str]:
    still = is_still(shot.info)
    return [
        *(about_faces(shot.index, shot.chosen, request.face) if shot.chosen is not None else ()),
        *([] if still else about_mouth(enrolled)),
        *about_voice(enrolled),
    ]


async def _keep_for_live(shot: FootageAnalysis, footage: Path, artefacts: ArtefactStore, note: OnBlob) -> dict[str, ArtefactRef]:
    """Store the footage, the person's first KEPT_FRAMES face records without landmarks, and what live streams show."""
    faces, index, rows = shot.workspace.faces, shot.index, shot.rows[shot.rows >= 0]
    first = await asyncio.to_thread(lambda: faces.read_rows(rows[:KEPT_FRAMES].tolist()))
    kept = {name: first[name].copy() for name in FACE_RECORD.names or () if name != "landmarks"}
    records = await _stored(lambda: artefacts.put_arrays(kept), note)
    video = await _stored(lambda: _keep_footage(artefacts, footage), note)
    stored = {"faces": records, "footage": video}
    span = await asyncio.to_thread(
        longest_span,
        index.frame[rows].astype(np.int64),
        index.reason[rows],
        shot.info.video,
        lambda places: faces.read_rows(rows[places].tolist()),
        index.shot_cuts,
        shot.looks().covers,
    )
    if span is not None:
        stored[LIVE_SPAN] = await _stored(lambda: artefacts.put_arrays(span.arrays()), note)
    return stored


async def _keep_picture(shot: FootageAnalysis, artefacts: ArtefactStore, note: OnBlob, threads: int) -> ArtefactRef:
    """Store the small picture of the person: the clearest of the first KEPT_FRAMES faces."""
    rows = shot.rows[shot.rows >= 0][:KEPT_FRAMES]
    jpeg = await in_thread(clearest_picture, shot.info, shot.workspace.faces, rows, threads)
    return await _stored(lambda: artefacts.put_bytes(jpeg), note)


async def _stored(put: Callable[[], ArtefactRef], note: OnBlob) -> ArtefactRef:
    """Store an artefact until it is counted and there, and return its reference."""
    for _ in range(MOST_TRIES):
        ref = await asyncio.to_thread(put)
        if await note(ref):
            return ref
    raise artefact_lost_error()


def _keep_footage(artefacts: ArtefactStore, footage: Path) -> ArtefactRef:
    """Store the bytes of the footage. They are read from the opened and checked file, even if the path now names another file."""
    with open_media_file(footage, field="video") as handle:
        return artefacts.put_file(f"/proc/self/fd/{handle}")
