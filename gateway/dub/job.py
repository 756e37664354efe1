"""One dub, from files to a file: the order of the passes, the job's folder, and the result.

Before the work begins, the disk space that the dub will take is compared with the free space of each file system. The sizes of
records and windows are exact for one face in every frame. The size of the video is the least that footage of many kinds took, so
that a dub that would fit is not refused.

After the footage is tracked and the features of the speech are extracted, the passes are: person, background, mouths, video.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import structlog

from dubstage.common.v1alpha1 import common_pb2
from gateway.async_utilities import in_thread
from gateway.dub.analysis import FootageAnalysis, folder_of, gather_both, hear_speech
from gateway.dub.backgrounds import match_head_motion, own_pose, rebased, retime, show_chosen, show_rotated
from gateway.dub.claim import video_claim, video_watermark
from gateway.dub.composite import TrackedVideo, VideoFacts
from gateway.dub.costs import DubWork, PaceFile
from gateway.dub.disk import MAX_JOB_BYTES, fillable_bytes, shown_bytes
from gateway.dub.enrol import EnrolledActor, actor_arrays, actor_from_arrays, actor_refs
from gateway.dub.face_choice import about_faces
from gateway.dub.face_records import embed_every
from gateway.dub.fit import cuts_of, shown_frames
from gateway.dub.footage import check_length
from gateway.dub.job_key import file_digests, job_key
from gateway.dub.journal import BlobLedger, Journal, OwnBlobs, step_key
from gateway.dub.messages import OnProgress, timeline_of
from gateway.dub.motion_clip import frame_seconds
from gateway.dub.native_boxes import scale_of
from gateway.dub.outcome import (
    DubOutcome,
    about_damage,
    about_left_out,
    about_mouth,
    about_no_frame,
    about_redone,
    about_scale,
    about_silence,
    about_speech,
    about_voice,
)
from gateway.dub.plan import Plan, make_plan
from gateway.dub.records import EXPRESSION_RECORD, FACE_RECORD, FEATURE_RECORD, MOTION_RECORD
from gateway.dub.reference import ReferenceFace, find_reference
from gateway.dub.render import VideoInputs, rendered_windows
from gateway.dub.request import DubRequest, check_output, fitted, has_own_timeline, open_speech, open_writer, sound_of
from gateway.dub.slow_expression import find_expression, target_mouths
from gateway.dub.speech import AlignedSpeech, MotionRequest, motion_frames_for, predict_motion, speech_duration
from gateway.dub.subjects import DubSubjects, check_subjects, compares_people
from gateway.dub.windows import window_config
from gateway.dub.workspace import JOURNAL, Workspace, open_workspace, remove_job, remove_locked
from gateway.media.background import own_timeline
from gateway.media.inspection import inspect_in_child
from gateway.media.sound import Speech
from gateway.media.stills import is_still
from gateway.media.types import MediaInfo, VideoInfo
from gateway.media.writer import VideoWriter
from gateway.provenance.binding import sidecar_of
from gateway.provenance.seal import Sealer, VideoSeal
from gateway.provenance.watermark.embedding import Mark
from gateway.safe_paths import remove_file
from gateway.stages.interface import Stages
from gateway.stages.opening import models_for
from gateway.stages.remote import RemoteStages
from gateway.stages.timing import StageClock, StageTimes, TimedStages
from services.common.array_types import Float32
from services.common.errors import ActorNotReadyError, InvalidRequestError, NoUsableFootageError, RequestError, StorageFullError
from services.common.face.crops import BOX_SIZE, pose_of_vector
from services.common.methods import method_named
from services.common.store.artefacts import ArtefactStore
from services.common.store.tensor_bytes import NamedArrays
from services.common.wire.messages import rational_to_proto, ref_from_proto

_VIDEO_BYTES: Final = {"h264": 0.006, "hevc": 0.006, "ffv1": 0.12, "prores": 0.2, "mpeg2video": 0.04}
"""Bytes per luma sample of a video, by codec: the least of 15 clips of 256 to 1920 pixels, with the quality that videos have."""
_SPOOL_BYTES: Final = 1 << 30
"""Most bytes of encoded pictures that lie beside the video while the video is muxed (gateway/media/muxer.py)."""


@dataclass(frozen=True, slots=True)
class DiskNeed:
    """Space that one part of a dub will take.

    Attributes:
        folder: where the part is written. The folder may not exist yet.
        num_bytes: bytes that are still to be written; less than 0: none.
        what: name of the part, such as `the rendered mouths`.
        remedy: option or setting that puts the part elsewhere.
    """

    folder: Path
    num_bytes: int
    what: str
    remedy: str


def records_need(
    folder: Path,
    num_frames: int,
    motion_frames: int,
    *,
    own_sound: bool,
    keeps_expression: bool,
    background: VideoInfo | None,
    used: int,
) -> DiskNeed:
    """Return the space that the records of a dub will take.

    Args:
        folder: the job's folder.
        motion_frames: frames of the motion grid in the video.
        own_sound: whether the footage has sound.
        keeps_expression: whether the video keeps the slow expression of the footage.
        background: picture of the background video of a dub with its own timeline; None: the footage is dubbed in place.
        used: bytes of records that an earlier run has written.
    """
    needed = num_frames * FACE_RECORD.itemsize + motion_frames * FEATURE_RECORD.itemsize
    shown = num_frames if background is None else background.num_frames
    needed += shown * MOTION_RECORD.itemsize
    if own_sound and keeps_expression:
        needed += motion_frames * FEATURE_RECORD.itemsize + num_frames * (MOTION_RECORD.itemsize + EXPRESSION_RECORD.itemsize)
    if background is not None:
        needed += shown * FACE_RECORD.itemsize + _video_bytes("ffv1", background, shown)
    return DiskNeed(folder, needed - used, "the job's records", "DUBSTAGE_DATA_DIR")


def windows_need(folder: Path, num_frames: int, scale: int, journalled: int) -> DiskNeed:
    """Return the space that the journalled windows of a dub will take in a local artefact store.

    Args:
        folder: the artefact store.
        num_frames: frames whose mouth is rendered.
        scale: native pixels per box pixel (native_boxes.py); 0: not known yet, counted as 1.
        journalled: bytes of the windows that an earlier run has stored.
    """
    needed = num_frames * BOX_SIZE * BOX_SIZE * (4 + max(1, scale) ** 2)
    return DiskNeed(folder, needed - journalled, "the rendered mouths", "DUBSTAGE_ARTEFACTS_URL")


def video_need(output: Path, codec: str, video: VideoInfo) -> DiskNeed:
    """Return the space that a video will take, with the encoded pictures that wait beside the video for the end of the dub."""
    size = _video_bytes(codec, video, video.num_frames)
    return DiskNeed(output.parent, size + min(size, _SPOOL_BYTES), "the video and the encoded pictures beside it", "--output")


def check_disks(footage: Path, needs: Sequence[DiskNeed]) -> None:
    """Check that each file system has room for the files that will be written to the file system. Blocks.

    Raises:
        StorageFullError: a file system has too little free space. The message has the figures and the remedies.
    """
    disks: dict[int, list[DiskNeed]] = {}
    for need in needs:
        if need.num_bytes > 0:
            disks.setdefault(_disk_of(_existing(need.folder)), []).append(need)
    for parts in disks.values():
        free = fillable_bytes(_existing(parts[0].folder))
        if sum(part.num_bytes for part in parts) > free:
            raise _too_full(footage, parts, free)


def _too_full(footage: Path, parts: Sequence[DiskNeed], free: int) -> StorageFullError:
    needed = ", ".join(f"about {shown_bytes(part.num_bytes)} for {part.what} in {part.folder}" for part in parts)
    return StorageFullError(
        f"the disk has too little space to dub {footage}: {needed}; {shown_bytes(free)} of the disk may be filled. Free some "
        f"(`dubstage jobs clean` removes unfinished jobs), or choose another disk with {_either(part.remedy for part in parts)}",
        subject=str(parts[0].folder),
    )


def _video_bytes(codec: str, video: VideoInfo, num_frames: int) -> int:
    return int(_VIDEO_BYTES[codec] * video.width * video.height * num_frames)


def _disk_of(folder: Path) -> int:
    """Return the number of the file system that holds a folder."""
    return folder.stat().st_dev


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest folder above it that exists."""
    found = Path(os.path.abspath(folder))
    while not found.exists():
        found = found.parent
    return found


