"""Enrolment of a person: from one file, or several takes that are joined to one video, to an actor in the store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.actors.stored import FILES, PICTURE, StoredActor
from gateway.actors.watch import ENDED, FORBIDDEN, while_allowed
from gateway.async_utilities import in_stoppable_thread, in_thread
from gateway.consent.record import Consent, ConsentUse
from gateway.consent.subject import Shown, check_shown
from gateway.database.tables import of_actor
from gateway.dub.analyse.face_choice import AUTOMATIC, FaceChoice, about_faces
from gateway.dub.choices import EnrolOptions
from gateway.dub.job.kept_analysis import Footage, KeptAnalysis, forget_analysis, make_space, shared_analysis
from gateway.dub.job.key import analysis_key, analysis_keys, enrolment_key, people_key
from gateway.dub.job.outcome import about_mouth, about_redone, about_voice
from gateway.dub.job.people import PeopleOfFootage
from gateway.dub.learn.analysis import SOUND_SECONDS, FootageAnalysis, folder_of
from gateway.dub.learn.enrol import EnrolledActor
from gateway.dub.learn.face_list import clearest_picture
from gateway.dub.learn.live_span import LIVE_SPAN, longest_span
from gateway.dub.progress import OnFootage, OnProgress, no_footage
from gateway.dub.request.dub_request import check_footage, sha256_of
from gateway.dub.sound.speech import motion_frames_for
from gateway.dub.state.disk import JobDisk, job_folder
from gateway.dub.state.disk_needs import records_need
from gateway.dub.state.journal import MOST_TRIES, Journal, artefact_lost_error
from gateway.dub.state.records import FACE_RECORD
from gateway.dub.state.removal import remove_job, remove_locked
from gateway.dub.state.workspace import JOURNAL, Workspace, open_workspace
from gateway.media.inspection import inspect_in_child
from gateway.media.stills import is_still
from gateway.media.takes import TAKES_SUFFIX, Take, check_number_of_takes, join_takes, joined_info, takes_in_order
from gateway.media.types import MediaInfo
from gateway.safe_paths import open_media_file
from gateway.stages.interface import Stages
from gateway.stages.opening import models_for
from services.common.errors import (
    DubstageError,
    InvalidRequestError,
    MediaUnsupportedError,
    NoUsableFootageError,
    RequestError,
    WorkCancelledError,
)
from services.common.methods import method_named
from services.common.store.artefacts import ArtefactRef, ArtefactStore

_BYTES_PER_PIXEL: Final = 0.1
"""About how much of the disk a pixel of the joined video takes."""
_JOINED: Final = "takes"
"""Name of the pass that joins the takes."""
_NOT_RESUMABLE: Final = (RequestError, NoUsableFootageError, *FORBIDDEN)
"""Errors after which the enrolment's folder is removed: another run would fail again, or the work is not allowed."""
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

    The first SOUND_SECONDS of all takes together are joined: enrolment takes no more than that. A video that an earlier run has
    joined is taken.

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
    takes, video = takes_in_order(infos, Fraction(SOUND_SECONDS)), workspace.folder / f"takes{TAKES_SUFFIX}"
    if await asyncio.to_thread(workspace.finished, _JOINED, video) is not None:
        return await asyncio.to_thread(joined_info, takes, video)
    await in_thread(workspace.allowance.check, _size(takes), "the joined footage")
    stopped = threading.Event()

    def on_frame(done: int, total: int) -> None:
        if stopped.is_set():
            raise WorkCancelledError("the enrolment is cancelled")
        on_progress("join", done, total)

    def join() -> MediaInfo:
        with job_folder(workspace.folder):
            info = join_takes(takes, video, threads=threads, on_frame=on_frame)
            workspace.finish(_JOINED, {}, video)
            return info

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
    on_footage: OnFootage = no_footage,
    operation: ForOperation = ForOperation(),
    disk: JobDisk = JobDisk(),
) -> StoredActor:
    """Learn a person from footage, and return the stored actor. The store keeps the footage too, for live streams.

    A stopped enrolment leaves its finished passes, and the same request continues from these passes. If the request or the footage
    is refused, only a kept analysis stays. If the consent ends during the run, the enrolment's folder and the kept analyses of its
    files are removed. If the consent ends between two runs, the folder stays, and the database counts its artefacts until the same
    request runs again, the person is erased, or the job expires. A cancellation while the actor is stored comes too late.

    Args:
        request: who is enrolled, and from what.
        actors: store of actors.
        artefacts: artefact store of the stages.
        jobs: folder of all jobs.
        on_progress: called with every frame and step.
        on_footage: called with the number of frames of the footage, and the million pixels of a frame.
        operation: the gateway's operation, if any.
        disk: what the enrolment may leave on the disk.

    Raises:
        ConsentRefusedError: the consent record does not allow the enrolment, ends meanwhile, or is missing and required.
        InvalidRequestError: the id is taken, there are too many files of footage, the footage does not show the chosen face, or the
            footage changed meanwhile.
        ModelNotFoundError: the stages do not have the method.
        NoUsableFootageError: the footage shows no face, or too few frames show the face.
    """
    consents = actors.consents
    await asyncio.to_thread(consents.check_enrolment, request.consent, request.use, request.actor_id)
    job = _EnrolmentJob(
        request=request,
        stages=stages,
        actors=actors,
        artefacts=artefacts,
        jobs=jobs,
        on_progress=on_progress,
        on_footage=on_footage,
        operation=operation,
        disk=disk,
    )
    try:
        return await while_allowed(lambda: consents.check_lasting([request.consent], subject=request.actor_id), job.run())
    except FORBIDDEN as problem:
        await in_thread(job.forget if isinstance(problem, ENDED) else job.discard)
        raise


