"""The first passes over a film and its speech: all faces of the film, and the features of the speech. Each is done once per job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from gateway.ahead import cancelled
from gateway.media.sound import Speech
from gateway.media.types import MediaInfo
from gateway.methods import FeatureKinds
from gateway.pipeline.face_index import FaceIndex, read_index
from gateway.pipeline.face_means import FaceMeans, embed_every, faces_note, faces_of_note
from gateway.pipeline.footage import analyse_footage
from gateway.pipeline.records import FACE_RECORD, FEATURE_RECORD
from gateway.pipeline.speech import SpeechExtent, extract_features, motion_frames_for
from gateway.pipeline.workspace import Workspace
from gateway.stages.interface import Stages
from services.common.errors import ContractBroken

T = TypeVar("T")
U = TypeVar("U")


async def together(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Return both results. If one coroutine fails, the other is cancelled and awaited before the error is raised."""
    tasks = (asyncio.create_task(first), asyncio.create_task(second))
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancelled(tasks)


async def track_footage(
    stages: Stages, info: MediaInfo, workspace: Workspace, *, threads: int, on_frame: Callable[[int], None], embed: bool = False
) -> FaceIndex:
    """Find all faces of a film, and return where their records are.

    Args:
        stages: the stages.
        info: the film.
        workspace: gets the records.
        threads: threads of the decoder.
        on_frame: called with the number of tracked frames.
        embed: whether the faces are measured for comparisons with other films. An earlier run that did not do so is done again.

    Raises:
        InvalidRequest, StorageFull: the records would take more disk space than they may.
        DubstageError: from the face stage.
    """
    note = await asyncio.to_thread(workspace.finished, "faces", workspace.faces)
    known = faces_of_note(note.get("embeddings")) if note is not None else None
    if note is not None and not (embed and known is None):
        try:
            index = await asyncio.to_thread(read_index, workspace.faces, note.get("shot_cuts"), info.video.num_frames)
            return replace(index, embeddings=known or {})
        except ContractBroken as problem:
            workspace.redo("faces", problem.message)
    # One face per frame: the number of faces is not known yet.
    least = info.video.num_frames * FACE_RECORD.itemsize
    await asyncio.to_thread(workspace.allowance.check, least, f"the face records of {info.video.num_frames} frames")
    workspace.faces.clear()
    means = FaceMeans()
    cuts = await analyse_footage(
        stages,
        info,
        workspace.faces,
        threads=threads,
        on_progress=on_frame,
        embed_every=embed_every(info.video.num_frames) if embed else 0,
        on_face=means.add,
    )
    index = await asyncio.to_thread(read_index, workspace.faces, cuts, info.video.num_frames)
    index = replace(index, embeddings=means.faces())
    measured = {"embeddings": faces_note(index.embeddings)} if embed else {}
    workspace.finish("faces", {"shot_cuts": cuts, **measured}, workspace.faces)
    return index


async def hear_speech(
    stages: Stages, duration: Fraction, speech: Speech, workspace: Workspace, kinds: FeatureKinds
) -> SpeechExtent:
    """Extract the features of the new speech for a film of `duration` seconds, and return how the speech fits the film.

    Raises:
        InvalidRequest, StorageFull: the records would take more disk space than they may.
        DubstageError: from the audio stage, or from reading the sound.
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


def folder_of(jobs: Path, key: str) -> Path:
    """Return the workspace folder of the job with this key."""
    return jobs / key[:32]
