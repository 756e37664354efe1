"""Lines of a scene: each is a part of one dub, with the face, the speech and the frames of the line."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from gateway.async_utilities import in_thread
from gateway.consent.record import digest_of
from gateway.consent.subject import Face
from gateway.dub.analyse.face_choice import FaceChoice
from gateway.dub.analyse.motion_clip import frame_seconds
from gateway.dub.job.outcome import TargetRecords
from gateway.dub.job.passes import DubbedPerson, DubPart, DubPasses, plan_of
from gateway.dub.learn.analysis import FootageAnalysis
from gateway.dub.learn.slow_expression import find_expression
from gateway.dub.learn.subjects import face_like, face_of_actor
from gateway.dub.learn.target_mouths import TargetMouths, expressive_mouths
from gateway.dub.request.dub_request import DubLine, check_overlaps, check_shared_faces, naming, open_speech
from gateway.dub.sound.speech import (
    AlignedSpeech,
    MotionRequest,
    SpeechExtent,
    extract_features,
    motion_frames_for,
    predict_motion,
)
from gateway.dub.state.journal import Journal, step_key
from gateway.dub.state.records import FEATURE_RECORD, MOTION_RECORD, RecordFile, RecordSpan
from services.common.array_types import Array
from services.common.store.tensor_bytes import NamedArrays
from services.common.wire.convert import timeline_to_proto
from services.common.wire.timeline import Timeline


@dataclass(frozen=True, slots=True)
class SceneLines:
    """Passes of the lines of a scene. What is learned of a person serves all lines of the person.

    Args:
        passes: passes of the scene, whose footage is tracked.
    """

    passes: DubPasses

    async def parts(self, frames: Sequence[range]) -> list[DubPart]:
        """Return each line as a part of the dub, in the order of the lines.

        Args:
            frames: frames of the lines.

        Raises:
            InvalidRequestError: the footage does not show the face of a line, or two lines of one face overlap.
            ConsentOtherSubjectError, ConsentFaceUncertainError: a consent record is not about the person whom a line shows.
            DubstageError: from the stages.
        """
        passes = self.passes
        workspace, lines = passes.analysis.workspace, passes.request.lines
        actors: dict[str, Face] = {}
        analyses = [await self._choose(line, span, actors) for line, span in zip(lines, frames, strict=True)]
        # A face that boxes follow has the id of a track that is another face in some frames: the records are compared.
        numbers = [each.face_id if each.chosen is not None and not each.tracked_ids else None for each in analyses]
        check_overlaps(lines, frames, numbers)
        if any(each.tracked_ids for each in analyses):
            check_shared_faces(lines, frames, [each.rows if each.chosen is not None else None for each in analyses])
        followed = [_followed(each) for each in analyses]
        workspace.motion.clear()
        workspace.speech.clear()
        people: dict[str, DubbedPerson] = {}
        parts = []
        for number, (line, span, analysis) in enumerate(zip(lines, frames, analyses, strict=True)):
            spoken = [other for other, its in zip(frames, followed, strict=True) if its and its == followed[number]]
            parts.append(await self._part(line, span, analysis, spoken, people))
            passes.on_progress("lines", number + 1, len(lines))
        return parts

    async def _choose(self, line: DubLine, frames: range, actors: dict[str, Face]) -> FootageAnalysis:
        """Return an analysis in which the face of a line is selected; none is selected if the footage shows no face.

        Args:
            frames: frames of the line.
            actors: faces of actors by id, as measured for earlier lines; gets the actor of this line.
        """
        passes, choice = self.passes, line.dub.face
        analysis = passes.analysis.beside()
        with naming(line):
            if choice.kind != "actor":
                await analysis.select(choice, frames)
                return analysis
            stored = line.dub.actor_record
            assert stored is not None, "the line has an actor"
            if stored.actor_id not in actors:
                folder = analysis.workspace.folder
                actors[stored.actor_id] = await face_of_actor(analysis.stages, passes.store, stored, folder, line.dub.threads)
            analysis.chosen = face_like(analysis.index.embeddings, actors[stored.actor_id], stored.actor_id)
            return analysis

    async def _part(
        self,
        line: DubLine,
        frames: range,
        analysis: FootageAnalysis,
        spoken: Sequence[range],
        people: dict[str, DubbedPerson],
    ) -> DubPart:
        """Return a line as a part of the dub.

        Args:
            frames: frames of the line.
            analysis: the footage, with the face of the line selected; none is selected if the footage shows no face.
            spoken: frames of all lines of this face.
            people: people who have spoken; gets the person of this line.
        """
        scene, dub = self.passes, line.dub
        face, info = analysis.chosen, analysis.info
        records = [digest_of(record) for record in dub.consents if record is not None]
        actors = [ref.sha256 for ref in dub.actor.refs.values()] if dub.actor is not None else []
        followed = {"rows": _followed(analysis)} if analysis.tracked_ids else {}
        who = step_key("person", job=scene.key, face=face.face_id if face is not None else -1, actor=actors, **followed)
        key = step_key(
            "line",
            person=who,
            speech=scene.digests[dub.speech] if dub.speech is not None else "",
            frames=[frames.start, frames.stop],
            **asdict(dub.mouth),
        )
        checked = step_key("checked", person=who, consents=records)
        request = replace(dub, face=FaceChoice("id", face.face_id)) if face is not None else dub
        passes = replace(scene, request=request, analysis=analysis, key=who)
        if checked in people:
            await analysis.select(request.face)
            person = replace(people[checked], chosen=face, seconds=0.0)
        else:
            people[checked] = person = replace(await passes.person(), chosen=face)
        motion, features, extent = await self._predict(passes, person, frames, line, key)
        mouths = TargetMouths(motion, frames.start)
        if person.actor is not None and request.keeps_expression:
            kept = await find_expression(analysis, person.actor, scene.on_progress, name=f"expression-{who[:16]}")
            mouths = await expressive_mouths(analysis, motion, frames, kept)
        plan = plan_of(analysis.index, person, motion, mouths, frames, spoken)
        aligned: AlignedSpeech | None = None
        if analysis.method.renderer.speech:
            seconds = frame_seconds(info)
            aligned = AlignedSpeech(features, seconds - seconds[frames.start])
        return DubPart(
            request=request,
            person=person,
            plan=plan,
            frames=frames,
            key=key,
            mouths=mouths,
            speech=aligned.around if aligned is not None else None,
            extent=extent,
            records=TargetRecords(motion, features, mouths),
        )

    async def _predict(
        self, passes: DubPasses, person: DubbedPerson, frames: range, line: DubLine, key: str
    ) -> tuple[RecordSpan, RecordSpan, SpeechExtent]:
        """Append the MOTION_RECORDs and the FEATURE_RECORDs of a line to those of the scene. An earlier run may have found them.

        Args:
            key: key of the line.

        Returns:
            The MOTION_RECORDs of the line, the FEATURE_RECORDs, and how the speech fits the frames.
        """
        analysis, scene = passes.analysis, self.passes
        workspace, video = analysis.workspace, analysis.info.video
        pts = video.pts[frames.start : frames.stop] - video.pts[frames.start]
        last = int(video.pts[frames.stop]) if frames.stop < video.num_frames else int(video.pts[-1]) + video.last_duration
        duration = (last - int(video.pts[frames.start])) * video.time_base
        count = motion_frames_for(duration)
        with naming(line):
            speech = open_speech(line.dub, analysis.info)
        first_motion, first_feature = workspace.motion.num_rows, workspace.speech.num_rows
        spans = RecordSpan(workspace.motion, first_motion, len(frames)), RecordSpan(workspace.speech, first_feature, count)
        style = [ref.sha256 for ref in person.actor.refs.values()] if person.actor is not None else []
        step = step_key("spoken", line=key, actor=style)
        stored = await asyncio.to_thread(scene.journal.find, step, _spoken_of)
        if stored is not None and len(stored.features) == count and len(stored.motion) in (0, len(frames)):
            await asyncio.to_thread(workspace.motion.append, stored.motion)
            await asyncio.to_thread(workspace.speech.append, stored.features)
            return *spans, stored.extent
        with workspace.passing("line_features", FEATURE_RECORD) as features:
            extent = await extract_features(analysis.stages, speech, features, count, duration, analysis.method.features)
            if person.actor is not None:
                motion = MotionRequest(
                    predictor=analysis.method.motion,
                    style=person.actor.style,
                    timeline=timeline_to_proto(Timeline(pts=pts, time_base=video.time_base)),
                    num_frames=len(frames),
                    mouth=passes.request.mouth,
                )
                with workspace.passing("line_motion", MOTION_RECORD) as predicted:
                    await predict_motion(analysis.stages, motion, features, predicted)
                    await asyncio.to_thread(_append, predicted, workspace.motion)
            await asyncio.to_thread(_append, features, workspace.speech)
        await in_thread(_record_spoken, scene.journal, step, spans, extent)
        return *spans, extent


def _followed(analysis: FootageAnalysis) -> str:
    """Return what tells the selected face from others: the digest of its records; empty: none is selected."""
    return hashlib.sha256(analysis.rows.tobytes()).hexdigest() if analysis.chosen is not None else ""


@dataclass(frozen=True, slots=True)
class _Spoken:
    """Result of an earlier run for one line.

    Attributes:
        motion: MOTION_RECORDs; none: the person is not known.
        features: FEATURE_RECORDs.
        extent: how the speech fits the frames.
    """

    motion: Array
    features: Array
    extent: SpeechExtent


def _record_spoken(journal: Journal, step: str, spans: tuple[RecordSpan, RecordSpan], extent: SpeechExtent) -> None:
    motion, features = (np.frombuffer(span.read(0, span.num_rows).tobytes(), np.uint8) for span in spans)
    fits = np.array([extent.used_s, extent.longer], np.float64)
    journal.record(step, {"motion": motion, "features": features, "extent": fits})


def _spoken_of(stored: NamedArrays) -> _Spoken:
    """Return what a journal's arrays hold of a line.

    Raises:
        ValueError: the arrays are not those of a line.
    """
    if missing := [name for name in ("motion", "features", "extent") if name not in stored]:
        raise ValueError(f"the arrays are not those of a line: {missing[0]}")
    used_s, longer = stored["extent"].tolist()
    motion = np.frombuffer(stored["motion"].tobytes(), MOTION_RECORD)
    return _Spoken(motion, np.frombuffer(stored["features"].tobytes(), FEATURE_RECORD), SpeechExtent(used_s, bool(longer)))


def _append(source: RecordFile, target: RecordFile) -> None:
    for begin in range(0, source.num_rows, 512):
        target.append(source.read(begin, begin + 512))
