"""One dub, from files to a file: the order of the passes, the job's folder, and the result."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from gateway.ahead import in_thread
from gateway.confinement import remove_file
from gateway.media.background_film import own_timeline
from gateway.media.inspection import inspect_in_child
from gateway.media.sound import Speech
from gateway.media.types import MediaInfo
from gateway.methods import method_named
from gateway.pipeline.allowance import MAX_JOB_BYTES
from gateway.pipeline.analysis import folder_of, hear_speech, together
from gateway.pipeline.disk_need import check_disks, film_need, records_need, windows_need
from gateway.pipeline.dub_files import check_output, open_speech, open_writer
from gateway.pipeline.dub_request import DubRequest, has_own_timeline
from gateway.pipeline.film_claim import film_claim, film_watermark
from gateway.pipeline.job_key import file_digests, job_key
from gateway.pipeline.journal import Journal
from gateway.pipeline.ledger import BlobLedger, OwnBlobs
from gateway.pipeline.outcome import (
    DubOutcome,
    about_damage,
    about_mouth,
    about_no_frame,
    about_redone,
    about_silence,
    about_speech,
    about_voice,
)
from gateway.pipeline.passes import Passes
from gateway.pipeline.progress import OnProgress
from gateway.pipeline.reference import find_reference
from gateway.pipeline.reference_face import ReferenceFace
from gateway.pipeline.removal import give_up, remove_locked
from gateway.pipeline.shot import Shot
from gateway.pipeline.speech import motion_frames_for, speech_duration
from gateway.pipeline.subjects import compares_people
from gateway.pipeline.workspace import JOURNAL, Workspace, open_workspace
from gateway.provenance.places import sidecar_of
from gateway.provenance.seal import Seal, Sealer
from gateway.provenance.watermark.embedding import Mark
from gateway.stages.interface import Stages
from gateway.stages.method_check import models_for
from gateway.stages.timed import TimedStages
from gateway.stages.times import StageClock, StageTimes
from services.common.errors import ActorNotReady, NoUsableFootage, RequestError
from services.common.store.artefacts import ArtefactStore

_log = structlog.stdlib.get_logger("dubstage.jobs")


class DubJob:
    """A dub in a folder of its own. A run of the same request continues an interrupted run, and gives the same bytes.

    Inside a `with` block of the job, the folder stays open and locked after `run`, so that a report can read the records. No other
    process works in the folder or removes the folder until the block ends.

    Args:
        request: the dub request.
        stages: the stages.
        store: artefact store of the stages.
        jobs: folder of all jobs.
        ledger: counts the artefacts of the job; None: no other job shares them.
        max_bytes: most bytes of the job's folder.
        sealer: signs the film and marks the dubbed mouths; None: the film gets no manifest and no watermark.
        operation: name of the gateway's operation that does the job; empty: none.
        takes_over: whether another gateway may have begun the operation. An unfinished output of that gateway is removed, even if
            that gateway is paused and still holds the file.
    """

    def __init__(
        self,
        request: DubRequest,
        stages: Stages,
        store: ArtefactStore,
        jobs: Path,
        ledger: BlobLedger | None = None,
        *,
        max_bytes: int = MAX_JOB_BYTES,
        sealer: Sealer | None = None,
        operation: str = "",
        takes_over: bool = False,
    ) -> None:
        self._request = request
        self._ledger = ledger if ledger is not None else OwnBlobs()
        self._clock = StageClock()
        self._stages: Stages = TimedStages(stages, self._clock)
        self._store = store
        self._jobs = jobs
        self._max_bytes = max_bytes
        self._sealer = sealer
        self._operation = operation
        self._takes_over = takes_over
        self._folder: Path | None = None
        self._keeps_open = False
        self._open: Workspace | None = None
        self._analysed = False

    def __enter__(self) -> Self:
        self._keeps_open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._keeps_open = False
        if self._open is not None:
            self._open.close()
            self._open = None

    async def run(self, on_progress: OnProgress) -> DubOutcome:
        """Dub, and return the result. The job's folder stays until `discard`, so that a report can read it.

        A run that fails leaves the folder, so that the next run continues. A run that fails before any pass is finished, or because
        of the request itself, leaves nothing.

        Args:
            on_progress: called with every frame and step.

        Raises:
            DubstageError: the input cannot be used, or a stage failed. No output is left; finished windows stay in the journal.
        """
        request = self._request
        began, used = time.perf_counter(), time.process_time()
        method = method_named(request.method)
        info = await inspect_in_child(request.footage)
        own = has_own_timeline(request, info)
        speech = await asyncio.to_thread(open_speech, request, info)
        encoder = await asyncio.to_thread(check_output, request, info, speech)
        if self._sealer is not None:
            self._sealer.check_place(request.output, overwrite=request.overwrite)
        models = await models_for(self._stages, method)
        digests = await file_digests(request)
        key = job_key(request, method, models, digests, self._stages.face_model)
        async with self._workspace(folder_of(self._jobs, key)) as workspace:
            folder = workspace.folder
            journal = Journal(folder / JOURNAL, self._store, lambda ref: self._ledger.hold(folder, ref))
            shot = await Shot.open(self._stages, method, info, workspace, threads=request.threads)
            info = shot.info
            compared = compares_people(request)
            reference = await self._reference(workspace, on_progress, embed=compared)
            duration = await asyncio.to_thread(_film_duration, info, speech) if own else info.video.duration
            await asyncio.to_thread(self._check_disks, workspace, journal, info, duration, encoder.codec, own=own)
            _, extent = await together(
                shot.track(lambda done: on_progress("track", done, info.video.num_frames), embed=compared),
                hear_speech(self._stages, duration, speech, workspace, method.features),
            )
            passes = Passes(
                request=request,
                shot=shot,
                journal=journal,
                key=key,
                store=self._store,
                ledger=self._ledger,
                on_progress=on_progress,
                digests=digests,
                reference=reference,
            )
            person = await passes.person()
            film = await passes.background(person, duration) if own else await passes.in_place(person)
            plan = passes.plan(film, person)
            self._analysed = True
            seal: Seal | None = None
            mark: Mark | None = None
            dubbed = bool(plan.rendered().any())
            if self._sealer is not None:
                claim = film_claim(request, film.info, plan, models, digests, key)
                mark = self._sealer.mark(claim)
                claim = replace(claim, watermark=film_watermark(mark, dubbed=dubbed).payload)
                seal = self._sealer.seal(claim, request.output, takes_over=self._takes_over)
            writer = await asyncio.to_thread(
                open_writer, request, film.info, speech, dubbed=dubbed, takes_over=self._takes_over, seal=seal
            )
            computed, reused = journal.computed, journal.reused
            facts = await passes.write(film, plan, person, writer, self._clock, mark)
        return DubOutcome(
            written=writer.report,
            info=info,
            film=film.info,
            plan=plan,
            actor=person.actor,
            face_id=person.face_id,
            facts=facts,
            windows_computed=journal.computed - computed,
            windows_reused=journal.reused - reused,
            times=StageTimes(
                stages=self._clock.stages(),
                frames=film.info.video.num_frames,
                end_to_end_s=time.perf_counter() - began - person.seconds,
                personalize_s=person.seconds,
                cpu_s=time.process_time() - used,
            ),
            watermark=film_watermark(mark, dubbed=dubbed),
            undubbed=about_no_frame(plan, person.unlearned),
            warnings=[
                *([] if own else [*about_speech(extent, info), *about_mouth(person.actor)]),
                *person.warnings,
                *about_voice(person.actor),
                *about_silence(plan),
                *about_damage(facts),
                *about_redone(workspace, journal),
                *(seal.warnings if seal is not None else ()),
            ],
        )

    def _check_disks(
        self, workspace: Workspace, journal: Journal, info: MediaInfo, duration: Fraction, codec: str, *, own: bool
    ) -> None:
        """Check that there is room for all that the dub will write.

        Args:
            workspace: the job's folder.
            journal: finished steps of the job.
            info: the footage.
            duration: length of the film, seconds.
            codec: codec of the film.
            own: whether the film has a timeline of its own.

        Raises:
            StorageFull: a file system has too little free space.
        """
        request, film = self._request, info.video
        if own:
            film = own_timeline(info, int(duration * own_timeline(info, 1).video.average_rate)).video
        records = records_need(
            workspace.folder,
            info.video.num_frames,
            motion_frames_for(duration),
            own_sound=bool(info.audio),
            keeps_expression=request.keeps_expression,
            background=film if own else None,
            taken=workspace.allowance.taken,
        )
        needs = [records, film_need(request.output, codec, film)]
        if self._store.folder is not None:
            stored = sum(ref.size_bytes for ref in journal.refs())
            needs.append(windows_need(self._store.folder, film.num_frames, 0, stored))
        check_disks(request.footage, needs)

    async def _reference(self, workspace: Workspace, on_progress: OnProgress, *, embed: bool) -> ReferenceFace | None:
        """Return the face whose appearance the film takes; None: the request names no reference."""
        request = self._request
        if request.reference is None:
            return None
        on_progress("reference", 0, 1)
        return await find_reference(self._stages, request.reference, workspace.folder, threads=request.threads, embed=embed)

    @property
    def folder(self) -> Path | None:
        """The job's folder; None before `run`."""
        return self._folder

    @property
    def workspace(self) -> Workspace:
        """The job's open folder, after `run` and inside a `with` block of the job."""
        if self._open is None:
            raise RuntimeError("the job has not run inside a `with` block of the job")
        return self._open

    def discard(self) -> None:
        """Remove the job's folder, and those of its artefacts that no other job and no actor uses.

        If another job works in the folder meanwhile, the folder is that job's, and stays.
        """
        if self._open is not None:
            remove_locked(self._open.folder, self._ledger, self._store)
        elif self._folder is not None:
            give_up(self._folder, self._ledger, self._store)

    def remove_film(self) -> None:
        """Remove the film, and the manifest that lies beside it. Blocks. What cannot be removed is told in the log."""
        for file in (self._request.output, sidecar_of(self._request.output)):
            try:
                remove_file(file)
            except OSError as problem:
                _log.warning("film_not_removed", film=str(file), problem=problem.strerror or str(problem))

    @asynccontextmanager
    async def _workspace(self, folder: Path) -> AsyncIterator[Workspace]:
        """Open the job's folder. If the work in the folder fails and no other run can continue from there, remove the folder."""
        with ExitStack() as stack:
            workspace = stack.enter_context(open_workspace(folder, self._operation, max_bytes=self._max_bytes))
            self._folder = folder = workspace.folder
            try:
                await in_thread(self._ledger.begin, folder)
                await in_thread(workspace.describe, self._facts())
                yield workspace
            except BaseException as problem:
                # The same request fails the same way again, so no later run will use what was found until now.
                hopeless = not self._analysed and isinstance(problem, RequestError | NoUsableFootage)
                if hopeless or isinstance(problem, ActorNotReady) or not workspace.resumable():
                    await in_thread(remove_locked, folder, self._ledger, self._store)
                raise
            if self._keeps_open:
                self._open = workspace
                stack.pop_all()

    def _facts(self) -> dict[str, object]:
        """Return what `dubstage jobs` shows of the job."""
        request = self._request
        return {
            "kind": "dub",
            "footage": request.footage.name,
            "speech": request.speech.name if request.speech is not None else "",
            "method": request.method,
            "actor": self._ledger.actor_id,
        }


def _film_duration(info: MediaInfo, speech: Speech) -> Fraction:
    """Return the length of a film that is as long as the speech, seconds: a whole number of frames."""
    rate = own_timeline(info, 1).video.average_rate
    return math.ceil(speech_duration(speech) * rate) / rate