@dataclass(eq=False, kw_only=True)
class _EnrolmentJob:
    """One run of an enrolment. The first fields are the arguments of `create_actor`."""

    request: EnrolRequest
    stages: Stages
    actors: ActorStore
    artefacts: ArtefactStore
    jobs: Path
    on_progress: OnProgress
    on_footage: OnFootage
    operation: ForOperation
    disk: JobDisk
    ledger: JobLedger = field(init=False)
    _folder: Path | None = None
    _kept_folders: list[Path] = field(default_factory=list)
    _blobs: list[ArtefactRef] = field(default_factory=list)
    _is_stored: bool = False

    def __post_init__(self) -> None:
        actor_id = self.request.actor_id
        self.ledger = JobLedger(self.actors, belongs_to=self.operation.name or of_actor(actor_id))

    async def run(self) -> StoredActor:
        """Enrol the person."""
        request, stages = self.request, self.stages
        check_number_of_takes(len(request.files))
        await asyncio.to_thread(self.actors.check_free, request.actor_id)
        method = method_named(request.method)
        models = await models_for(stages, method)
        takes = []
        for file in request.files:
            takes.append(await inspect_in_child(file))
            check_footage(method, file, takes[-1])
        digests = await asyncio.to_thread(digests_of_files, request.files)
        shown, model, embeds = joined_digest(digests), stages.face_model, _record_with_subject(request) is not None
        folder = folder_of(self.jobs, enrolment_key(shown, request.actor_id, method, models, model, embeds=embeds))
        self._kept_folders = self._analyses_of(digests)
        async with self._workspace(folder, digests) as workspace:
            info = await one_video(takes, workspace, request.threads, self.on_progress)
            analysis = analysis_key(shown, model, embeds=embeds)
            async with self._shared_analysis(analysis, digests, workspace) as kept:
                shot = await FootageAnalysis.open(stages, method, info, workspace, threads=request.threads)
                self.on_footage(*info.video.size)
                await in_thread(self._make_space, workspace, info)
                journal = Journal(workspace.folder / JOURNAL, self.artefacts, self._hold)
                people = PeopleOfFootage(
                    analysis=shot,
                    kept=kept,
                    journal=journal,
                    key=people_key(analysis, method, models, model),
                    store=self.artefacts,
                    hold=self._hold,
                    on_progress=self.on_progress,
                )
                enrolled = await _learn(people, request, digests)
                stored = await self._store(shot, info.path, enrolled, digests)
                warnings = [*_warnings(shot, request, enrolled), *about_redone(workspace, journal)]
                return replace(stored, warnings=tuple(warnings))

    def _make_space(self, workspace: Workspace, info: MediaInfo) -> None:
        """Remove kept analyses if the records of the footage would not fit on the disk. Blocks."""
        if self.disk.keeps_analysis:
            need = records_need(
                workspace.folder,
                info.video.num_frames,
                motion_frames_for(info.video.duration),
                own_sound=bool(info.audio),
                keeps_expression=False,
                background=None,
                used=workspace.allowance.used,
            )
            make_space(self.request.footage, [need], self.jobs, self.ledger, self.artefacts)

    async def _store(self, shot: FootageAnalysis, footage: Path, enrolled: EnrolledActor, digests: Sequence[str]) -> StoredActor:
        """Store the person, and the blobs that the person needs beside what was learned.

        Args:
            footage: the only file, or the joined video.
            digests: SHA-256 of the files of footage, hexadecimal.
        """
        request, artefacts = self.request, self.artefacts
        more = await _keep_for_live(shot, footage, artefacts, self._note)
        if len(digests) == 1 and more["footage"].sha256 != digests[0]:
            # The analysis may be of other pictures than the digest says.
            await in_thread(self._forget_analyses)
            raise InvalidRequestError(
                f"{request.footage} changed while the person was enrolled: enrol again when no program writes the file",
                field="video",
            )
        if len(digests) > 1:
            more[FILES] = await _stored(lambda: artefacts.put_bytes(json.dumps(list(digests)).encode()), self._note)
        more[PICTURE] = await _keep_picture(shot, artefacts, self._note, request.threads)
        await in_thread(self.operation.confirm)

        def create() -> StoredActor:
            stored = self.actors.create(
                request.actor_id,
                method=shot.method.name,
                enrolled=enrolled,
                footage_sha256=joined_digest(digests),
                consent=request.consent,
                more=more,
                superseded=self._blobs,
                operation=self.operation.name,
                folder=self._folder,
            )
            self._is_stored = True
            return stored

        # A thread goes on when its caller is cancelled, so the enrolment ends only when the thread has stored the actor.
        return await in_thread(create)

    def _hold(self, ref: ArtefactRef) -> bool:
        """Count an artefact of the enrolment, and return whether it is there. Blocks."""
        assert self._folder is not None, "the enrolment has begun"
        there = self.ledger.hold(self._folder, ref)
        self._blobs.append(ref)
        return there

    async def _note(self, ref: ArtefactRef) -> bool:
        return await in_thread(self._hold, ref)

    def _analyses_of(self, digests: Sequence[str]) -> list[Path]:
        """Return where dubs and enrolments keep the analyses of the files of footage, with and without embeddings of faces."""
        return [folder_of(self.jobs, key) for each in digests for key in analysis_keys(each, self.stages.face_model)]

    def _shared_analysis(self, key: str, digests: Sequence[str], workspace: Workspace) -> AbstractAsyncContextManager[KeptAnalysis]:
        """Give the analysis of the only file of footage, as other jobs find it. The analysis of several files is not shared.

        Args:
            key: key of the analysis.
            digests: SHA-256 of the files of footage.
        """
        folder: Path | None = None
        if self.disk.keeps_analysis and len(digests) == 1:
            folder = folder_of(self.jobs, key)
        footage = Footage(self.request.footage.name, digests[0])
        return shared_analysis(folder, footage, workspace, self.artefacts, self.ledger, self.on_progress)

    @asynccontextmanager
    async def _workspace(self, folder: Path, digests: Sequence[str]) -> AsyncIterator[Workspace]:
        """Open the enrolment's folder. The folder goes at the end, unless another run can continue from there."""
        request = self.request
        with ExitStack() as stack:
            opening = partial(open_workspace, folder, self.operation.name, max_bytes=self.disk.max_bytes)
            workspace = await in_thread(lambda: stack.enter_context(opening()))
            self._folder = workspace.folder
            facts = {
                "kind": "enrol",
                "footage": request.footage.name,
                "method": method_named(request.method).name,
                "actor": request.actor_id,
                # By these, an erasure finds the analysis of an enrolment that was stopped.
                FILES: list(digests),
            }
            try:
                await in_thread(self.ledger.begin, workspace.folder)
                await in_thread(workspace.describe, facts)
                yield workspace
            except BaseException as problem:
                await in_thread(self._leave, workspace, problem)
                raise
            # Blobs that the actor uses stay.
            await in_thread(remove_locked, workspace.folder, self.ledger, self.artefacts)

    def _leave(self, workspace: Workspace, problem: BaseException) -> None:
        """Remove the enrolment's folder unless another run can continue, and the analyses if the person was erased. Blocks."""
        erased = False
        if not self._is_stored:
            # If the database cannot be read, the person counts as not erased.
            with suppress(DubstageError):
                erased = not self.actors.jobs.is_begun(workspace.folder)
        if erased:
            self._forget_analyses()
        if erased or self._is_stored or isinstance(problem, _NOT_RESUMABLE) or not workspace.resumable():
            remove_locked(workspace.folder, self.ledger, self.artefacts)

    def discard(self) -> None:
        """Remove what the enrolment has left for another run. Blocks."""
        if self._folder is not None:
            remove_job(self._folder, self.ledger, self.artefacts)

    def forget(self) -> None:
        """Remove what the enrolment has left, and the kept analyses of its footage: the person may not be shown. Blocks."""
        self._forget_analyses()
        self.discard()

    def _forget_analyses(self) -> None:
        for folder in self._kept_folders:
            forget_analysis(folder, self.ledger, self.artefacts)


