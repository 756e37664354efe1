"""One dub, from files to a file: the order of the passes, the job's folder, and the result.

After the footage is tracked and the features of the speech are extracted, the passes are: person, background, mouths, video
(passes.py). A scene has these passes for each of its lines (scene.py), and one video.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from gateway.async_utilities import in_thread
from gateway.dub.analyse.face_records import TrackedVideo
from gateway.dub.analyse.frame_plan import FramePlan, joined_plan
from gateway.dub.job.kept_analysis import Footage, KeptAnalysis, check_space, forget_analysis, shared_analysis
from gateway.dub.job.key import analysis_key, analysis_keys, embeds_faces, file_digests, files_of, job_key, people_key
from gateway.dub.job.outcome import (
    DubOutcome,
    PartOutcome,
    about_channels,
    about_damage,
    about_left_out,
    about_mouth,
    about_no_frame,
    about_pictures,
    about_preview,
    about_redone,
    about_scale,
    about_silence,
    about_speech,
    about_voice,
    line_reasons,
)
from gateway.dub.job.passes import DubPart, DubPasses
from gateway.dub.job.scene import SceneLines
from gateway.dub.learn.analysis import FootageAnalysis, extract_speech, folder_of, gather_both
from gateway.dub.learn.reference import ReferenceFace, find_reference
from gateway.dub.learn.subjects import compares_people
from gateway.dub.progress import OnFootage, OnProgress, no_footage
from gateway.dub.render.composite import VideoFacts
from gateway.dub.render.mouth_samples import mouth_samples
from gateway.dub.request.claim import video_claim, video_watermark
from gateway.dub.request.dub_request import (
    DubLine,
    DubRequest,
    FileVersion,
    check_line,
    check_output,
    check_unchanged,
    fitted,
    open_writer,
    output_speech,
    shown_video,
    sound_of,
    version_of,
)
from gateway.dub.request.spec_text import ROWS
from gateway.dub.sound.speech import SPEECH_AFTER_S, SpeechExtent, motion_frames_for
from gateway.dub.state.costs import DubWork, PaceFile
from gateway.dub.state.disk import JobDisk
from gateway.dub.state.disk_needs import output_needs, records_need
from gateway.dub.state.journal import BlobLedger, Journal, OwnBlobs
from gateway.dub.state.native_boxes import scale_of
from gateway.dub.state.removal import remove_job, remove_locked
from gateway.dub.state.workspace import JOURNAL, Workspace, open_workspace
from gateway.media.encoders import EncoderChoice
from gateway.media.inspection import inspect_in_child
from gateway.media.sound import Speech
from gateway.media.stills import is_still
from gateway.media.types import MediaInfo, VideoInfo
from gateway.media.writer import VideoWriter
from gateway.provenance.binding import sidecar_of
from gateway.provenance.claim import Claim
from gateway.provenance.seal import Sealer, VideoSeal
from gateway.provenance.watermark.embedding import Mark
from gateway.safe_paths import remove_file
from gateway.stages.interface import Stages
from gateway.stages.opening import models_for
from gateway.stages.remote import RemoteStages
from gateway.stages.timing import StageClock, StageTimes, TimedStages
from services.common.errors import ActorError, InvalidRequestError, MediaUnsupportedError, NoUsableFootageError, RequestError
from services.common.methods import method_named
from services.common.store.artefacts import ArtefactStore
from services.common.texts import Text

_log = structlog.stdlib.get_logger("dubstage.jobs")


class DubJob:
    """A dub in a folder of its own. A run of the same request continues an interrupted run, and gives the same bytes.

    Inside a `with` block of the job, the folder stays open and locked after `run`, so that a report can read the records. No other
    process works in the folder or removes the folder until the block ends.

    Args:
        ledger: counts the blobs of the job; None: no other job shares them.
        disk: what the job may leave on the disk.
        sealer: signs the video and marks the dubbed mouths; None: the video gets no manifest and no watermark.
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
        disk: JobDisk = JobDisk(),
        sealer: Sealer | None = None,
        operation: str = "",
        takes_over: bool = False,
    ) -> None:
        self._request = request
        self._ledger = ledger if ledger is not None else OwnBlobs()
        self._clock = StageClock()
        self._untimed = stages
        self._stages: Stages = TimedStages(stages, self._clock)
        self._store = store
        self._jobs = jobs
        self._disk = disk
        self._sealer = sealer
        self._operation = operation
        self._takes_over = takes_over
        self._folder: Path | None = None
        self._kept_folders: list[Path] = []
        self._keeps_open = False
        self._open: Workspace | None = None
        self._analysed = False
        self._versions: dict[Path, FileVersion | None] = {}
        self._is_exchanged = False

    def __enter__(self) -> Self:
        self._keeps_open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._keeps_open = False
        if self._open is not None:
            self._open.close()
            self._open = None

    async def run(self, on_progress: OnProgress, on_footage: OnFootage = no_footage) -> DubOutcome:
        """Dub, and return the result. The job's folder stays until `discard`, so that a report can read it.

        A run that fails leaves the folder, so that the next run continues. A run that fails before any pass is finished, or because
        of the request itself, leaves nothing.

        Args:
            on_progress: called with every frame and step.
            on_footage: called with the number of frames of the footage, and the million pixels of a frame, before they are read.

        Raises:
            DubstageError: the input cannot be used, or a stage failed. No output is left; finished windows stay in the journal.
        """
        # 1. Open: the request's files, the job's folder, and free space.
        request = self._request
        began, used = time.perf_counter(), time.process_time()
        method = method_named(request.method)
        self._versions = await in_thread(lambda: {file: version_of(file) for file in files_of(request)})
        info = await inspect_in_child(request.footage)
        lines = await asyncio.to_thread(_lines_of, request, info)
        speech = await asyncio.to_thread(output_speech, request, info, lines)
        self._request = request = await asyncio.to_thread(fitted, request, info, speech)
        encoder = await asyncio.to_thread(check_output, request, info, speech)
        if self._sealer is not None:
            self._sealer.check_sidecar_path(request.output, overwrite=request.overwrite)
        models = await models_for(self._stages, method)
        digests = await file_digests(request)
        key = job_key(request, method, models, digests, self._stages.face_model)
        compared = embeds_faces(request)
        folder = folder_of(self._jobs, key)
        fresh = not folder.exists()
        shared = analysis_key(digests[request.footage], self._stages.face_model, embeds=compared)
        async with self._workspace(folder) as workspace, self._shared_analysis(shared, digests, workspace, on_progress) as kept:
            journal = Journal(workspace.folder / JOURNAL, self._store, partial(self._ledger.hold, workspace.folder))
            analysis = await FootageAnalysis.open(self._stages, method, info, workspace, threads=request.threads)
            info = analysis.info
            shown = await asyncio.to_thread(shown_video, request, info, speech)
            await asyncio.to_thread(self._check_disks, workspace, journal, info, shown, encoder, lines)
            passes = DubPasses(
                request=request,
                analysis=analysis,
                kept=kept,
                journal=journal,
                key=key,
                people_key=people_key(shared, method, models, self._stages.face_model),
                store=self._store,
                ledger=self._ledger,
                on_progress=on_progress,
                digests=digests,
                reference=await self._reference(workspace, on_progress, embed=compared),
            )
            # 2. Analyse: faces of every frame, and features of the speech. 3. Enrol the people, predict the mouths, and choose the
            # frames that show them.
            on_footage(*info.video.size)
            video, parts = await self._parts(passes, lines, speech, shown, embed=compared)
            plan = joined_plan([part.plan for part in parts])
            self._analysed = True
            # 4. Claim: contents of the video's manifest and watermark.
            claim: Claim | None = None
            seal: VideoSeal | None = None
            mark: Mark | None = None
            dubbed = bool(plan.rendered().any())
            if self._sealer is not None:
                claim = video_claim(request, video.info, plan, models, digests, key)
                mark = self._sealer.mark(claim)
                claim = replace(claim, watermark=video_watermark(mark, dubbed=dubbed).payload)
                seal = self._sealer.seal(claim, request.output, takes_over=self._takes_over)
            # What the result says is read before the video has its name: an error leaves no video.
            channels = await asyncio.to_thread(about_channels, request, info)
            mouths = await asyncio.to_thread(
                mouth_samples, plan, video.faces, None if lines else parts[0].mouths, video.info.video.reduction
            )
            # 5. Render windows, composite and encode.
            sound = await asyncio.to_thread(sound_of, request, speech, shown)
            writer = await asyncio.to_thread(
                open_writer, request, video.info, sound.sound, dubbed=dubbed, takes_over=self._takes_over, seal=seal
            )
            computed, reused = journal.computed, journal.reused
            facts = await self._rendered(passes, video, parts, writer, mark)
            learning_s = sum(part.person.seconds for part in parts)
            times = StageTimes(
                stages=self._clock.stages(),
                frames=video.info.video.num_frames,
                end_to_end_s=time.perf_counter() - began - learning_s,
                personalize_s=learning_s,
                cpu_s=time.process_time() - used,
            )
            adopted = kept.is_adopted and not workspace.redone_passes
            if fresh and not (lines or request.preview or kept.has_waited) and (adopted or not kept.is_adopted):
                await asyncio.to_thread(self._store_pace, info, video, plan, times, tracks=not adopted)
        return DubOutcome(
            written=writer.report,
            info=info,
            video=video.info,
            plan=plan,
            actor=parts[0].person.actor,
            parts=tuple(_outcome_of(part, line) for part, line in zip_longest(parts, request.lines)),
            facts=facts,
            windows_computed=journal.computed - computed,
            windows_reused=journal.reused - reused,
            times=times,
            watermark=video_watermark(mark, dubbed=dubbed),
            mouths=mouths,
            records=None if lines else parts[0].records,
            undubbed=about_no_frame(plan, parts[0].person.unlearned),
            claim=claim,
            begin=shown.begin if request.fit in ("cut", "pad") and not method.own_timeline else Fraction(0),
            analysis_reused=adopted,
            warnings=[
                *(about_preview(video.info, shown) if request.preview else ()),
                *about_pictures(info),
                *channels,
                *(about_left_out(info) if request.own_timeline else ()),
                *_about_parts(parts, request.lines, info, whole_footage=not request.own_timeline and not request.preview),
                *about_scale(sound.scale_db),
                *about_damage(facts),
                *about_redone(workspace, journal),
                *(seal.warnings if seal is not None else ()),
            ],
        )

    async def _parts(
        self, passes: DubPasses, lines: Sequence[range], speech: Speech, shown: VideoInfo, *, embed: bool
    ) -> tuple[TrackedVideo, list[DubPart]]:
        """Return the video that is dubbed in place, and the faces that are dubbed in it.

        Args:
            lines: frames of the lines of a scene; empty: the dub is of one person.
            speech: the new speech of a dub without lines.
            shown: the picture of the video (`shown_video`).
            embed: whether embeddings of the faces are computed, by which people are compared.
        """
        analysis, tracking = passes.analysis, self._track(passes, embed=embed)
        if lines:
            await gather_both(tracking, self._extract_own_sound(analysis))
            video, parts = analysis.video, await SceneLines(passes).parts(lines)
        else:
            _, extent = await gather_both(tracking, self._extract_sounds(analysis, speech, shown))
            person = await passes.person()
            video = await (passes.background(person, shown) if self._request.own_timeline else passes.in_place(person, shown))
            parts = [await passes.part(video, shown, person, extent)]
        await self._check_footage(passes.kept)
        await passes.kept.keep(analysis.workspace)
        for part in parts:
            if (chosen := part.person.chosen) is not None:
                _log.info("face_chosen", job=analysis.workspace.folder.name, face=chosen.face_id, why=chosen.why)
        return await asyncio.to_thread(self._written, video, speech), parts

    async def _check_footage(self, kept: KeptAnalysis) -> None:
        """Check that the footage is the file that was hashed. A program may replace it while the dub waits or analyses.

        Raises:
            InvalidRequestError, MediaUnsupportedError: as `KeptAnalysis.check_file`.
        """
        try:
            await kept.check_file(self._request.footage, self._versions[self._request.footage])
        except InvalidRequestError:
            self._is_exchanged = True
            raise

    async def _rendered(
        self, passes: DubPasses, video: TrackedVideo, parts: Sequence[DubPart], writer: VideoWriter, mark: Mark | None
    ) -> VideoFacts:
        """Render the mouths and write the video, unless a program exchanges a file of the dub meanwhile.

        Raises:
            DubstageError: as `DubPasses.write` and `_check_again`.
        """
        check = partial(self._check_again, passes.digests)
        try:
            return await passes.write(video, parts, writer, self._clock, mark, check_files=check)
        except MediaUnsupportedError:
            await in_thread(check)  # a file that was exchanged is not damaged
            raise

    def _check_again(self, digests: Mapping[Path, str]) -> None:
        """Check that the files of the dub are still those that were hashed, after the last frame was read. Blocks.

        A file that is gone was whole when it was read.

        Raises:
            InvalidRequestError: a file has other contents.
            MediaUnsupportedError: as `check_unchanged`.
        """
        try:
            for file, field in files_of(self._request).items():
                if file.exists():
                    check_unchanged(file, self._versions.get(file), digests[file], field)
        except InvalidRequestError:
            self._is_exchanged = True
            raise

    async def _track(self, passes: DubPasses, *, embed: bool) -> None:
        """Find all faces of the footage, and keep them unless a consent record has to be compared first.

        Errors of the request that are found later, such as a face number that is not there, leave the faces to the next dub.
        """
        analysis = passes.analysis
        await analysis.track(lambda done: passes.on_progress("track", done, analysis.info.video.num_frames), embed=embed)
        if not any(compares_people(part) for part in self._request.parts):
            await self._check_footage(passes.kept)
            await passes.kept.publish(analysis.workspace)

    def _written(self, video: TrackedVideo, speech: Speech) -> TrackedVideo:
        """Return the video at the size in which the dub writes the frames: whole if the encoder refuses half the size. Blocks."""
        if not self._request.half_size:
            return video
        halved = video.halved()
        try:
            open_writer(self._request, halved.info, speech)
        except (InvalidRequestError, MediaUnsupportedError):
            return video
        return halved

    async def _extract_sounds(self, analysis: FootageAnalysis, speech: Speech, shown: VideoInfo) -> SpeechExtent:
        """Extract the features of the new speech, then the features of the footage's own sound, beside tracking.

        Tracking leaves the processor time for both.

        Args:
            speech: the new speech.
            shown: the picture of the video (`shown_video`).
        """
        end = shown.end
        if self._request.preview:
            # The last mouths of a preview depend on later speech, as those of the whole dub do. The whole dub reads speech up to
            # the end of the footage, or, with a timeline of its own, all of the speech.
            end += SPEECH_AFTER_S
            if not self._request.own_timeline:
                end = min(end, analysis.info.video.duration)
        extent = await extract_speech(self._stages, shown.end, speech, analysis.workspace, analysis.method.features, end=end)
        await self._extract_own_sound(analysis)
        return extent

    async def _extract_own_sound(self, analysis: FootageAnalysis) -> None:
        """Extract the features of the footage's own sound if a later pass may need these."""
        request = self._request
        if analysis.info.audio and (request.actor is None or request.keeps_expression):
            # A pass that needs a sound that cannot be read raises the error.
            with suppress(MediaUnsupportedError):
                await analysis.extract_sound()
                if request.keeps_expression:
                    await analysis.extract_sound(whole=True)

    def _check_disks(
        self,
        workspace: Workspace,
        journal: Journal,
        info: MediaInfo,
        video: VideoInfo,
        encoder: EncoderChoice,
        lines: Sequence[range],
    ) -> None:
        """Check that there is room for all that the dub will write.

        Args:
            journal: finished steps of the job.
            video: the picture of the video (`shown_video`).
            encoder: how the video will be encoded.
            lines: frames of the lines of a scene; empty: the dub is of one person.

        Raises:
            StorageFullError: a file system has too little free space.
        """
        request = self._request
        records = records_need(
            workspace.folder,
            info.video.num_frames,
            motion_frames_for(video.end),
            own_sound=bool(info.audio),
            keeps_expression=request.keeps_expression,
            background=video if request.own_timeline else None,
            used=workspace.allowance.used,
        )
        output = output_needs(
            request.output,
            encoder.codec,
            video,
            self._store.folder,
            [(sum(map(len, lines)) or video.num_frames, 0)],
            stored=sum(ref.size_bytes for ref in journal.refs()),
            segmented=bool(lines) and encoder.has_segments,
        )
        jobs = self._jobs if self._disk.keeps_analysis else None
        check_space(request.footage, [records, *output], jobs, self._ledger, self._store)

    def _store_pace(self, info: MediaInfo, video: TrackedVideo, plan: FramePlan, times: StageTimes, *, tracks: bool) -> None:
        """Store the time of a dub that no earlier run began, for later estimates. Blocks.

        Args:
            tracks: whether the dub has tracked the footage, and not taken over a kept analysis.
        """
        request, rows = self._request, plan.row[plan.rendered()]
        learns = trains_networks(request, info)
        if learns and not tracks:
            # The kept analysis had the person, or the dub has trained networks: the time says nothing of the machine.
            return
        work = DubWork(
            method=request.method,
            pixels=info.video.width * info.video.height,
            footage_frames=info.video.num_frames if tracks else 0,
            frames=plan.num_frames,
            rendered=len(rows),
            scale=scale_of(video.faces, rows) if request.has_bank_detail else 0,
            own_timeline=request.own_timeline,
            personalized=int(learns),
        )
        PaceFile(self._jobs.parent).add(work, times, whole_process=not isinstance(self._untimed, RemoteStages))

    async def _reference(self, workspace: Workspace, on_progress: OnProgress, *, embed: bool) -> ReferenceFace | None:
        """Return the face whose appearance the video takes; None: the request names no reference."""
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
            remove_job(self._folder, self._ledger, self._store)

    def forget(self) -> None:
        """Remove what the job keeps for another run, and the kept analyses of the footage: the person may not be shown any more."""
        for folder in self._kept_folders:
            forget_analysis(folder, self._ledger, self._store)
        self.discard()

    def remove_video(self) -> None:
        """Remove the video, and the manifest that lies beside it. Blocks. What cannot be removed is logged."""
        for file in (self._request.output, sidecar_of(self._request.output)):
            try:
                remove_file(file)
            except OSError as problem:
                _log.warning("video_not_removed", video=str(file), problem=problem.strerror or str(problem))

    @asynccontextmanager
    async def _workspace(self, folder: Path) -> AsyncIterator[Workspace]:
        """Open the job's folder. If the work in the folder fails and no other run can continue from there, remove the folder."""
        with ExitStack() as stack:
            opening = partial(open_workspace, folder, self._operation, max_bytes=self._disk.max_bytes)
            workspace = await in_thread(lambda: stack.enter_context(opening()))
            self._folder = folder = workspace.folder
            try:
                await in_thread(self._ledger.begin, folder)
                await in_thread(workspace.describe, self._facts())
                yield workspace
            except BaseException as problem:
                # The same request fails the same way again, so no later run will use what was found until now. A scene with other
                # lines will, unless it was found in another file.
                of_request = isinstance(problem, RequestError | NoUsableFootageError)
                hopeless = of_request and not self._analysed and not self._request.lines
                if hopeless or self._is_exchanged or isinstance(problem, ActorError) or not workspace.resumable():
                    await in_thread(remove_locked, folder, self._ledger, self._store)
                raise
            if self._keeps_open:
                self._open = workspace
                stack.pop_all()

    @asynccontextmanager
    async def _shared_analysis(
        self, key: str, digests: Mapping[Path, str], workspace: Workspace, on_progress: OnProgress
    ) -> AsyncIterator[KeptAnalysis]:
        """Give the analysis of the footage, as other dubs find it."""
        folder: Path | None = None
        footage = Footage(self._request.footage.name, digests[self._request.footage])
        if self._disk.keeps_analysis:
            folder = folder_of(self._jobs, key)
            keys = analysis_keys(footage.sha256, self._stages.face_model)
            self._kept_folders = [folder_of(self._jobs, each) for each in keys]
        async with shared_analysis(folder, footage, workspace, self._store, self._ledger, on_progress) as kept:
            await self._check_footage(kept)
            yield kept

    def _facts(self) -> dict[str, object]:
        """Return what `dubstage jobs` shows of the job."""
        request = self._request
        return {
            "kind": "scene" if request.lines else "dub",
            "footage": request.footage.name,
            "speech": request.speech.name if request.speech is not None else "",
            "method": request.method,
            "actor": self._ledger.actor_id,
        }


