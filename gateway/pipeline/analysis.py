"""The first passes of a job: all faces of the footage, features of its speech, whose mouth it is, and who they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gateway.media.sound import SoundReader, Speech
from gateway.media.stills import is_still
from gateway.media.types import MediaInfo
from gateway.methods import FeatureKinds, Method
from gateway.pipeline.enrol import (
    EnrolledActor,
    EnrolOptions,
    MotionClip,
    OnArtefact,
    OnStep,
    enrol,
    enrolment_rows,
    estimate_lag,
    on_motion_grid,
    still_row,
    unnoted,
)
from gateway.pipeline.faces import FaceChoice, check_one_face, choose_face
from gateway.pipeline.footage import FaceIndex, analyse_footage, read_index
from gateway.pipeline.records import FACE_RECORD, FEATURE_RECORD, RecordFile
from gateway.pipeline.speech import SpeechExtent, extract_features, motion_frames_for
from gateway.pipeline.workspace import Workspace
from gateway.stages.interface import Stages
from services.common.errors import ContractBroken, NoUsableFootage
from services.common.timeline import MOTION_RATE

SOUND_SECONDS = 60
"""Of the footage's own sound, the part that lag and enrolment look at."""

T = TypeVar("T")
U = TypeVar("U")


async def together(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Both results; when one fails the other is cancelled and awaited before the error goes on."""
    tasks = (asyncio.create_task(first), asyncio.create_task(second))
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def frame_seconds(info: MediaInfo) -> npt.NDArray[np.float64]:
    """Presentation time of every frame from the first, seconds, float64 [T]."""
    return np.asarray((info.video.pts - info.video.pts[0]) * float(info.video.time_base), np.float64)


async def track_footage(
    stages: Stages, info: MediaInfo, workspace: Workspace, *, threads: int, on_frame: Callable[[int], None]
) -> FaceIndex:
    """All faces of the footage, once a job.

    Raises:
        InvalidRequest, StorageFull: the records would take more of the disk than they may.
    """
    note = await asyncio.to_thread(workspace.finished, "faces", workspace.faces)
    if note is not None:
        try:
            return await asyncio.to_thread(read_index, workspace.faces, note.get("shot_cuts"), info.video.num_frames)
        except ContractBroken as problem:
            workspace.redo("faces", problem.message)
    # Of one face per frame: how many there are is not known before.
    least = info.video.num_frames * FACE_RECORD.itemsize
    await asyncio.to_thread(workspace.allowance.check, least, f"the face records of {info.video.num_frames} frames")
    workspace.faces.clear()
    cuts = await analyse_footage(stages, info, workspace.faces, threads=threads, on_progress=on_frame)
    index = await asyncio.to_thread(read_index, workspace.faces, cuts, info.video.num_frames)
    workspace.finish("faces", {"shot_cuts": cuts}, workspace.faces)
    return index


async def hear_speech(
    stages: Stages, duration: Fraction, speech: Speech, workspace: Workspace, kinds: FeatureKinds
) -> SpeechExtent:
    """Features of the new speech for a film of `duration` seconds, once a job.

    Raises:
        InvalidRequest, StorageFull: the records would take more of the disk than they may.
    """
    frames = motion_frames_for(duration)
    note = await asyncio.to_thread(workspace.finished, "speech", workspace.speech)
    match note:
        case {"used_s": float(used_s), "longer": bool(longer)} if workspace.speech.num_rows == frames:
            return SpeechExtent(used_s, longer)
        case dict():
            workspace.redo("speech", "speech.bin")
    what = f"the features of {float(duration):,.0f} s of speech"
    await asyncio.to_thread(workspace.allowance.check, frames * FEATURE_RECORD.itemsize, what)
    workspace.speech.clear()
    extent = await extract_features(stages, speech, workspace.speech, frames, duration, kinds)
    workspace.finish("speech", asdict(extent), workspace.speech)
    return extent


async def hear_footage(stages: Stages, info: MediaInfo, workspace: Workspace, kinds: FeatureKinds) -> RecordFile:
    """Features of the footage's own sound, at most SOUND_SECONDS, once a job."""
    if await asyncio.to_thread(workspace.finished, "sound", workspace.sound) is None:
        workspace.sound.clear()
        own = SoundReader(info.path, origin=info.video.start).speech()
        wanted = min(motion_frames_for(info.video.duration), int(SOUND_SECONDS * MOTION_RATE))
        await extract_features(stages, own, workspace.sound, wanted, wanted / MOTION_RATE, kinds)
        workspace.finish("sound", {}, workspace.sound)
    return workspace.sound


def clip_of(faces: RecordFile, rows: list[int], seconds: npt.NDArray[np.float64]) -> tuple[MotionClip, int]:
    """Motion of face records on the motion grid, and the grid frame of the footage at which it begins."""
    records = faces.read_rows(rows)
    begin = int(np.floor(seconds[records["frame"][0]] * float(MOTION_RATE)))
    return on_motion_grid(records, seconds, begin / float(MOTION_RATE)), begin


async def select_face(
    stages: Stages, info: MediaInfo, workspace: Workspace, index: FaceIndex, choice: FaceChoice, kinds: FeatureKinds
) -> int | None:
    """Id of the face to dub; None where there is none. `speaker` is the face whose mouth fits the footage's own sound best.

    Raises:
        InvalidRequest: the face that is meant is not there, or a still picture shows several and nobody said which.
    """
    if is_still(info):
        check_one_face(index, choice)
    seconds = frame_seconds(info)

    async def fits_sound(face_id: int) -> float:
        sound = await hear_footage(stages, info, workspace, kinds)
        try:
            rows = enrolment_rows(workspace.faces, index.rows_of(face_id), seconds)
            clip, begin = await asyncio.to_thread(clip_of, workspace.faces, rows, seconds)
            reply = await estimate_lag(stages, clip, sound.read(begin, begin + len(clip.mouth)))
        except NoUsableFootage:
            return float("-inf")
        return reply.confidence

    return await choose_face(index, choice, fits_sound if info.audio else None)


async def enrol_from(
    stages: Stages,
    method: Method,
    info: MediaInfo,
    workspace: Workspace,
    index: FaceIndex,
    face_id: int,
    options: EnrolOptions,
    on_step: OnStep,
    frames: range | None = None,
    on_artefact: OnArtefact = unnoted,
) -> EnrolledActor:
    """Learn a person from the first ten usable seconds of `frames` (None: of the whole footage).

    Raises:
        NoUsableFootage: too few frames show the face.
    """
    seconds = frame_seconds(info)
    span = frames if frames is not None else range(info.video.num_frames)
    shown = index.rows_of(face_id)
    if method.takes_still and is_still(info):
        rows = still_row(workspace.faces, shown)
    else:
        rows = await asyncio.to_thread(enrolment_rows, workspace.faces, shown, seconds, span.start, span.stop)
    clip, begin = await asyncio.to_thread(clip_of, workspace.faces, rows, seconds)
    features: npt.NDArray[Any] | None = None
    if info.audio:
        sound = await hear_footage(stages, info, workspace, method.features)
        features = sound.read(begin, begin + len(clip.mouth))
    return await enrol(stages, method, info, workspace.faces, rows, clip, features, options, on_step, on_artefact)


def folder_of(jobs: Path, key: str) -> Path:
    """Where a job's workspace lies."""
    return jobs / key[:32]
