"""One dub, from files to a file: the order of the passes, what each reuses after a restart, and what is told of it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2
from gateway.ahead import in_thread
from gateway.media.background_film import own_timeline
from gateway.media.inspection import inspect_film_aside
from gateway.media.sound import Speech
from gateway.media.stills import is_still, open_footage
from gateway.media.types import MediaInfo
from gateway.media.writer import VideoWriter
from gateway.methods import Method, method_named
from gateway.pipeline.allowance import MAX_JOB_BYTES
from gateway.pipeline.analysis import enrol_from, folder_of, hear_speech, select_face, together, track_footage
from gateway.pipeline.backgrounds import Film, match, own_pose, rebased, retime, show_chosen, show_rotated
from gateway.pipeline.dub_request import DubRequest, check_output, has_own_timeline, open_speech, open_writer, sha256_of
from gateway.pipeline.enrol import EnrolledActor
from gateway.pipeline.enrolment_artefact import actor_arrays, actor_from_arrays, actor_refs
from gateway.pipeline.film import FilmFacts, write_film
from gateway.pipeline.journal import Journal, step_key
from gateway.pipeline.ledger import BlobLedger, OwnBlobs
from gateway.pipeline.messages import rational, ref_from, timeline_of
from gateway.pipeline.outcome import DubOutcome, about_damage, about_redone, about_speech
from gateway.pipeline.plan import Plan, make_plan
from gateway.pipeline.removal import give_up, remove_locked
from gateway.pipeline.rendering import FilmInputs, rendered_windows
from gateway.pipeline.speech import predict_motion, speech_duration
from gateway.pipeline.windows import window_config
from gateway.pipeline.workspace import JOURNAL, Workspace
from gateway.reports.stage_times import StageClock, StageTimes
from gateway.stages.interface import Stages
from gateway.stages.timed import TimedStages
from services.common.artefacts import ArtefactStore
from services.common.errors import ActorNotReady, InvalidRequest, NoUsableFootage, RequestError
from services.common.tensor_bytes import NamedArrays

PIPELINE_VERSION: Final = 5
"""Counts up with every change that changes the bytes of a dub: part of every journal key."""

OnProgress = Callable[[str, int, int], None]
"""Called with the pass, frames (or steps) done, and how many there are."""


@dataclass(frozen=True, slots=True)
class _Person:
    """Whose mouth is dubbed, the actor, what learning them took (seconds), and what the user must be told of it."""

    face_id: int | None
    actor: EnrolledActor | None
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)


class DubJob:
    """A dub in its own folder. Running the same request again goes on where a killed run was, and gives the same bytes.

    Args:
        request: what is dubbed.
        stages: that compute.
        store: of artefacts, the stages' own.
        jobs: folder of all jobs.
        ledger: counts the job's blobs; None: the job is alone.
        max_bytes: most bytes of the job's folder.
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
    ) -> None:
        self._request = request
        self._ledger = ledger if ledger is not None else OwnBlobs()
        self._clock = StageClock()
        self._stages: Stages = TimedStages(stages, self._clock)
        self._store = store
        self._jobs = jobs
        self._max_bytes = max_bytes
        self._folder: Path | None = None
        self._analysed = False

    async def run(self, on_progress: OnProgress) -> DubOutcome:
        """Do it. The job's folder stays for whoever wants to look into it, until `discard`.

        A run that fails leaves the folder, so that the next run goes on from there; one that fails before a pass is finished, or
        because of what was asked for, leaves nothing.

        Args:
            on_progress: told of every frame and step.

        Raises:
            DubstageError: the input can't be used, or a stage failed; no output is left, finished windows stay journalled.
        """
        request, stages = self._request, self._stages
        began, used = time.perf_counter(), time.process_time()
        method = method_named(request.method)
        info = await inspect_film_aside(request.footage)
        own = has_own_timeline(request, info)
        speech = await asyncio.to_thread(open_speech, request, info)
        await asyncio.to_thread(check_output, request, info, speech)
        key = await self._key(method)
        folder = folder_of(self._jobs, key)
        async with self._workspace(folder) as workspace:
            journal = Journal(folder / JOURNAL, self._store, lambda ref: self._ledger.hold(folder, ref))
            info = await asyncio.to_thread(open_footage, info, folder, threads=request.threads)
            duration = await asyncio.to_thread(_film_duration, info, speech) if own else info.video.duration
            index, extent = await together(
                track_footage(
                    stages,
                    info,
                    workspace,
                    threads=request.threads,
                    on_frame=lambda done: on_progress("track", done, info.video.num_frames),
                ),
                hear_speech(stages, duration, speech, workspace, method.features),
            )
            footage = Film(info, index, workspace.faces)
            person = await self._person(method, footage, workspace, journal, key, on_progress)
            film = footage
            if own:
                film = await self._background(method, footage, person, workspace, duration, on_progress)
            elif person.actor is not None:
                await self._predict(method, person.actor, workspace, timeline_of(info), info.video.num_frames)
            plan = _plan_of(film, person, workspace)
            self._analysed = True
            dubbed = bool(plan.rendered().any())
            writer = await asyncio.to_thread(open_writer, request, film.info, speech, dubbed=dubbed)
            computed, reused = journal.computed, journal.reused
            facts = await self._film(method, film, plan, workspace, person.actor, journal, key, writer, on_progress)
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
            warnings=[
                *([] if own else about_speech(extent, info)),
                *person.warnings,
                *about_damage(facts),
                *about_redone(workspace, journal),
            ],
        )

    @property
    def folder(self) -> Path | None:
        """The job's folder, once it runs."""
        return self._folder

    def discard(self) -> None:
        """Remove the job's folder, its windows and the blobs of an actor made in passing, but for what somebody else counts."""
        if self._folder is not None:
            give_up(self._folder, self._ledger, self._store)

    @asynccontextmanager
    async def _workspace(self, folder: Path) -> AsyncIterator[Workspace]:
        """The job's folder; where the work in it fails, the folder stays only if another run can go on from there."""
        with Workspace(folder, max_bytes=self._max_bytes) as workspace:
            self._folder = folder
            try:
                await asyncio.to_thread(self._ledger.begin, folder)
                await asyncio.to_thread(workspace.describe, self._facts())
                yield workspace
            except BaseException as problem:
                # Asked for again, the same dub fails the same way: no run will ever go on from what was found until then.
                hopeless = not self._analysed and isinstance(problem, RequestError | NoUsableFootage)
                if hopeless or isinstance(problem, ActorNotReady) or not workspace.resumable():
                    await in_thread(remove_locked, folder, self._ledger, self._store)
                raise

    def _facts(self) -> dict[str, object]:
        """What the job is, for `dubstage jobs`."""
        request = self._request
        return {
            "kind": "dub",
            "footage": request.footage.name,
            "speech": request.speech.name if request.speech is not None else "",
            "method": request.method,
            "actor": self._ledger.actor_id,
        }

    async def _key(self, method: Method) -> str:
        """Digest of everything that the output's mouths depend on."""
        request = self._request
        models = await self._stages.list_models()
        speech = request.speech or request.footage
        digests = await asyncio.to_thread(lambda: [sha256_of(request.footage), sha256_of(speech)])
        options = request.enrol
        return step_key(
            "dub",
            version=PIPELINE_VERSION,
            files=digests,
            method=[method.name, method.motion, method.renderer],
            models=[[m.name, m.sha256, m.backend, m.precision, m.num_threads] for m in models.models],
            face=[request.face.kind, request.face.face_id, list(request.face.point)],
            actor=[ref.sha256 for ref in actor_refs(request.actor).values()] if request.actor is not None else [],
            enrol=[options.personalize_renderer, options.renderer_steps, options.personalize_motion, options.seed],
            warp=int(request.warp),
            retime=request.retime,
        )

    async def _person(
        self, method: Method, footage: Film, workspace: Workspace, journal: Journal, key: str, on_progress: OnProgress
    ) -> _Person:
        """Whose mouth it is, and the actor: the request's, or one that is learned from the footage."""
        request = self._request
        face_id = await select_face(self._stages, footage.info, workspace, footage.index, request.face, method.features)
        if face_id is None:
            return _Person(None, None, warnings=["the footage shows no face: every frame passes through unchanged"])
        if request.actor is not None:
            return _Person(face_id, request.actor)
        began = time.perf_counter()
        try:
            actor = await self._enrolled(method, footage, workspace, face_id, journal, key, on_progress)
        except NoUsableFootage as problem:
            if is_still(footage.info) or method.moves_head:
                raise
            warning = f"every frame passes through unchanged: {problem.message}"
            return _Person(face_id, None, time.perf_counter() - began, [warning])
        return _Person(face_id, actor, time.perf_counter() - began)

    async def _enrolled(
        self,
        method: Method,
        footage: Film,
        workspace: Workspace,
        face_id: int,
        journal: Journal,
        key: str,
        on_progress: OnProgress,
    ) -> EnrolledActor:
        step = step_key("enrol", job=key)
        found = await asyncio.to_thread(journal.find, step, self._journalled_actor)
        if found is not None:
            return found
        actor = await enrol_from(
            self._stages,
            method,
            footage.info,
            workspace,
            footage.index,
            face_id,
            self._request.enrol,
            lambda name, done, total: on_progress(f"enrol {name}", done, total),
            on_artefact=lambda ref: asyncio.to_thread(self._ledger.hold, workspace.folder, ref_from(ref)),
        )
        await asyncio.to_thread(journal.record, step, *actor_arrays(actor))
        return actor

    def _journalled_actor(self, stored: NamedArrays) -> EnrolledActor:
        """The actor of a journal's arrays.

        Raises:
            ValueError, ArtefactNotFound, ArtefactCorrupt, InvalidRequest: it is none, or a blob of the actor cannot be used.
        """
        actor = actor_from_arrays(stored)
        for ref in actor_refs(actor).values():
            self._store.check(ref_from(ref))
        return actor

    async def _predict(
        self, method: Method, actor: EnrolledActor, workspace: Workspace, timeline: common_pb2.Timeline, num_frames: int
    ) -> None:
        workspace.motion.clear()
        await predict_motion(
            self._stages,
            method.motion,
            actor.style,
            workspace.speech,
            timeline,
            num_frames,
            workspace.motion,
            block=self._request.feature_block,
        )

    async def _background(
        self,
        method: Method,
        footage: Film,
        person: _Person,
        workspace: Workspace,
        duration: Fraction,
        on_progress: OnProgress,
    ) -> Film:
        """The background film of a dub with a timeline of its own, and the motion on it."""
        if person.actor is None or person.face_id is None:
            raise NoUsableFootage(
                f"{self._request.footage} shows no face that can be learned: a film with a timeline of its own needs one",
                subject=str(self._request.footage),
            )
        rate = own_timeline(footage.info, 1).video.average_rate
        timeline = common_pb2.Timeline(frame_rate=rational(rate))
        await self._predict(method, person.actor, workspace, timeline, int(duration * rate))
        motion = await asyncio.to_thread(lambda: workspace.motion.read(0, workspace.motion.num_rows))

        def on_frame(done: int, total: int) -> None:
            on_progress("background", done, total)

        threads = self._request.threads
        if is_still(footage.info):
            if person.actor.identity is None:
                raise InvalidRequest("a single picture needs an actor with an identity: enrol one for headpose", field="actor")
            own = await asyncio.to_thread(own_pose, footage, person.face_id)
            poses = rebased(motion["pose"], person.actor.pose, own)
            return await show_rotated(
                self._stages,
                footage,
                person.face_id,
                person.actor.identity,
                poses,
                motion["blink"],
                workspace,
                threads=threads,
                on_frame=on_frame,
            )
        if method.moves_head:
            chosen = await match(self._stages, footage, person.face_id, motion["pose"], person.actor.pose)
        else:
            chosen = await retime(self._stages, footage, person.face_id, motion["speech_probability"])
        return await show_chosen(footage, person.face_id, chosen, workspace, threads=threads, on_frame=on_frame)

    async def _film(
        self,
        method: Method,
        film: Film,
        plan: Plan,
        workspace: Workspace,
        actor: EnrolledActor | None,
        journal: Journal,
        key: str,
        writer: VideoWriter,
        on_progress: OnProgress,
    ) -> FilmFacts:
        inputs: FilmInputs | None = None
        if actor is not None:
            # Where what was learned of the person had to be learned anew, no window of an earlier actor is mixed in.
            key = step_key("film", job=key, actor=[ref.sha256 for ref in actor_refs(actor).values()])
            inputs = FilmInputs(
                window_config(method, actor, self._request.warp), actor.geometry, plan, film.faces, workspace.motion
            )
        with writer:
            return await write_film(
                film.info,
                writer,
                rendered_windows(self._stages, inputs, plan, journal, key),
                plan,
                film.faces,
                threads=self._request.threads,
                clock=self._clock,
                on_progress=lambda done: on_progress("dub", done, plan.num_frames),
            )


def _film_duration(info: MediaInfo, speech: Speech) -> Fraction:
    """Length of a film that is as long as the speech: a whole number of frames, seconds."""
    rate = own_timeline(info, 1).video.average_rate
    return math.ceil(speech_duration(speech) * rate) / rate


def _plan_of(film: Film, person: _Person, workspace: Workspace) -> Plan:
    if person.actor is not None:
        return make_plan(film.index, person.face_id, _speech_probability(workspace))
    plan = make_plan(film.index, person.face_id, np.ones(film.info.video.num_frames, np.float32))
    unknown = np.where(plan.rendered(), common_pb2.FRAME_REASON_LOW_CONFIDENCE, plan.reason)
    return replace(plan, reason=unknown.astype(np.int32))


def _speech_probability(workspace: Workspace) -> npt.NDArray[np.float32]:
    motion = workspace.motion
    parts = [motion.read(begin, begin + 512)["speech_probability"] for begin in range(0, motion.num_rows, 512)]
    return np.concatenate(parts)