def _record_with_subject(request: EnrolRequest) -> Consent | None:
    """Return the consent record if it names its subject (actor, files or face); None: there is no such record."""
    return request.consent if request.consent is not None and request.consent.names_person else None


async def _learn(people: PeopleOfFootage, request: EnrolRequest, digests: Sequence[str]) -> EnrolledActor:
    """Learn the person, if the consent record is about the person. Nothing is learned or kept before the record is compared.

    Args:
        people: what is learned of people of the footage, which is not tracked yet.
        digests: SHA-256 of the files of footage, hexadecimal.
    """
    shot, consent = people.analysis, _record_with_subject(request)

    def tracked(done: int) -> None:
        people.on_progress("track", done, shot.info.video.num_frames)

    await shot.track(tracked, embed=consent is not None)
    if await shot.select(request.face) is None:
        raise NoUsableFootageError(f"{request.footage} shows no face", subject=str(request.footage))
    if consent is not None:
        footage = f"the footage {', '.join(map(str, request.files))}"
        check_shown(consent, Shown(footage, joined_digest(digests), shot.face, files=tuple(digests)), request.actor_id)
    if shot.info.audio:
        # Learning raises the error if it needs a sound that cannot be read.
        with suppress(MediaUnsupportedError):
            await shot.extract_sound()
    await people.kept.keep(shot.workspace)
    enrolled = await people.find_actor(request.options)
    return enrolled if enrolled is not None else await people.learn(request.options)


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
        lambda indices: faces.read_rows(rows[indices].tolist()),
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
