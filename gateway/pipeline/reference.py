"""The reference picture of a dub: the face in a file whose appearance the film takes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from dubstage.common.v1alpha1 import common_pb2
from gateway.media.inspection import inspect_in_child
from gateway.media.stills import open_footage
from gateway.media.types import MediaInfo
from gateway.pipeline.face_means import FaceMeans
from gateway.pipeline.face_records import face_records
from gateway.pipeline.footage import tracked_frames
from gateway.pipeline.reference_face import ReferenceFace, reference_face
from gateway.stages.attempts import until_done
from gateway.stages.interface import Stages
from services.common.errors import MediaUnsupported, NoUsableFootage

MAX_FRAMES: Final = 250
"""Most frames of a reference film that are searched for a face."""
_EMBED_EVERY: Final = 5
"""Frames of a face in a reference film from one embedding to the next."""
CHOICE_FRAMES: Final = 50
"""Frames of a reference film, from the first usable face on, of which the best one is taken."""


async def find_reference(stages: Stages, path: Path, folder: Path, *, threads: int, embed: bool = False) -> ReferenceFace:
    """Return the first usable face in a file. If a frame shows several, the largest. Of a film, the best picture of this face.

    Args:
        stages: the stages.
        path: a picture or a film.
        folder: folder for a temporary file.
        threads: threads of the decoder.
        embed: whether the face is measured for comparisons with other films.

    Raises:
        MediaUnsupported: the file is no picture and no film.
        NoUsableFootage: no face can be used.
        DubstageError: from the face stage.
    """
    try:
        info = await inspect_in_child(path)
        with TemporaryDirectory(prefix="reference-", dir=folder) as aside:
            opened = await asyncio.to_thread(open_footage, info, Path(aside), threads=threads)
            face = await until_done(lambda: _best_face(stages, opened, threads, _EMBED_EVERY if embed else 0))
    except MediaUnsupported as problem:
        raise MediaUnsupported(problem.message, field="reference") from problem
    if face is None:
        searched = f" in its first {MAX_FRAMES} frames" if info.video.num_frames > MAX_FRAMES else ""
        raise NoUsableFootage(
            f"the reference {path} shows no face that can be used{searched}: give a picture of a whole face from the front",
            subject=str(path),
        )
    return face


async def _best_face(stages: Stages, info: MediaInfo, threads: int, embed_every: int) -> ReferenceFace | None:
    best: ReferenceFace | None = None
    means = FaceMeans()
    face_id, last = -1, MAX_FRAMES - 1
    async with aclosing(tracked_frames(stages, info, threads, embed_every=embed_every)) as frames:
        async for tracked in frames:
            for answered in tracked.faces.faces:
                means.add(answered)
            records = await asyncio.to_thread(face_records, tracked.faces, tracked.rgb, tracked.scale)
            usable = records[records["reason"] == common_pb2.FRAME_REASON_DUBBED]
            if best is None and len(usable):
                area = usable["box"][:, 2] * usable["box"][:, 3]
                face_id, last = int(usable["face_id"][np.argmax(area)]), tracked.index + CHOICE_FRAMES - 1
            for record in usable[usable["face_id"] == face_id]:
                face = reference_face(record)
                best = face if best is None or face.cost < best.cost else best
            if tracked.index == last:
                break
    return replace(best, face=means.faces().get(face_id)) if best is not None else None
