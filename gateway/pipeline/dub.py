"""One dub, from files to a file: the order of the passes, what each reuses after a restart, and what is told of it."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.consent import Consent, consent_line
from gateway.media.probe import probe
from gateway.media.sound import SoundReader, Speech
from gateway.media.types import MediaInfo
from gateway.media.writer import VideoWriter, WriteReport, WriteSettings
from gateway.methods import Method, method_named
from gateway.pipeline.analysis import enrol_from, folder_of, hear_speech, select_face, together, track_footage
from gateway.pipeline.enrol import EnrolledActor, EnrolOptions
from gateway.pipeline.enrolment_artefact import actor_arrays, actor_from_arrays, actor_refs
from gateway.pipeline.faces import FaceChoice
from gateway.pipeline.film import FilmFacts, write_film
from gateway.pipeline.footage import FaceIndex
from gateway.pipeline.journal import Journal, step_key
from gateway.pipeline.ledger import BlobLedger, OwnBlobs
from gateway.pipeline.messages import ref_from, timeline_of
from gateway.pipeline.plan import Plan, make_plan
from gateway.pipeline.rendering import FilmInputs, rendered_windows
from gateway.pipeline.speech import FEATURE_BLOCK, SpeechExtent, predict_motion
from gateway.pipeline.windows import WindowConfig
from gateway.pipeline.workspace import Workspace
from gateway.reports.stage_times import StageClock, StageTimes
from gateway.stages.interface import Stages
from gateway.stages.timed import TimedStages
from services.common.artefacts import ArtefactStore
from services.common.errors import InvalidRequest, NoUsableFootage

PIPELINE_VERSION: Final = 3
"""Counts up with every change that changes the bytes of a dub: part of every journal key."""

OnProgress = Callable[[str, int, int], None]
"""Called with the pass, frames (or steps) done, and how many there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DubRequest:
    """What is to be dubbed, and how.

    Attributes:
        footage: video file.
        speech: sound file; None: the footage's own sound.
        output: file to write.
        method: row of gateway.methods.
        face: whose mouth.
        actor: enrolled before; None: enrolled from this footage in passing.
        consent: for the mark in the output.
        keep_audio: the output keeps the footage's sound.
        codec: of the output; None: chosen by the container.
        enrol: what of an enrolment in passing is done.
        warp: texture mode.
        threads: of decoder and encoder.
        feature_block: feature frames a message to the motion stage; changes no byte of the result.
    """

    footage: Path
    speech: Path | None
    output: Path
    method: str = "ugc"
    face: FaceChoice = FaceChoice("largest")
    actor: EnrolledActor | None = None
    consent: Consent | None = None
    keep_audio: bool = False
    codec: str | None = None
    enrol: EnrolOptions = EnrolOptions()
    warp: texture_pb2.WarpMode.ValueType = texture_pb2.WARP_MODE_TEMPORAL_WARP_NETWORK
    threads: int = 2
    feature_block: int = FEATURE_BLOCK


@dataclass(slots=True)
class DubOutcome:
    """What came of a dub: the film, the plan of its frames, the actor used, what the user must be told, and the job's folder."""

    written: WriteReport
    info: MediaInfo
    plan: Plan
    actor: EnrolledActor | None
    face_id: int | None
    facts: FilmFacts
    windows_computed: int
    windows_reused: int
    times: StageTimes
    warnings: list[str] = field(default_factory=list)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_speech(request: DubRequest, info: MediaInfo) -> Speech:
    """The speech of a dub: the file that was given, or the footage's own sound.

    Raises:
        InvalidRequest: no file was given and the footage has no sound.
        MediaUnsupported: the file has no sound that can be read.
    """
    if request.speech is not None:
        return SoundReader(request.speech).speech()
    if not info.audio:
        raise InvalidRequest(f"{info.path} has no sound to dub to: give new speech with --audio FILE", field="audio")
    return SoundReader(info.path, origin=info.video.start).speech()


