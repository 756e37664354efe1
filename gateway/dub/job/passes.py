"""Passes of a dub over tracked footage: person, background, mouths, video."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from dubstage.common.v1 import common_pb2
from gateway.async_utilities import entered_in_threads, in_thread
from gateway.dub.analyse.face_choice import ChosenFace, about_faces
from gateway.dub.analyse.face_records import FaceIndex, TrackedVideo
from gateway.dub.analyse.frame_plan import FramePlan, make_plan, silent_frames, strength_of
from gateway.dub.analyse.motion_clip import frame_seconds
from gateway.dub.analyse.shot_looks import ShotLooks
from gateway.dub.convert import timeline_of
from gateway.dub.job.kept_analysis import KeptAnalysis, check_space
from gateway.dub.job.outcome import TargetRecords
from gateway.dub.job.people import PeopleOfFootage
from gateway.dub.learn.analysis import FootageAnalysis
from gateway.dub.learn.enrol import EnrolledActor
from gateway.dub.learn.reference import ReferenceFace
from gateway.dub.learn.slow_expression import find_expression
from gateway.dub.learn.subjects import DubSubjects, check_subjects
from gateway.dub.learn.target_mouths import TargetMouths, expressive_mouths
from gateway.dub.progress import OnProgress
from gateway.dub.render.all_windows import DubbedMouth, VideoInputs, rendered_windows
from gateway.dub.render.backgrounds import match_head_motion, own_pose, rebased, retime, show_chosen, show_rotated
from gateway.dub.render.composite import VideoCompositor, VideoFacts
from gateway.dub.render.segments import SegmentStore
from gateway.dub.render.windows import window_config
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.sound.fit import cuts_of, shown_frames
from gateway.dub.sound.speech import AlignedSpeech, MotionRequest, SpeechExtent, predict_motion
from gateway.dub.state.disk_needs import output_needs
from gateway.dub.state.journal import BlobLedger, Journal, step_key
from gateway.dub.state.native_boxes import scale_of
from gateway.dub.state.records import RecordFile, RecordSpan
from gateway.media.background import own_timeline
from gateway.media.stills import is_still
from gateway.media.types import VideoInfo
from gateway.media.writer import VideoWriter
from gateway.provenance.watermark.embedding import Mark
from gateway.stages.timing import StageClock
from services.common.array_types import Bool, Float32, Int64
from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.common.face.crops import pose_of_vector
from services.common.store.artefacts import ArtefactStore
from services.common.texts import Text
from services.common.wire.convert import rational_to_proto
from services.common.wire.timeline import MOTION_RATE


class VideoProgress:
    """Progress of the last pass: frames whose mouth is rendered count half, written frames the other half.

    Rendering is a few windows ahead of writing. If only written frames counted, a short video would seem unbegun for half of the
    pass.

    Args:
        wanted: for each face that is dubbed the frames whose mouth is rendered, bool [T].
        total: frames of the video, T.
        report: called with finished and all frames whenever the number of finished ones grows.
    """

    def __init__(self, wanted: Sequence[Bool], total: int, report: Callable[[int, int], None]) -> None:
        self._left = [frames.copy() for frames in wanted]
        self._wanted = sum(int(frames.sum()) for frames in wanted)
        self._rendered, self._written, self._total = 0, 0, total
        self._report = report
        self._reported = -1

    def rendered(self, face: int, frame: int) -> None:
        """Count a frame of one face, once."""
        if self._left[face][frame]:
            self._left[face][frame] = False
            self._rendered += 1
            self._tell()

    def written(self, frames: int) -> None:
        """Count the first frames of the video as written. Their mouths are rendered, now or in an earlier run."""
        for left in self._left:
            self._rendered += int(left[self._written : frames].sum())
            left[self._written : frames] = False
        self._written = max(self._written, frames)
        self._tell()

    def _tell(self) -> None:
        rendered = self._rendered / self._wanted if self._wanted else self._written / self._total
        done = int((rendered + self._written / self._total) / 2 * self._total)
        if done > self._reported:
            self._reported = done
            self._report(done, self._total)


@dataclass(frozen=True, slots=True)
class DubbedPerson:
    """The person of a dub.

    Attributes:
        face_id: face to dub; None: the footage shows no face.
        actor: what was learned of the person; None: the person cannot be dubbed.
        seconds: wall time of learning the person.
        unlearned: why the person could not be learned from the footage; empty: the person is known, or there is no face.
        warnings: sentences for the user.
        chosen: the face, and why it was chosen; None: the footage shows no face.
    """

    face_id: int | None
    actor: EnrolledActor | None
    seconds: float = 0.0
    unlearned: str = ""
    warnings: list[str] = field(default_factory=list)
    chosen: ChosenFace | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DubPart:
    """One face in the frames of a dub, or of one line of a scene.

    Attributes:
        request: the dub of this face.
        person: who is dubbed.
        plan: what happens to every frame of the video.
        frames: frames of the dub or of the line.
        key: key of the windows, without the actor.
        mouths: returns the target mouths of frames of the video, as VideoInputs takes them.
        speech: returns the speech features of frames of the video, as VideoInputs takes them; None: the renderer takes none.
        extent: how the speech fits the frames.
        records: target of the frames.
    """

    request: DubRequest
    person: DubbedPerson
    plan: FramePlan
    frames: range
    key: str
    mouths: TargetMouths
    speech: Callable[[Int64], Float32] | None
    extent: SpeechExtent
    records: TargetRecords

    def rendered(self) -> Bool:
        """Return the frames of the video in which the mouth is rendered, bool [T]."""
        inside = np.zeros(self.plan.num_frames, np.bool_)
        inside[self.frames.start : self.frames.stop] = True
        return np.asarray(inside & self.plan.rendered())


def plan_of(
    index: FaceIndex,
    person: DubbedPerson,
    motion: RecordFile | RecordSpan,
    mouths: TargetMouths,
    frames: range,
    spoken: Sequence[range] = (),
) -> FramePlan:
    """Return what happens to every frame of the video. Blocks. A person who could not be learned is not dubbed: LOW_CONFIDENCE.

    Args:
        index: faces of the video.
        person: who is dubbed.
        motion: MOTION_RECORDs of `frames`; not read if the person could not be learned.
        mouths: target mouths of `frames`; as `motion`.
        frames: all frames of the video, or those of a line.
        spoken: frames of all lines of this face.
    """
    if person.actor is not None:
        silent = silent_frames(motion, mouths, frames, person.actor.speaking)
        return make_plan(index, person.face_id, silent, frames, spoken)
    plan = make_plan(index, person.face_id, np.zeros(len(frames), np.bool_), frames, spoken)
    unknown = np.where(plan.rendered(), common_pb2.FRAME_REASON_LOW_CONFIDENCE, plan.reason)
    return replace(plan, reason=unknown.astype(np.int32))


@dataclass(frozen=True, kw_only=True, slots=True)
class DubPasses:
    """Passes of one run of a dub. Each pass takes finished work of an earlier run from the workspace or the journal.

    Attributes:
        analysis: the footage, tracked.
        kept: the analysis as other dubs find it.
        journal: finished steps of the job.
        key: key of the job.
        people_key: key of what is learned of people of the footage.
        store: artefacts of the journal.
        ledger: counts the blobs of the job.
        on_progress: called with every frame and step.
        digests: SHA-256 of the files of the request, hexadecimal.
        reference: face whose appearance the video takes; None: the actor's own appearance.
    """

    request: DubRequest
    analysis: FootageAnalysis
    kept: KeptAnalysis
    journal: Journal
    key: str
    people_key: str
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
        reference = self.reference.face if self.reference is not None else None
        for face in analysis.faces:
            people = DubSubjects(self.digests, face, reference)
            await check_subjects(self.request, people, analysis.stages, self.store, analysis.workspace.folder)
        several = about_faces(analysis.index, analysis.chosen, self.request.face) if analysis.chosen is not None else []
        if self.request.actor is not None:
            return DubbedPerson(face_id, self.request.actor, warnings=several, chosen=analysis.chosen)
        began = time.perf_counter()
        try:
            actor = await self._enrolled()
        except NoUsableFootageError as problem:
            if is_still(analysis.info) or analysis.method.own_timeline:
                raise
            return DubbedPerson(
                face_id, None, time.perf_counter() - began, Text("{problem}", problem=problem), several, analysis.chosen
            )
        return DubbedPerson(face_id, actor, time.perf_counter() - began, warnings=several, chosen=analysis.chosen)

    async def in_place(self, person: DubbedPerson, shown: VideoInfo) -> TrackedVideo:
        """Return the footage itself, or a span for a preview, as the video to dub, predict the motion of its frames and of those
        before, and find the person's slow expression.

        Args:
            person: who is dubbed.
            shown: the picture of the video (`shown_video`).
        """
        if person.actor is not None:
            await self._predict(person.actor, timeline_of(self.analysis.info), _stop_of(shown))
            if self.request.keeps_expression:
                await find_expression(self.analysis, person.actor, self.on_progress)
        return self.analysis.video.span(shown)

    async def background(self, person: DubbedPerson, shown: VideoInfo) -> TrackedVideo:
        """Return the background video of a dub with its own timeline, and predict the motion of its frames and of those before.

        Args:
            person: who is dubbed.
            shown: the picture of the video (`shown_video`).

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
        rate, first = own_timeline(analysis.info, 1).video.average_rate, len(shown.before)
        await self._predict(actor, common_pb2.Timeline(frame_rate=rational_to_proto(rate)), _stop_of(shown))
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
            return await show_rotated(analysis, actor.identity, poses[first:], motion["blink"][first:], on_frame)
        if analysis.method.motion.moves_head:
            chosen = await match_head_motion(analysis, motion["pose"], actor.pose)
            return await show_chosen(analysis, chosen[first:], on_frame)
        if request.fit == "retime":
            chosen = await retime(analysis, motion["speech_probability"])
        else:
            chosen = shown_frames(request.fit, analysis.info.video, len(motion))[first:]
        return await show_chosen(analysis, chosen, on_frame, cuts_of(chosen, analysis.index.shot_cuts))

    async def _mouths(self, person: DubbedPerson) -> TargetMouths:
        workspace = self.analysis.workspace
        if person.actor is None or not self.request.keeps_expression:
            return TargetMouths(workspace.motion)
        frames = range(workspace.motion.num_rows)
        return await expressive_mouths(self.analysis, workspace.motion, frames, workspace.expression)

    async def part(self, video: TrackedVideo, shown: VideoInfo, person: DubbedPerson, extent: SpeechExtent) -> DubPart:
        """Return the person of a dub without lines, in all frames of the video.

        Args:
            video: what is dubbed in place.
            shown: the picture of the video (`shown_video`).
            person: who is dubbed.
            extent: how the speech fits the video.
        """
        workspace, first = self.analysis.workspace, len(shown.before)
        mouths = (await self._mouths(person)).span(range(first, _stop_of(shown)))
        plan = plan_of(video.index, person, mouths.motion, mouths, range(video.index.num_frames))
        if self.request.preview and not self.request.own_timeline and person.face_id is not None:
            # Frames beside the span fade the mouths of the span too.
            strength = await asyncio.to_thread(strength_of, self.analysis.index, person.face_id)
            plan = replace(plan, strength=strength[first : _stop_of(shown)])
        spoken: AlignedSpeech | None = None
        if self.analysis.method.renderer.speech:
            spoken = AlignedSpeech(workspace.speech, frame_seconds(video.info) + float(shown.begin))
        skipped = round(shown.begin * MOTION_RATE)
        return DubPart(
            request=self.request,
            person=person,
            plan=plan,
            frames=range(plan.num_frames),
            key=self.key,
            mouths=mouths,
            speech=spoken.around if spoken is not None else None,
            extent=extent,
            records=TargetRecords(
                mouths.motion, RecordSpan(workspace.speech, skipped, workspace.speech.num_rows - skipped), mouths
            ),
        )

    async def write(
        self,
        video: TrackedVideo,
        parts: Sequence[DubPart],
        writer: VideoWriter,
        clock: StageClock,
        mark: Mark | None = None,
        *,
        check_files: Callable[[], None],
    ) -> VideoFacts:
        """Render the mouths of the planned frames and write the video.

        Args:
            video: what is dubbed in place.
            parts: the faces that are dubbed.
            writer: gets the frames.
            clock: counts the time of decoding, compositing and encoding.
            mark: watermark of the dubbed mouths; None: they get none.
            check_files: called before the video gets its name. Raises an error if a file of the dub is another file now.

        Raises:
            DubstageError: from the stages or `check_files`, or the video cannot be written.
        """
        total = video.info.video.num_frames
        dubbed = [part for part in parts if part.person.actor is not None]
        scales = [
            await asyncio.to_thread(scale_of, video.faces, part.plan.row[part.plan.rendered()], video.info.video.reduction)
            if self.request.has_bank_detail
            else 0
            for part in dubbed
        ]
        await asyncio.to_thread(self._check_disks, video, dubbed, writer, scales)
        progress = VideoProgress([part.rendered() for part in dubbed], total, partial(self.on_progress, "dub"))
        mouths = [
            self._mouth(video, part, scale, partial(progress.rendered, index))
            for index, (part, scale) in enumerate(zip(dubbed, scales, strict=True))
        ]
        done = progress.written
        compositor = VideoCompositor(video)
        async with entered_in_threads(writer):
            threads = self.request.threads
            if writer.segmented:
                segments = SegmentStore(
                    # The user sees counts of windows, and a segment is no window.
                    journal=self.journal.beside(),
                    job=self.key,
                    choice=writer.choice,
                    parameters=writer.parameters,
                    threads=threads,
                    mouths=mouths,
                    mark=mark,
                    label=self.request.label,
                )
                windows = partial(rendered_windows, mouths, total)
                facts = await compositor.write_segments(
                    writer, windows, segments, threads=threads, clock=clock, on_progress=done, mark=mark
                )
            else:
                windows_of_all = rendered_windows(mouths, total)
                facts = await compositor.write(writer, windows_of_all, threads=threads, clock=clock, on_progress=done, mark=mark)
            await in_thread(self.ledger.confirm)

            def confirm() -> None:
                self.ledger.confirm()
                check_files()

            await in_thread(writer.finish, confirm)
        return facts

    def _mouth(self, video: TrackedVideo, part: DubPart, scale: int, on_frame: Callable[[int], None]) -> DubbedMouth:
        actor = part.person.actor
        assert actor is not None, "the person is known"
        # A person who had to be learned again is another actor: windows of an earlier actor are not reused.
        key = step_key("video", job=part.key, actor=[ref.sha256 for ref in actor.refs.values()])
        face, pose = self.reference, pose_of_vector(actor.pose)
        reference = face.in_shape_of(actor.geometry, pose) if face is not None else None
        finish = self.request.shown_finish
        config = window_config(self.analysis.method, actor, reference, detail_scale=scale, finish=finish)
        usable, rows = part.plan.rendered(), part.plan.row
        if self.request.preview and video.faces is self.analysis.workspace.faces:
            # As in the dub, the looks of a shot are learned from the whole shot.
            looks = self.analysis.looks()
        else:
            looks = ShotLooks(video.faces, rows, video.index.free_frames(rows), video.index.shot_cuts)
        inputs = VideoInputs(
            self.analysis.stages,
            config,
            usable,
            rows,
            video.faces,
            looks,
            video.index.shot_cuts,
            part.mouths,
            part.speech,
            first=video.index.first,
            on_frame=on_frame,
        )

        def chosen(done: int) -> None:
            self.on_progress("insides", done, part.plan.num_frames)

        return DubbedMouth(inputs, part.plan, part.frames, self.journal, key, chosen)

    def _check_disks(self, video: TrackedVideo, parts: Sequence[DubPart], writer: VideoWriter, scales: Sequence[int]) -> None:
        """Check that there is room for the rendered mouths, whose number and size are known now, and for the video.

        Raises:
            StorageFullError: a file system has too little free space.
        """
        needs = output_needs(
            self.request.output,
            writer.choice.codec,
            video.info.video,
            self.store.folder,
            [(int(part.plan.rendered().sum()), scale) for part, scale in zip(parts, scales, strict=True)],
            stored=sum(ref.size_bytes for ref in self.journal.refs()),
            segmented=writer.segmented,
        )
        jobs = self.kept.folder.parent if self.kept.folder is not None else None
        check_space(self.request.footage, needs, jobs, self.ledger, self.store)

    async def _enrolled(self) -> EnrolledActor:
        options, people = self.request.enrol, self._people()
        stored = await people.find_actor(options)
        if stored is None and self.request.preview:
            # Training takes longer than all else of a preview.
            options = replace(options, personalize_renderer=False, personalize_motion=False)
            stored = await people.find_actor(options)
        if stored is not None:
            return stored
        actor = await people.learn(options)
        await people.share(options, actor)
        return actor

    def _people(self) -> PeopleOfFootage:
        return PeopleOfFootage(
            analysis=self.analysis,
            kept=self.kept,
            journal=self.journal,
            key=self.people_key,
            store=self.store,
            hold=partial(self.ledger.hold, self.analysis.workspace.folder),
            on_progress=self.on_progress,
        )

    async def _predict(self, actor: EnrolledActor, timeline: common_pb2.Timeline, num_frames: int) -> None:
        """Fill the MOTION_RECORDs of the workspace."""
        analysis, workspace = self.analysis, self.analysis.workspace
        workspace.motion.clear()
        motion = MotionRequest(
            predictor=analysis.method.motion,
            style=actor.style,
            timeline=timeline,
            num_frames=num_frames,
            mouth=self.request.mouth,
        )

        def predicted(done: int) -> None:
            self.on_progress("motion", done, num_frames)

        await predict_motion(analysis.stages, motion, workspace.speech, workspace.motion, on_frames=predicted)


def _stop_of(shown: VideoInfo) -> int:
    """Return the number of frames of a video up to the end of a span."""
    return len(shown.before) + shown.num_frames
