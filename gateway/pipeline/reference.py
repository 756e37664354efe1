"""The reference picture of a dub: the render box of a face whose appearance the film takes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from dubstage.common.v1alpha1 import common_pb2
from gateway.media.inspection import inspect_film_aside
from gateway.media.stills import open_footage
from gateway.media.types import MediaInfo
from gateway.pipeline.face_records import face_records
from gateway.pipeline.footage import tracked_frames
from gateway.stages.attempts import until_done
from gateway.stages.interface import Stages
from services.common.array_types import UInt8
from services.common.errors import MediaUnsupported, NoUsableFootage

MAX_FRAMES: Final = 250
"""Most frames of a reference film that are searched for a face."""


async def reference_box(stages: Stages, path: Path, folder: Path, *, threads: int) -> UInt8:
    """Return the render box of the first usable face in a file, uint8 [160, 160, 3], RGB. If a frame shows several, the largest.

    Args:
        stages: the stages.
        path: a picture or a film.
        folder: folder for a temporary file.
        threads: threads of the decoder.

    Raises:
        MediaUnsupported: the file is no picture and no film.
        NoUsableFootage: no face can be used.
        DubstageError: from the face stage.
    """
    try:
        info = await inspect_film_aside(path)
        with TemporaryDirectory(prefix="reference-", dir=folder) as aside:
            opened = await asyncio.to_thread(open_footage, info, Path(aside), threads=threads)
            box = await until_done(lambda: _first_box(stages, opened, threads))
    except MediaUnsupported as problem:
        raise MediaUnsupported(problem.message, field="reference") from problem
    if box is None:
        searched = f" in its first {MAX_FRAMES} frames" if info.video.num_frames > MAX_FRAMES else ""
        raise NoUsableFootage(
            f"the reference {path} shows no face that can be used{searched}: give a picture of a whole face from the front",
            subject=str(path),
        )
    return box


async def _first_box(stages: Stages, info: MediaInfo, threads: int) -> UInt8 | None:
    async with aclosing(tracked_frames(stages, info, threads)) as frames:
        async for tracked in frames:
            records = await asyncio.to_thread(face_records, tracked.faces, tracked.rgb, tracked.scale)
            usable = records[records["reason"] == common_pb2.FRAME_REASON_DUBBED]
            if len(usable):
                area = usable["box"][:, 2] * usable["box"][:, 3]
                return np.asarray(usable["pixels"][int(np.argmax(area))], np.uint8)
            if tracked.index + 1 == MAX_FRAMES:
                break
    return None