def open_writer(request: DubRequest, info: MediaInfo) -> VideoWriter:
    """The output of a dub, checked but not begun.

    Raises:
        InvalidRequest, MediaUnsupported: it can't be written as asked.
    """
    new_sound = request.speech is not None and not request.keep_audio
    return VideoWriter(
        request.output,
        info,
        speech=open_speech(request, info) if new_sound else None,
        settings=WriteSettings(
            codec=request.codec,
            keep_audio=request.keep_audio,
            marking=f"The mouth in this film is synthetic (made with dubstage); {consent_line(request.consent)}.",
            threads=request.threads,
        ),
    )


def check_request(request: DubRequest) -> None:
    """Find what is wrong with a request's files before any stage is started.

    Raises:
        DubstageError: as `DubJob.run`, for whatever can be seen without decoding the footage.
    """
    method_named(request.method)
    info = probe(request.footage)
    open_speech(request, info)
    open_writer(request, info)


class DubJob:
    """A dub in its own folder. Running the same request again goes on where a killed run was, and gives the same bytes."""

    def __init__(
        self, request: DubRequest, stages: Stages, store: ArtefactStore, jobs: Path, ledger: BlobLedger | None = None
    ) -> None:
        self._request = request
        self._ledger = ledger if ledger is not None else OwnBlobs()
        self._clock = StageClock()
        self._stages: Stages = TimedStages(stages, self._clock)
        self._store = store
        self._jobs = jobs
        self._folder: Path | None = None

    async def run(self, on_progress: OnProgress) -> DubOutcome:
        """Do it. The job's folder stays for whoever wants to look into it, until `discard`.

        Args:
            on_progress: told of every frame and step.

        Raises:
            DubstageError: the input can't be used, or a stage failed; no output is left, finished windows stay journalled.
        """
        request, stages = self._request, self._stages
        began, used = time.perf_counter(), time.process_time()
        enrolment_s = 0.0
        method = method_named(request.method)
        info = await asyncio.to_thread(probe, request.footage)
        speech = await asyncio.to_thread(open_speech, request, info)
        writer = await asyncio.to_thread(open_writer, request, info)
        key = await self._key(method)
        self._folder = folder_of(self._jobs, key)
        await asyncio.to_thread(self._ledger.begin, self._folder)
        with Workspace(self._folder) as workspace:
            journal = Journal(self._folder / "journal", self._store)
            total = info.video.num_frames
            index, extent = await together(
                track_footage(
                    stages,
                    info,
                    workspace,
                    threads=request.threads,
                    on_frame=lambda done: on_progress("track", done, total),
                ),
                hear_speech(stages, info, speech, workspace, method.features),
            )
            warnings = _about_speech(extent, info)
            face_id = await select_face(stages, info, workspace, index, request.face, method.features)
            actor = request.actor
            if face_id is None:
                warnings.append("the footage shows no face: every frame passes through unchanged")
            elif actor is None:
                enrolment_began = time.perf_counter()
                try:
                    actor = await self._enrolled(method, info, workspace, index, face_id, journal, key, on_progress)
                except NoUsableFootage as problem:
                    warnings.append(f"every frame passes through unchanged: {problem.message}")
                enrolment_s = time.perf_counter() - enrolment_began
            plan = await self._plan(method, info, workspace, index, face_id, actor)
            computed, reused = journal.computed, journal.reused
            facts = await self._film(method, info, plan, workspace, actor, journal, key, writer, on_progress)
            warnings += _about_damage(facts)
        return DubOutcome(
            written=writer.report,
            info=info,
            plan=plan,
            actor=actor,
            face_id=face_id,
            facts=facts,
            windows_computed=journal.computed - computed,
            windows_reused=journal.reused - reused,
            times=StageTimes(
                stages=self._clock.stages(),
                frames=info.video.num_frames,
                end_to_end_s=time.perf_counter() - began - enrolment_s,
                personalize_s=enrolment_s,
                cpu_s=time.process_time() - used,
            ),
            warnings=warnings,
        )

    @property
    def folder(self) -> Path | None:
        """The job's folder, once it runs."""
        return self._folder

    def discard(self) -> None:
        """Remove the job's folder, its windows and the blobs of an actor made in passing, but for what somebody else counts."""
        if self._folder is None:
            return
        journalled = list(Journal(self._folder / "journal", self._store).refs())
        for ref in self._ledger.release(self._folder, journalled):
            self._store.delete(ref)
        shutil.rmtree(self._folder, ignore_errors=True)

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
            actor=[ref.sha256 for ref in actor_refs(request.actor)] if request.actor is not None else [],
            enrol=[options.personalize_renderer, options.renderer_steps, options.personalize_motion, options.seed],
            warp=int(request.warp),
        )

    async def _enrolled(
        self,
        method: Method,
        info: MediaInfo,
        workspace: Workspace,
        index: FaceIndex,
        face_id: int,
        journal: Journal,
        key: str,
        on_progress: OnProgress,
    ) -> EnrolledActor:
        step = step_key("enrol", job=key)
        found = await asyncio.to_thread(journal.find, step)
        if found is not None:
            return actor_from_arrays(found)
        actor = await enrol_from(
            self._stages,
            method,
            info,
            workspace,
            index,
            face_id,
            self._request.enrol,
            lambda name, done, total: on_progress(f"enrol {name}", done, total),
            on_artefact=lambda ref: self._ledger.hold(workspace.folder, ref_from(ref)),
        )
        await asyncio.to_thread(journal.record, step, *actor_arrays(actor))
        return actor

    async def _plan(
        self,
        method: Method,
        info: MediaInfo,
        workspace: Workspace,
        index: FaceIndex,
        face_id: int | None,
        actor: EnrolledActor | None,
    ) -> Plan:
        total = info.video.num_frames
        if actor is None:
            plan = make_plan(index, face_id, np.ones(total, np.float32))
            unknown = np.where(plan.rendered(), common_pb2.FRAME_REASON_LOW_CONFIDENCE, plan.reason)
            return replace(plan, reason=unknown.astype(np.int32))
        workspace.motion.clear()
        await predict_motion(
            self._stages,
            method.motion,
            actor.style,
            workspace.speech,
            timeline_of(info),
            total,
            workspace.motion,
            block=self._request.feature_block,
        )
        return make_plan(index, face_id, _speech_probability(workspace))

    async def _film(
        self,
        method: Method,
        info: MediaInfo,
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
            config = WindowConfig(bank=actor.bank, renderer=actor.renderer, model=method.renderer, mode=self._request.warp)
            inputs = FilmInputs(config, actor.geometry, plan, workspace.faces, workspace.motion)
        with writer:
            return await write_film(
                info,
                writer,
                rendered_windows(self._stages, inputs, plan, journal, key),
                plan,
                workspace.faces,
                threads=self._request.threads,
                clock=self._clock,
                on_progress=lambda done: on_progress("dub", done, plan.num_frames),
            )


def _speech_probability(workspace: Workspace) -> npt.NDArray[np.float32]:
    motion = workspace.motion
    parts = [motion.read(begin, begin + 512)["speech_probability"] for begin in range(0, motion.num_rows, 512)]
    return np.concatenate(parts)


def _about_speech(extent: SpeechExtent, info: MediaInfo) -> list[str]:
    film = float(info.video.duration)
    if extent.longer:
        return [f"the speech is longer than the footage ({film:.2f} s): it is cut there"]
    if extent.used_s < film - 0.1:
        return [f"the speech ends at {extent.used_s:.2f} s of {film:.2f} s: the mouth stays shut after that"]
    return []


def _about_damage(facts: FilmFacts) -> list[str]:
    if not facts.damaged:
        return []
    return [f"damaged frames in the footage, filled in by the decoder: {len(facts.damaged)}, the first is frame {facts.damaged[0]}"]
