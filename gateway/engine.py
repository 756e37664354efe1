"""The one engine of dubs: opens, holds, runs, watches, seals and discards a dub, from files or from frames of image sequences.

Operations of CreateDub, `dubstage dub`, `dubstage.dub` in a process and workers of batches call it. It stands above `gateway.dub`,
because actors, consent records, the audit log and old jobs are above the passes (layers in pyproject.toml).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from dubstage.gateway.v1.dub_pb2 import DubSpec
from gateway.actors.create import EnrolRequest, ForOperation, create_actor
from gateway.actors.installation import Installation
from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.actors.stored import StoredActor, check_actor_id, check_enrolled_for
from gateway.actors.watch import ENDED, dub_while_allowed, while_allowed
from gateway.async_utilities import in_thread
from gateway.audit.work import WorkRecord
from gateway.dub.job.dub_job import DubJob
from gateway.dub.job.kept_analysis import Footage, shared_analysis
from gateway.dub.job.kept_result import KeptResult
from gateway.dub.job.key import analysis_key, embeds_faces, file_digests, result_key
from gateway.dub.job.outcome import DubOutcome
from gateway.dub.learn.analysis import folder_of
from gateway.dub.learn.face_list import FaceList, list_faces
from gateway.dub.progress import OnFootage, OnProgress, no_footage
from gateway.dub.request.dub_request import DubRequest, check_request, naming, seconds_of_parts, sha256_of, version_of
from gateway.dub.request.sequences import check_sequence_method, frame_by_frame, is_signed, with_files
from gateway.dub.request.spec import DubFiles, check_scene, method_of, request_from, within
from gateway.dub.request.spec_text import actor_of
from gateway.dub.sound.speech_command import SpokenText, kept_speech, speak, write_silence
from gateway.dub.state.disk import JobDisk
from gateway.dub.state.scratch import ScratchFolders
from gateway.dub.state.workspace import Workspace
from gateway.housekeeping import bound_analyses, expire, kept_bytes, open_jobs_folder
from gateway.media.inspection import inspect_in_child
from gateway.media.sequences import SequenceDub, SequenceSettings
from gateway.media.types import MediaInfo
from gateway.provenance.binding import read_sidecar, sidecar_of
from gateway.provenance.seal import Sealer
from gateway.stages.interface import Stages
from services.common.errors import DubstageError
from services.common.store.artefacts import ArtefactStore

_log = structlog.stdlib.get_logger("dubstage.jobs")


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """Stores and limits that dubs work with.

    Attributes:
        actors: the enrolled people, their consent records and the audit log.
        artefacts: the store that the stages share.
        jobs: folder of all jobs.
        threads: threads of decoders and encoders. The bytes of a video depend on this number.
        max_job_bytes: most bytes of one job's folder.
        sealer: returns what signs videos and marks mouths. The first call reads the key, and blocks.
        analyses_bytes: most bytes of all kept analyses of footage together; 0: none is kept.
    """

    actors: ActorStore
    artefacts: ArtefactStore
    jobs: Path
    threads: int
    max_job_bytes: int
    sealer: Callable[[], Sealer]
    analyses_bytes: int

    @classmethod
    def of(cls, installation: Installation) -> Self:
        """Return the engine of the stores of a command or a worker. Blocks.

        Raises:
            DubstageError: the data folder cannot be used.
        """
        settings = installation.settings
        return cls(
            actors=installation.actors,
            artefacts=installation.artefacts,
            jobs=open_jobs_folder(settings.data_dir),
            threads=settings.compute_threads,
            max_job_bytes=settings.max_job_bytes,
            sealer=cache(installation.sealer),
            analyses_bytes=kept_bytes(settings),
        )

    def request(
        self,
        spec: DubSpec,
        files: DubFiles,
        *,
        frames: SequenceDub | None = None,
    ) -> DubRequest:
        """Return the request of a spec, with the method, the enrolments and what the store says of the actors. Blocks.

        Args:
            spec: the dub.
            files: finds the files that the spec names.
            frames: the opened image sequence of the spec, whose video is dubbed; None: the footage is a video.

        Raises:
            ActorError: there is no such actor.
            ConsentRefusedError: a consent record does not allow the dub, or is missing and the installation requires one.
            InvalidRequestError: a field cannot be used, or an actor was enrolled for another method.
        """
        actor_id = actor_of(spec)
        actor = self.actors.get(check_actor_id(actor_id, "actor")) if actor_id and not spec.lines else None
        if actor is not None:
            check_enrolled_for(actor, method_of(spec, actor.method))
        request = request_from(spec, files, threads=self.threads, method=actor.method if actor is not None else "")
        if frames is not None:
            check_sequence_method(request.method)
            request = with_files(request, frames.video, frames.dubbed)
        if request.lines:
            return self._scene(request, spec)
        if actor is not None:
            request = replace(request, actor=actor.enrolled, actor_record=actor.record)
        return self.actors.consents.checked_dub(request, subject=actor_id or spec.footage_uri, reference=spec.reference_uri)

    def checked_request(
        self,
        spec: DubSpec,
        files: DubFiles,
        *,
        frames: SequenceDub | None = None,
    ) -> DubRequest:
        """Return the request of a spec as `request`, after the checks of its files, which lie on this machine. Blocks.

        Raises:
            DubstageError: as `request` and `check_request`.
        """
        request = self.request(spec, files, frames=frames)
        check_request(request)
        return request

    async def spoken_request(
        self,
        spec: DubSpec,
        files: DubFiles,
        words: Mapping[int, SpokenText],
        *,
        frames: SequenceDub | None = None,
        again: bool = False,
        on_step: Callable[[str], None] = lambda step: None,
    ) -> DubRequest:
        """Return the checked request of a spec, some speech of which a command of this machine makes from words.

        The request is checked with silence before the command is called. Only commands of this machine and their batches call this:
        a caller of a gateway has no words.

        Args:
            spec: the dub, without the speech that is made.
            files: finds the files that the spec names.
            words: the words, and the command that speaks them, by number of the line, from 0; without lines: 0.
            frames: as for `request`.
            again: call the command even if the speech was made before.
            on_step: called once for each speech, with a text that says whether the command is called or kept speech is used.

        Raises:
            DubstageError: as `checked_request` and `speak`.
        """
        data_dir = self.jobs.parent
        with closing(ScratchFolders(data_dir)) as scratch, scratch.folder() as folder:
            silence = await in_thread(write_silence, folder.absolute() / "silence.wav")
            request = await in_thread(self.checked_request, _with_speech(spec, dict.fromkeys(words, silence)), files, frames=frames)
            parts = list(request.parts)
            seconds = [Fraction(0)] * len(parts)
            if any(text.takes_seconds for text in words.values()):
                seconds = seconds_of_parts(request, await inspect_in_child(request.footage))
            for number, text in words.items():
                speech = None if again else await in_thread(kept_speech, text, seconds[number], data_dir)
                done = f"taking what {text.program} has spoken before" if speech is not None else f"speaking with {text.program}"
                on_step(f"line {number + 1}: {done}" if spec.lines else done)
                if speech is None:
                    speech = await speak(text, seconds[number], data_dir, folder)
                parts[number] = replace(parts[number], speech=speech, voice=text.facts)
        if request.lines:
            request = replace(
                request, lines=tuple(replace(line, dub=part) for line, part in zip(request.lines, parts, strict=True))
            )
        else:
            (request,) = parts
        await in_thread(check_request, request)
        return request

    def _scene(self, request: DubRequest, spec: DubSpec) -> DubRequest:
        """Return a scene with the method, the enrolments and what the store says of the actors of its lines.

        The method is that of the spec, otherwise the one that the first actor was enrolled for, otherwise the request's.
        """
        for index, line in enumerate(request.lines):
            if line.actor_id:
                with within(f"lines[{index}]"):
                    check_actor_id(line.actor_id, "actor")
        ids = dict.fromkeys(line.actor_id for line in request.lines if line.actor_id)
        actors = {actor_id: self.actors.get(actor_id) for actor_id in ids}
        wanted = request.method if spec.method else next((actor.method for actor in actors.values()), request.method)
        check_scene(spec, wanted)
        lines = []
        for line in request.lines:
            dub = replace(line.dub, method=wanted)
            if line.actor_id:
                actor = actors[line.actor_id]
                with naming(line):
                    check_enrolled_for(actor, wanted)
                dub = replace(dub, actor=actor.enrolled, actor_record=actor.record)
            dub = self.actors.consents.checked_dub(dub, subject=line.actor_id or str(line.name), reference="")
            lines.append(replace(line, dub=dub))
        return replace(request, method=wanted, lines=tuple(lines))

    async def frames(
        self,
        footage: Path,
        output: Path,
        settings: SequenceSettings,
        folder: Path,
        on_progress: OnProgress,
        *,
        inputs: Sequence[Path] = (),
        overwrite: bool = False,
    ) -> SequenceDub:
        """Return the image sequence of a dub, whose pictures were read as a video.

        Args:
            footage: pattern of the frames.
            output: pattern of the frames to write.
            settings: what the spec says about the sequence (`sequence_of`).
            folder: empty folder for the videos of the sequence.
            on_progress: called with every frame.
            inputs: other files that the dub reads, which no frame may replace.
            overwrite: replace frames that dubstage did not write.

        Raises:
            DubstageError: the sequence cannot be read, or the frames cannot be written.
        """
        sequence = await in_thread(
            lambda: SequenceDub(footage, output, settings, folder, inputs=inputs, overwrite=overwrite, is_signed=is_signed)
        )
        await in_thread(lambda: self.sealer().check_sidecar_path(sequence.listing, overwrite=overwrite))
        await frame_by_frame(partial(sequence.read, threads=self.threads), partial(on_progress, "read frames"))
        return sequence

    async def faces(
        self,
        info: MediaInfo,
        stages: Stages,
        folder: Path,
        on_progress: OnProgress,
        *,
        on_digest: Callable[[str], None] = lambda sha256: None,
    ) -> FaceList:
        """Return the faces of a video. A dub of the video, before or afterwards, and the list share the tracked faces.

        Args:
            info: the video, or a single picture.
            stages: the open stages.
            folder: new folder for the records of the faces.
            on_progress: called with the number of finished frames of each step.
            on_digest: called in a thread with the SHA-256 of the file, before any face is looked for.

        Raises:
            DubstageError: as `list_faces`, or the file cannot be read.
        """
        version, digest = await in_thread(lambda: (version_of(info.path), sha256_of(info.path)))
        await in_thread(on_digest, digest)
        key = analysis_key(digest, stages.face_model, embeds=False)
        kept_folder = folder_of(self.jobs, key) if self.analyses_bytes else None
        with Workspace(folder, max_bytes=self.max_job_bytes) as workspace:
            footage, ledger = Footage(info.path.name, digest), JobLedger(self.actors)
            async with shared_analysis(kept_folder, footage, workspace, self.artefacts, ledger, on_progress) as kept:
                face_list = await list_faces(stages, info, workspace, threads=self.threads, on_progress=on_progress)
                await kept.check_file(info.path, version)
                await kept.keep(workspace)
        await self.bound_analyses()
        return face_list

    async def create_actor(
        self,
        request: EnrolRequest,
        stages: Stages,
        *,
        on_progress: OnProgress,
        on_footage: OnFootage,
        operation: ForOperation = ForOperation(),
    ) -> StoredActor:
        """Enrol a person, and return the stored actor. Dubs of the only file of footage, before or afterwards, share its analysis.

        Args:
            request: who is enrolled, and from what.
            stages: the open stages.
            on_progress: called with every frame and step.
            on_footage: called with the number of frames of the footage, and the million pixels of a frame.
            operation: the gateway's operation, if any.

        Raises:
            DubstageError: as `create_actor`.
        """
        actor = await create_actor(
            request,
            stages,
            self.actors,
            self.artefacts,
            self.jobs,
            on_progress=on_progress,
            on_footage=on_footage,
            operation=operation,
            disk=self._disk,
        )
        await self.bound_analyses()
        return actor

    async def kept_result(self, request: DubRequest, stages: str, face_model: str) -> KeptResult | None:
        """Return the result of a request, to look for it before the dub and to keep it afterwards. None: no analyses are kept.

        Args:
            request: the checked request, whose consent records allow the dub.
            stages: digest of the stages (`stages_sha256`).
            face_model: face model that people are fitted on.

        Raises:
            DubstageError: a file of the request, or the key of the installation, cannot be read.
        """
        if not self.analyses_bytes:
            return None
        digests = await file_digests(request)
        sealer = await in_thread(self.sealer)
        key = analysis_key(digests[request.footage], face_model, embeds=embeds_faces(request))
        manifests = await in_thread(lambda: [hashlib.sha256(read_sidecar(sidecar_of(file))).hexdigest() for file in digests])
        return KeptResult(folder_of(self.jobs, key), result_key(request, digests, stages, sealer.sha256, manifests), digests)

    async def is_finished(self, request: DubRequest, result: KeptResult, report: Path | None) -> bool:
        """Return whether an earlier dub of the same request has written the output, and the report if one is wanted.

        Raises:
            ActorError: an actor was erased meanwhile.
            ConsentRefusedError: the consent has ended.
            DubstageError: the database cannot be used.
        """
        if not await in_thread(result.is_there, request.output, report):
            return False
        await in_thread(lambda: [self.actors.get(actor_id) for actor_id in request.actor_ids])
        await in_thread(JobLedger(self.actors, request.actor_ids, consents=request.consents).check_consent)
        return True

    @property
    def _disk(self) -> JobDisk:
        return JobDisk(self.max_job_bytes, keeps_analysis=self.analyses_bytes > 0)

    async def bound_analyses(self) -> None:
        """Remove the kept analyses that are too many or too large. Errors go to the log."""
        if self.analyses_bytes:
            try:
                await in_thread(bound_analyses, self.jobs, self.analyses_bytes, self.actors, self.artefacts)
            except (DubstageError, OSError) as problem:
                _log.warning("analyses_not_bounded", problem=str(problem))

    def dub(
        self,
        request: DubRequest,
        stages: Stages,
        *,
        frames: SequenceDub | None = None,
        operation: str = "",
        takes_over: bool = False,
        confirm: Callable[[], None] = lambda: None,
    ) -> Dub:
        """Return the dub of a request, which has not begun. Blocks if `sealer` was not called before.

        Args:
            request: the prepared request.
            stages: the open stages.
            frames: the image sequence whose video is dubbed; None: the footage is a video.
            operation: name of the gateway's operation that does the dub; empty: none.
            takes_over: as for DubJob.
            confirm: raises WorkCancelledError if another process does the work now; blocks.
        """
        ledger = JobLedger(self.actors, request.actor_ids, operation, consents=request.consents, confirm=confirm)
        job = DubJob(
            request,
            stages,
            self.artefacts,
            self.jobs,
            ledger,
            disk=self._disk,
            sealer=self.sealer(),
            operation=operation,
            takes_over=takes_over,
        )
        return Dub(self, request, job, ledger, self.sealer(), frames)


class Dub:
    """One dub. Inside a `with` block, its folder stays open and locked after `run`, so that a report can read the records.

    Args:
        engine: stores of the dub.
        request: the prepared request.
        job: its job.
        ledger: counts the blobs of the job, and knows whether the job may go on.
        sealer: signs frames of image sequences.
        frames: the image sequence whose video is dubbed; None: the footage is a video.
    """

    def __init__(
        self, engine: Engine, request: DubRequest, job: DubJob, ledger: JobLedger, sealer: Sealer, frames: SequenceDub | None
    ) -> None:
        self._engine = engine
        self._request = request
        self._job = job
        self._ledger = ledger
        self._sealer = sealer
        self._frames = frames
        self._video_there = False

    def __enter__(self) -> Self:
        self._job.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._job.__exit__(kind, error, trace)

    @property
    def workspace(self) -> Workspace:
        """The open folder of the job, after `run` and inside a `with` block."""
        return self._job.workspace

    @property
    def is_kept(self) -> bool:
        """Whether the folder stays behind a finished dub until it expires: that of a scene, so that a line can be changed."""
        return bool(self._request.lines)

    async def run(
        self, on_progress: OnProgress, on_footage: OnFootage = no_footage, *, check: Callable[[], None] | None = None
    ) -> DubOutcome:
        """Dub as long as consent and actors allow it, and return the outcome. If the dub may not go on, nothing of it is kept.

        Args:
            on_progress: called with every frame and step.
            on_footage: called with the number of frames of the footage, and the million pixels of a frame.
            check: looks whether the dub may go on; None: `check`.

        Raises:
            ActorError: the actor was erased.
            ConsentRefusedError: the consent has ended.
            DubstageError: as `DubJob.run`.
        """
        outcome = await dub_while_allowed(self._job, check or self.check, on_progress, on_footage)
        self._video_there = True
        await self._engine.bound_analyses()
        return outcome

    async def write_frames(self, outcome: DubOutcome, on_progress: OnProgress) -> str:
        """Write the frames of the image sequence and their signed list. Return the digest of the list; empty: a video was dubbed.

        Raises:
            DubstageError: the frames cannot be written, or the dub may not go on.
        """
        frames = self._frames
        if frames is None:
            return ""
        seal = self._sealer.seal(outcome.claim, frames.listing) if outcome.claim is not None else None
        work = partial(frames.write, seal=seal, confirm=self._ledger.confirm)
        try:
            await while_allowed(self.check, frame_by_frame(work, partial(on_progress, "write frames")))
        except ENDED:
            await in_thread(self._job.forget)
            raise
        return await in_thread(sha256_of, frames.listing)

    def recorded(self, *, batch: str = "", row: int = 0) -> AbstractAsyncContextManager[WorkRecord]:
        """Record the beginning and the end of the dub, which is no operation, in the audit log (`JobLedger.recorded`)."""
        return self._ledger.recorded(self._request.method, batch=batch, row=row)

    def check(self) -> None:
        """Check that the dub may go on: consent and actors. Blocks. Raises as `JobLedger.check`."""
        self._ledger.check()

    def check_consent(self) -> None:
        """Check that the consent still holds. Blocks. Raises as `JobLedger.check_consent`."""
        self._ledger.check_consent()

    def confirm(self) -> None:
        """Check before the video leaves this machine that the dub is still this process's, and may go on. Blocks.

        Raises:
            WorkCancelledError, ActorError, ConsentRefusedError: as `JobLedger.confirm`.
        """
        self._ledger.confirm()

    async def discard_or_log(self) -> None:
        """Remove what the dub keeps for another run. The video and the analysis of the footage stay. Errors go to the log."""
        await self._logged(in_thread(self._job.discard))

    async def _logged(self, removal: Awaitable[None]) -> None:
        try:
            await removal
        except (DubstageError, OSError) as problem:
            _log.warning("job_not_removed", folder=str(self._job.folder), problem=str(problem))

    async def withdraw(self) -> None:
        """Remove the video or the frames that this run has written, and what the dub keeps for another run. Errors are logged."""
        await self._withdrawn(self._job.discard)

    async def forget(self) -> None:
        """Remove all that `withdraw` removes, and the kept analyses of the footage: the person may not be shown any more."""
        await self._withdrawn(self._job.forget)

    async def _withdrawn(self, remove: Callable[[], None]) -> None:
        """Remove the video or the frames, and what `remove` removes. Errors are logged."""
        if self._video_there:
            await in_thread(self._job.remove_video)
        if self._frames is not None and self._frames.is_written:
            await in_thread(_remove_frames, self._frames)
        await self._logged(in_thread(remove))


def _remove_frames(frames: SequenceDub) -> None:
    """Remove the frames and the manifest of their list. What cannot be removed is logged."""
    try:
        sidecar_of(frames.listing).unlink(missing_ok=True)
        frames.remove()
    except OSError as problem:
        _log.warning("frames_not_removed", problem=problem.strerror or str(problem))


@dataclass(frozen=True, slots=True)
class FinishedDub:
    """A dub whose video is written, with what a report needs.

    Attributes:
        outcome: result of the dub.
        workspace: the open folder of the job, which has the records.
    """

    outcome: DubOutcome
    workspace: Workspace


def _with_speech(spec: DubSpec, speech: Mapping[int, Path]) -> DubSpec:
    """Return a spec with files as the speech of some lines, by number of the line; without lines, of the dub."""
    spoken = deepcopy(spec)
    for number, file in speech.items():
        (spoken.lines[number] if spoken.lines else spoken).speech_uri = str(file)
    return spoken


@asynccontextmanager
async def finished_dub(
    engine: Engine,
    request: DubRequest,
    stages: Stages,
    on_progress: OnProgress,
    on_footage: OnFootage = no_footage,
    *,
    frames: SequenceDub | None = None,
) -> AsyncIterator[FinishedDub]:
    """Dub for a command, and keep the folder of the job open inside the block. Then the folder of a dub without lines is removed.

    Args:
        engine: the stores.
        request: the checked request.
        stages: the open stages.
        on_progress: called with every frame and step.
        on_footage: called with the number of frames of the footage, and the million pixels of a frame.
        frames: the image sequence whose video is dubbed; None: the footage is a video.

    Raises:
        DubstageError: the dub failed.
    """
    await in_thread(engine.sealer)
    with engine.dub(request, stages, frames=frames) as dub:
        async with dub.recorded() as record:
            outcome = await dub.run(on_progress, on_footage)
            await record.video(request.output, outcome.watermark)
        try:
            await dub.write_frames(outcome, on_progress)
            yield FinishedDub(outcome, dub.workspace)
        finally:
            # The video is finished, so the job folder is not needed again, even if a report fails.
            if not dub.is_kept:
                await dub.discard_or_log()


async def remove_old_jobs(installation: Installation, engine: Engine) -> None:
    """Remove old jobs after a dub or an enrolment. An error is ignored: the work is done, and the next command tries again."""
    with suppress(DubstageError, OSError):
        await in_thread(expire, installation.settings, installation.actors, installation.artefacts, engine.jobs)