def _either(names: Iterable[str]) -> str:
    *first, last = dict.fromkeys(names)
    return f"{', '.join(first)} or {last}" if first else last


@dataclass(frozen=True, slots=True)
class DubbedPerson:
    """The person of a dub.

    Attributes:
        face_id: face to dub; None: the footage shows no face.
        actor: what was learned of the person; None: the person cannot be dubbed.
        seconds: wall time of learning the person.
        unlearned: why the person could not be learned from the footage; empty: the person is known, or there is no face.
        warnings: what the user must be told.
    """

    face_id: int | None
    actor: EnrolledActor | None
    seconds: float = 0.0
    unlearned: str = ""
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class DubPasses:
    """Passes of one run of a dub. Each pass takes finished work of an earlier run from the workspace or the journal.

    Attributes:
        analysis: the footage, tracked.
        journal: finished steps of the job.
        store: artefacts of the journal.
        ledger: counts the artefacts of the job.
        on_progress: called with every frame and step.
        digests: SHA-256 of the files of the request, hexadecimal.
        reference: face whose appearance the video takes; None: the actor's own appearance.
    """

    request: DubRequest
    analysis: FootageAnalysis
    journal: Journal
    key: str
    store: ArtefactStore
    ledger: BlobLedger
    on_progress: OnProgress
    digests: Mapping[Path, str]
    reference: ReferenceFace | None = None

    async def person(self) -> DubbedPerson:
        """Return the face to dub and the actor: the actor of the request, or one that is learned from the footage.

        Raises:
            InvalidRequestError: the face that the request names is not in the footage.
            ConsentOtherSubjectError, ConsentFaceUncertainError: a consent record is not about the person whom the dub shows.
            NoUsableFootageError: the person cannot be learned, and a video with its own timeline needs the person.
        """
        analysis = self.analysis
        face_id = await analysis.select(self.request.face)
        if face_id is None:
            return DubbedPerson(None, None)
        people = DubSubjects(self.digests, analysis.face, self.reference.face if self.reference is not None else None)
        await check_subjects(self.request, people, analysis.stages, self.store, analysis.workspace.folder)
        several = about_faces(analysis.index, face_id, self.request.face)
        if self.request.actor is not None:
            return DubbedPerson(face_id, self.request.actor, warnings=several)
        began = time.perf_counter()
        try:
            actor = await self._enrolled()
        except NoUsableFootageError as problem:
            if is_still(analysis.info) or analysis.method.own_timeline:
                raise
            return DubbedPerson(face_id, None, time.perf_counter() - began, problem.message, several)
        return DubbedPerson(face_id, actor, time.perf_counter() - began, warnings=several)

    async def in_place(self, person: DubbedPerson) -> TrackedVideo:
        """Return the footage itself as the video to dub, predict the motion of its frames, and find the person's slow
        expression.
        """
        if person.actor is not None:
            info = self.analysis.info
            await self._predict(person.actor, timeline_of(info), info.video.num_frames)
            if self.request.keeps_expression:
                await find_expression(self.analysis, person.actor, self.on_progress)
        return self.analysis.video

    async def background(self, person: DubbedPerson, duration: Fraction) -> TrackedVideo:
        """Return the background video of a dub with its own timeline, and predict the motion of its frames.

        Args:
            person: who is dubbed.
            duration: length of the video, seconds.

        Raises:
            NoUsableFootageError: the footage shows no face that can be learned.
            InvalidRequestError: the footage is a still, and the actor has no identity.
            DubstageError: from the stages.
        """
        request, analysis, actor = self.request, self.analysis, person.actor
        if actor is None:
            raise NoUsableFootageError(
                f"{request.footage} shows no face that can be learned: a video with a timeline of its own needs one",
                subject=str(request.footage),
            )
        rate = own_timeline(analysis.info, 1).video.average_rate
        await self._predict(actor, common_pb2.Timeline(frame_rate=rational_to_proto(rate)), int(duration * rate))
        records = analysis.workspace.motion
        motion = await asyncio.to_thread(lambda: records.read(0, records.num_rows))

        def on_frame(done: int, total: int) -> None:
            self.on_progress("background", done, total)

        if is_still(analysis.info):
            if actor.identity is None:
                raise InvalidRequestError(
                    "a single picture needs an actor with an identity: enrol the person again for this method", field="actor"
                )
            poses = rebased(motion["pose"], actor.pose, await asyncio.to_thread(own_pose, analysis))
            return await show_rotated(analysis, actor.identity, poses, motion["blink"], on_frame)
        if analysis.method.motion.moves_head:
            return await show_chosen(analysis, await match_head_motion(analysis, motion["pose"], actor.pose), on_frame)
        if request.fit == "retime":
            return await show_chosen(analysis, await retime(analysis, motion["speech_probability"]), on_frame)
        chosen = shown_frames(request.fit, analysis.info.video, len(motion))
        return await show_chosen(analysis, chosen, on_frame, cuts_of(chosen, analysis.index.shot_cuts))

    def plan(self, video: TrackedVideo, person: DubbedPerson) -> Plan:
        """Return what happens to every frame of the video."""
        if person.actor is not None:
            return make_plan(video.index, person.face_id, self._speech_probability())
        plan = make_plan(video.index, person.face_id, np.ones(video.info.video.num_frames, np.float32))
        unknown = np.where(plan.rendered(), common_pb2.FRAME_REASON_LOW_CONFIDENCE, plan.reason)
        return replace(plan, reason=unknown.astype(np.int32))

    async def write(
        self,
        video: TrackedVideo,
        plan: Plan,
        person: DubbedPerson,
        writer: VideoWriter,
        clock: StageClock,
        mark: Mark | None = None,
    ) -> VideoFacts:
        """Render the mouths of the planned frames and write the video.

        Args:
            video: what is dubbed in place.
            plan: what happens to every frame of the video.
            person: who is dubbed.
            writer: gets the frames.
            clock: counts the time of decoding, compositing and encoding.
            mark: watermark of the dubbed mouths; None: they get none.

        Raises:
            DubstageError: from the stages, or the video cannot be written.
        """
        request, analysis, actor, key = self.request, self.analysis, person.actor, self.key
        inputs: VideoInputs | None = None
        if actor is not None:
            # A person who had to be learned again is another actor: windows of an earlier actor are not reused.
            key = step_key("film", job=key, actor=[ref.sha256 for ref in actor_refs(actor).values()])
            face, pose = self.reference, pose_of_vector(actor.pose)
            reference = face.in_shape_of(actor.geometry, pose) if face is not None else None
            scale = await asyncio.to_thread(scale_of, video.faces, plan.row[plan.rendered()])
            await asyncio.to_thread(self._check_disks, video, plan, writer, scale)
            config = window_config(analysis.method, actor, request.warp, reference, detail_scale=scale)
            spoken = (
                AlignedSpeech(analysis.workspace.speech, frame_seconds(video.info)) if analysis.method.renderer.speech else None
            )
            heard = spoken.around if spoken is not None else None
            inputs = await VideoInputs(
                analysis.stages, config, plan.rendered(), plan.row, video.faces, self._mouths, heard
            ).with_insides(lambda done: self.on_progress("insides", done, plan.num_frames))
        with writer:
            facts = await video.write(
                writer,
                rendered_windows(inputs, plan.num_frames, self.journal, key),
                plan,
                threads=request.threads,
                clock=clock,
                on_progress=lambda done: self.on_progress("dub", done, plan.num_frames),
                mark=mark,
            )
            await in_thread(self.ledger.confirm)
            await in_thread(writer.finish, self.ledger.confirm)
        return facts

    def _check_disks(self, video: TrackedVideo, plan: Plan, writer: VideoWriter, scale: int) -> None:
        """Check that there is room for the rendered mouths, whose number and size are known now, and for the video.

        Raises:
            StorageFullError: a file system has too little free space.
        """
        needs = [video_need(self.request.output, writer.choice.codec, video.info.video)]
        if self.store.folder is not None:
            stored = sum(ref.size_bytes for ref in self.journal.refs())
            needs.append(windows_need(self.store.folder, int(plan.rendered().sum()), scale, stored))
        check_disks(self.request.footage, needs)

    async def _enrolled(self) -> EnrolledActor:
        step = step_key("enrol", job=self.key)
        found = await asyncio.to_thread(self.journal.find, step, self._journalled_actor)
        if found is not None:
            return found
        folder = self.analysis.workspace.folder
        actor = await self.analysis.enrol(
            self.request.enrol,
            lambda name, done, total: self.on_progress(f"enrol {name}", done, total),
            on_artefact=lambda ref: in_thread(self.ledger.hold, folder, ref_from_proto(ref, "artefact")),
        )
        await in_thread(self.journal.record, step, *actor_arrays(actor))
        return actor

    def _journalled_actor(self, stored: NamedArrays) -> EnrolledActor:
        """Return the actor that a journal's arrays hold.

        Raises:
            ValueError, ArtefactNotFoundError, ArtefactCorruptError, InvalidRequestError: the arrays hold no actor, or an artefact
                of the actor cannot be used.
        """
        actor = actor_from_arrays(stored)
        for ref in actor_refs(actor).values():
            self.store.check(ref_from_proto(ref, "artefact"))
        return actor

    async def _predict(self, actor: EnrolledActor, timeline: common_pb2.Timeline, num_frames: int) -> None:
        """Fill the MOTION_RECORDs of the workspace."""
        analysis, workspace = self.analysis, self.analysis.workspace
        workspace.motion.clear()
        motion = MotionRequest(
            predictor=analysis.method.motion,
            style=actor.style,
            timeline=timeline,
            num_frames=num_frames,
            block=self.request.feature_block,
            expressiveness=self.request.expressiveness,
        )

        def predicted(done: int) -> None:
            self.on_progress("motion", done, num_frames)

        await predict_motion(analysis.stages, motion, workspace.speech, workspace.motion, on_frames=predicted)

    def _mouths(self, begin: int, end: int) -> Float32:
        return target_mouths(self.analysis.workspace, begin, end)

    def _speech_probability(self) -> Float32:
        motion = self.analysis.workspace.motion
        # Copies, because a view of one field keeps whole records: 137 MB of a video of two hours.
        parts = [motion.read(begin, begin + 512)["speech_probability"].copy() for begin in range(0, motion.num_rows, 512)]
        return np.concatenate(parts)