def _lines_of(request: DubRequest, info: MediaInfo) -> list[range]:
    """Return the frames of the lines of a scene; empty: the dub is of one person. Blocks.

    Raises:
        InvalidRequestError: a line lies outside of the footage, or the footage is a single picture.
    """
    if request.lines and is_still(info):
        raise InvalidRequestError(f"{request.footage} is a single picture, and a scene needs a video", field="footage")
    return [check_line(line, info) for line in request.lines]


def _outcome_of(part: DubPart, line: DubLine | None) -> PartOutcome:
    chosen = part.person.chosen
    return PartOutcome(
        name=line.name.in_words(ROWS) if line is not None else "",
        frames=part.frames,
        num_dubbed=int(part.plan.rendered().sum()),
        face_id=part.person.face_id,
        why=chosen.why if chosen is not None else "the footage shows no face",
        actor_id=part.request.actor_record.actor_id if part.request.actor_record is not None else "",
        plan=part.plan,
        actor=part.person.actor,
        records=part.records if line is not None else None,
    )


def _about_parts(parts: Sequence[DubPart], lines: Sequence[DubLine], info: MediaInfo, *, whole_footage: bool) -> list[str]:
    """Return the warnings about all faces of a dub.

    Args:
        whole_footage: whether the video is as long as the footage, so that the length of speech is compared with the footage.
    """
    warnings: list[str] = []
    people: set[tuple[int | None, int]] = set()
    for part, line in zip_longest(parts, lines):
        who = (part.person.face_id, id(part.person.actor))
        warnings += _about_part(part, line, info, whole_footage=whole_footage, warned=who in people)
        people.add(who)
    return warnings


