"""The passes of one dub after its footage is tracked and its speech is heard: person, background, mouths, film."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from dubstage.common.v1alpha1 import common_pb2
from gateway.ahead import in_thread
from gateway.media.background_film import own_timeline
from gateway.media.stills import is_still
from gateway.media.writer import VideoWriter
from gateway.pipeline.backgrounds import match, rebased, retime, show_chosen
from gateway.pipeline.disk_need import check_disks, film_need, windows_need
from gateway.pipeline.dub_request import DubRequest
from gateway.pipeline.enrol import EnrolledActor
from gateway.pipeline.enrolment_artefact import actor_arrays, actor_from_arrays, actor_refs
from gateway.pipeline.faces import about_faces
from gateway.pipeline.film import Film, FilmFacts
from gateway.pipeline.journal import Journal, step_key
from gateway.pipeline.kept_expression import find_expression, wanted_mouths
from gateway.pipeline.ledger import BlobLedger
from gateway.pipeline.messages import timeline_of
from gateway.pipeline.motion_clip import frame_seconds
from gateway.pipeline.native_boxes import scale_of
from gateway.pipeline.plan import Plan, make_plan
from gateway.pipeline.portrait import own_pose, show_rotated
from gateway.pipeline.progress import OnProgress
from gateway.pipeline.reference_face import ReferenceFace
from gateway.pipeline.rendering import FilmInputs, rendered_windows
from gateway.pipeline.shot import Shot
from gateway.pipeline.speech import MotionRequest, predict_motion
from gateway.pipeline.spoken import Spoken
from gateway.pipeline.subjects import People, check_subjects
from gateway.pipeline.window_config import window_config
from gateway.provenance.watermark.embedding import Mark
from gateway.stages.times import StageClock
from services.common.array_types import Float32
from services.common.errors import InvalidRequest, NoUsableFootage
from services.common.face.head_pose_vectors import pose_of_vector
from services.common.store.artefacts import ArtefactStore
from services.common.store.tensor_bytes import NamedArrays
from services.common.wire.artefact_messages import ref_from_proto
from services.common.wire.timeline_messages import rational_to_proto


@dataclass(frozen=True, slots=True)
class Person:
    """Who is dubbed.

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
class Passes:
    """Passes of one run of a dub. Each pass takes finished work of an earlier run from the workspace or the journal.

    Attributes:
        request: the dub request.
        shot: the footage, tracked.
        journal: finished steps of the job.
        key: key of the job.
        store: artefacts of the journal.
        ledger: counts the artefacts of the job.
        on_progress: called with every frame and step.
        digests: SHA-256 of the files of the request, hexadecimal.
        reference: face whose appearance the film takes; None: the actor's own appearance.
    """

    request: DubRequest
    shot: Shot
    journal: Journal
    key: str
    store: ArtefactStore
    ledger: BlobLedger
    on_progress: OnProgress
    digests: Mapping[Path, str]
    reference: ReferenceFace | None = None

    async def person(self) -> Person:
        """Return the face to dub and the actor: the actor of the request, or one that is learned from the footage.

        Raises:
            InvalidRequest: the face that the request names is not in the footage.
            ConsentOtherSubject, ConsentFaceUncertain: a consent record is not about the person whom the dub shows.
            NoUsableFootage: the person cannot be learned, and a film with its own timeline needs the person.
        """
        shot = self.shot
        face_id = await shot.select(self.request.face)
        if face_id is None:
            return Person(None, None)
        people = People(self.digests, shot.face, self.reference.face if self.reference is not None else None)
        await check_subjects(self.request, people, shot.stages, self.store, shot.workspace.folder)
        several = about_faces(shot.index, face_id, self.request.face)
        if self.request.actor is not None:
            return Person(face_id, self.request.actor, warnings=several)
        began = time.perf_counter()
        try:
            actor = await self._enrolled()
        except NoUsableFootage as problem:
            if is_still(shot.info) or shot.method.own_timeline:
                raise
            return Person(face_id, None, time.perf_counter() - began, problem.message, several)
        return Person(face_id, actor, time.perf_counter() - began, warnings=several)

    async def in_place(self, person: Person) -> Film:
        """Return the footage itself as the film to dub, predict the motion of its frames, and find the person's slow expression."""
        if person.actor is not None:
            info = self.shot.info
            await self._predict(person.actor, timeline_of(info), info.video.num_frames)
            if self.request.keeps_expression:
                await find_expression(self.shot, person.actor, self.on_progress)
        return self.shot.film

    async def background(self, person: Person, duration: Fraction) -> Film:
        """Return the background film of a dub with its own timeline, and predict the motion of its frames.

        Args:
            person: who is dubbed.
            duration: length of the film, seconds.

        Raises:
            NoUsableFootage: the footage shows no face that can be learned.
            InvalidRequest: the footage is a still, and the actor has no identity.
            DubstageError: from the stages.
        """
        request, shot, actor = self.request, self.shot, person.actor
        if actor is None:
            raise NoUsableFootage(
                f"{request.footage} shows no face that can be learned: a film with a timeline of its own needs one",
                subject=str(request.footage),
            )
        rate = own_timeline(shot.info, 1).video.average_rate
        await self._predict(actor, common_pb2.Timeline(frame_rate=rational_to_proto(rate)), int(duration * rate))
        records = shot.workspace.motion
        motion = await asyncio.to_thread(lambda: records.read(0, records.num_rows))

        def on_frame(done: int, total: int) -> None:
            self.on_progress("background", done, total)

        if is_still(shot.info):
            if actor.identity is None:
                raise InvalidRequest(
                    "a single picture needs an actor with an identity: enrol the person again for this method", field="actor"
                )
            poses = rebased(motion["pose"], actor.pose, await asyncio.to_thread(own_pose, shot))
            return await show_rotated(shot, actor.identity, poses, motion["blink"], on_frame)
        if shot.method.motion.moves_head:
            chosen = await match(shot, motion["pose"], actor.pose)
        else:
            chosen = await retime(shot, motion["speech_probability"])
        return await show_chosen(shot, chosen, on_frame)

    def plan(self, film: Film, person: Person) -> Plan:
        """Return what happens to every frame of the film."""
        if person.actor is not None:
            return make_plan(film.index, person.face_id, self._speech_probability())
        plan = make_plan(film.index, person.face_id, np.ones(film.info.video.num_frames, np.float32))
        unknown = np.where(plan.rendered(), common_pb2.FRAME_REASON_LOW_CONFIDENCE, plan.reason)
        return replace(plan, reason=unknown.astype(np.int32))

    async def write(
        self, film: Film, plan: Plan, person: Person, writer: VideoWriter, clock: StageClock, mark: Mark | None = None
    ) -> FilmFacts:
        """Render the mouths of the planned frames and write the film.

        Args:
            film: what is dubbed in place.
            plan: what happens to every frame of the film.
            person: who is dubbed.
            writer: gets the frames.
            clock: counts the time of decoding, compositing and encoding.
            mark: watermark of the dubbed mouths; None: they get none.

        Raises:
            DubstageError: from the stages, or the film cannot be written.
        """
        request, shot, actor, key = self.request, self.shot, person.actor, self.key
        inputs: FilmInputs | None = None
        if actor is not None:
            # A person who had to be learned again is another actor: windows of an earlier actor are not reused.
            key = step_key("film", job=key, actor=[ref.sha256 for ref in actor_refs(actor).values()])
            face, pose = self.reference, pose_of_vector(actor.pose)
            reference = face.in_shape_of(actor.geometry, pose) if face is not None else None
            scale = await asyncio.to_thread(scale_of, film.faces, plan.row[plan.rendered()])
            await asyncio.to_thread(self._check_disks, film, plan, writer, scale)
            config = window_config(shot.method, actor, request.warp, reference, detail_scale=scale)
            spoken = Spoken(shot.workspace.speech, frame_seconds(film.info)) if shot.method.renderer.speech else None
            heard = spoken.around if spoken is not None else None
            inputs = FilmInputs(shot.stages, config, plan.rendered(), plan.row, film.faces, self._mouths, heard)
        with writer:
            facts = await film.write(
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

    def _check_disks(self, film: Film, plan: Plan, writer: VideoWriter, scale: int) -> None:
        """Check that there is room for the rendered mouths, whose number and size are known now, and for the film.

        Raises:
            StorageFull: a file system has too little free space.
        """
        needs = [film_need(self.request.output, writer.choice.codec, film.info.video)]
        if self.store.folder is not None:
            stored = sum(ref.size_bytes for ref in self.journal.refs())
            needs.append(windows_need(self.store.folder, int(plan.rendered().sum()), scale, stored))
        check_disks(self.request.footage, needs)

    async def _enrolled(self) -> EnrolledActor:
        step = step_key("enrol", job=self.key)
        found = await asyncio.to_thread(self.journal.find, step, self._journalled_actor)
        if found is not None:
            return found
        folder = self.shot.workspace.folder
        actor = await self.shot.enrol(
            self.request.enrol,
            lambda name, done, total: self.on_progress(f"enrol {name}", done, total),
            on_artefact=lambda ref: in_thread(self.ledger.hold, folder, ref_from_proto(ref, "artefact")),
        )
        await in_thread(self.journal.record, step, *actor_arrays(actor))
        return actor

    def _journalled_actor(self, stored: NamedArrays) -> EnrolledActor:
        """Return the actor that a journal's arrays hold.

        Raises:
            ValueError, ArtefactNotFound, ArtefactCorrupt, InvalidRequest: the arrays hold no actor, or an artefact of the actor
                cannot be used.
        """
        actor = actor_from_arrays(stored)
        for ref in actor_refs(actor).values():
            self.store.check(ref_from_proto(ref, "artefact"))
        return actor

    async def _predict(self, actor: EnrolledActor, timeline: common_pb2.Timeline, num_frames: int) -> None:
        """Fill the MOTION_RECORDs of the workspace."""
        shot, workspace = self.shot, self.shot.workspace
        workspace.motion.clear()
        motion = MotionRequest(
            predictor=shot.method.motion,
            style=actor.style,
            timeline=timeline,
            num_frames=num_frames,
            block=self.request.feature_block,
            expressiveness=self.request.expressiveness,
        )

        def predicted(done: int) -> None:
            self.on_progress("motion", done, num_frames)

        await predict_motion(shot.stages, motion, workspace.speech, workspace.motion, on_frames=predicted)

    def _mouths(self, begin: int, end: int) -> Float32:
        return wanted_mouths(self.shot.workspace, begin, end)

    def _speech_probability(self) -> Float32:
        motion = self.shot.workspace.motion
        # Copies, because a view of one field keeps whole records: 137 MB of a film of two hours.
        parts = [motion.read(begin, begin + 512)["speech_probability"].copy() for begin in range(0, motion.num_rows, 512)]
        return np.concatenate(parts)