_log = structlog.stdlib.get_logger("dubstage.jobs")


class DubJob:
    """A dub in a folder of its own. A run of the same request continues an interrupted run, and gives the same bytes.

    Inside a `with` block of the job, the folder stays open and locked after `run`, so that a report can read the records. No other
    process works in the folder or removes the folder until the block ends.

    Args:
        ledger: counts the artefacts of the job; None: no other job shares them.
        max_bytes: most bytes of the job's folder.
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
        max_bytes: int = MAX_JOB_BYTES,
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
        # 1. Open: the request's files, the time of the longest call, the job's folder, and free space.
        request = self._request
        began, used = time.perf_counter(), time.process_time()
        method = method_named(request.method)
        info = await inspect_in_child(request.footage)
        has_own_timeline(request, info)
        speech = await asyncio.to_thread(open_speech, request, info)
        self._request = request = await asyncio.to_thread(fitted, request, info, speech)
        own = has_own_timeline(request, info)
        encoder = await asyncio.to_thread(check_output, request, info, speech)
        if self._sealer is not None:
            self._sealer.check_place(request.output, overwrite=request.overwrite)
        models = await models_for(self._stages, method)
        digests = await file_digests(request)
        key = job_key(request, method, models, digests, self._stages.face_model)
        compared = compares_people(request)
        place = folder_of(self._jobs, key)
        fresh = not place.exists()
        if fresh:
            # The folder of an interrupted run may have the faces of all frames.
            await check_length(
                self._untimed, info, threads=request.threads, embed_every=embed_every(info.video.num_frames) if compared else 0
            )
        async with self._workspace(place) as workspace:
            folder = workspace.folder
            journal = Journal(folder / JOURNAL, self._store, lambda ref: self._ledger.hold(folder, ref))
            analysis = await FootageAnalysis.open(self._stages, method, info, workspace, threads=request.threads)
            info = analysis.info
            reference = await self._reference(workspace, on_progress, embed=compared)
            duration = await asyncio.to_thread(video_duration, info, speech) if own else info.video.duration
            await asyncio.to_thread(self._check_disks, workspace, journal, info, duration, encoder.codec, own=own)
            # 2. Analyse: faces of every frame, and features of the speech.
            _, extent = await gather_both(
                analysis.track(lambda done: on_progress("track", done, info.video.num_frames), embed=compared),
                hear_speech(self._stages, duration, speech, workspace, method.features),
            )
            passes = DubPasses(
                request=request,
                analysis=analysis,
                journal=journal,
                key=key,
                store=self._store,
                ledger=self._ledger,
                on_progress=on_progress,
                digests=digests,
                reference=reference,
            )
            # 3. Enrol the person, predict the mouths, and choose the frames that show them.
            person = await passes.person()
            video = await passes.background(person, duration) if own else await passes.in_place(person)
            plan = passes.plan(video, person)
            self._analysed = True
            # 4. Claim: contents of the video's manifest and watermark.
            seal: VideoSeal | None = None
            mark: Mark | None = None
            dubbed = bool(plan.rendered().any())
            if self._sealer is not None:
                claim = video_claim(request, video.info, plan, models, digests, key)
                mark = self._sealer.mark(claim)
                claim = replace(claim, watermark=video_watermark(mark, dubbed=dubbed).payload)
                seal = self._sealer.seal(claim, request.output, takes_over=self._takes_over)
            # 5. Render windows, composite and encode.
            sound = await asyncio.to_thread(sound_of, request, speech, video.info.video.duration)
            writer = await asyncio.to_thread(
                open_writer, request, video.info, sound.sound, dubbed=dubbed, takes_over=self._takes_over, seal=seal
            )
            computed, reused = journal.computed, journal.reused
            facts = await passes.write(video, plan, person, writer, self._clock, mark)
            times = StageTimes(
                stages=self._clock.stages(),
                frames=video.info.video.num_frames,
                end_to_end_s=time.perf_counter() - began - person.seconds,
                personalize_s=person.seconds,
                cpu_s=time.process_time() - used,
            )
            if fresh:
                await asyncio.to_thread(self._store_pace, request, info, video, plan, times, own=own)
        return DubOutcome(
            written=writer.report,
            info=info,
            video=video.info,
            plan=plan,
            actor=person.actor,
            face_id=person.face_id,
            facts=facts,
            windows_computed=journal.computed - computed,
            windows_reused=journal.reused - reused,
            times=times,
            watermark=video_watermark(mark, dubbed=dubbed),
            undubbed=about_no_frame(plan, person.unlearned),
            warnings=[
                *(about_left_out(info) if own else [*about_speech(extent, info), *about_mouth(person.actor)]),
                *person.warnings,
                *about_voice(person.actor),
                *about_silence(plan),
                *about_scale(sound.scale_db),
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
            journal: finished steps of the job.
            duration: length of the video, seconds.
            own: whether the video has a timeline of its own.

        Raises:
            StorageFullError: a file system has too little free space.
        """
        request, video = self._request, info.video
        if own:
            video = own_timeline(info, int(duration * own_timeline(info, 1).video.average_rate)).video
        records = records_need(
            workspace.folder,
            info.video.num_frames,
            motion_frames_for(duration),
            own_sound=bool(info.audio),
            keeps_expression=request.keeps_expression,
            background=video if own else None,
            used=workspace.allowance.used,
        )
        needs = [records, video_need(request.output, codec, video)]
        if self._store.folder is not None:
            stored = sum(ref.size_bytes for ref in journal.refs())
            needs.append(windows_need(self._store.folder, video.num_frames, 0, stored))
        check_disks(request.footage, needs)

    def _store_pace(
        self, request: DubRequest, info: MediaInfo, video: TrackedVideo, plan: Plan, times: StageTimes, *, own: bool
    ) -> None:
        """Store the time of a dub that no earlier run began, for later estimates. Blocks."""
        options, rows = request.enrol, plan.row[plan.rendered()]
        work = DubWork(
            method=request.method,
            pixels=info.video.width * info.video.height,
            footage_frames=info.video.num_frames,
            frames=plan.num_frames,
            rendered=len(rows),
            scale=scale_of(video.faces, rows),
            own_timeline=own,
            personalizes=request.actor is None and (options.personalize_renderer or options.personalize_motion),
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

    def remove_video(self) -> None:
        """Remove the video, and the manifest that lies beside it. Blocks. What cannot be removed is told in the log."""
        for file in (self._request.output, sidecar_of(self._request.output)):
            try:
                remove_file(file)
            except OSError as problem:
                _log.warning("film_not_removed", video=str(file), problem=problem.strerror or str(problem))

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
                hopeless = not self._analysed and isinstance(problem, RequestError | NoUsableFootageError)
                if hopeless or isinstance(problem, ActorNotReadyError) or not workspace.resumable():
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


def video_duration(info: MediaInfo, speech: Speech) -> Fraction:
    """Return the length of a video that is as long as the speech, seconds: a whole number of frames."""
    rate = own_timeline(info, 1).video.average_rate
    return math.ceil(speech_duration(speech) * rate) / rate