def _about_part(part: DubPart, line: DubLine | None, info: MediaInfo, *, whole_footage: bool, warned: bool) -> list[str]:
    """Return the warnings about one face of a dub. Warnings about a line begin with the name of the line.

    Args:
        whole_footage: as for `_about_parts`.
        warned: whether an earlier line has the warnings about this person.
    """
    person = part.person
    if line is None:
        speech = about_speech(part.extent, info) if whole_footage else []
        # A single picture shows no way of speaking, open mouth or not.
        mouth = [] if is_still(info) else about_mouth(person.actor)
        return [*speech, *mouth, *person.warnings, *about_voice(person.actor), *about_silence(part.plan)]
    cut = [f"the speech is longer than the rest of the footage: it is cut at {float(info.video.duration):.2f} s"]
    why = person.unlearned or line_reasons(part.plan) if not part.plan.rendered().any() else ""
    undubbed = [Text("no frame is dubbed: {why}", why=why)] if why else []
    of_person = [] if warned else [*about_mouth(person.actor), *person.warnings, *about_voice(person.actor)]
    warnings = [*(cut if part.extent.longer else []), *undubbed, *of_person, *about_silence(part.plan)]
    return [Text("{line}: {warning}", line=line.name, warning=warning) for warning in warnings]


def trains_networks(request: DubRequest, info: MediaInfo) -> bool:
    """Return whether a dub adapts networks to the people that it learns. A single picture and a preview train none."""
    return request.actor is None and request.enrol.trains and not request.preview and not is_still(info)
