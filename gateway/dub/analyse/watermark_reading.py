"""Search for watermarks in all faces of a video, which are found as a dub finds them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from gateway.dub.analyse.face_records import face_records
from gateway.dub.analyse.footage import TrackedFrame, track_all
from gateway.media.types import MediaInfo
from gateway.provenance.watermark.detection import STEP_S, Detector, Finding, ResponseSpan, projected, responses, seen_spans
from gateway.provenance.watermark.pattern import RecentMean, at_first_frames, reduced
from gateway.stages.interface import Stages
from services.common.array_types import Float32, UInt8


@dataclass(slots=True)
class _Face:
    """One face as the video shows it: seconds of its frames, projected luma, pictures around the jaw, frames that begin a shot."""

    seconds: list[float] = field(default_factory=list)
    luma: list[Float32] = field(default_factory=list)
    pictures: list[UInt8] = field(default_factory=list)
    moments: RecentMean = field(default_factory=RecentMean)
    cuts: list[int] = field(default_factory=list)
    shot: int = 0


async def find_watermark(
    stages: Stages, info: MediaInfo, key: bytes | None, *, threads: int, on_frame: Callable[[int], None]
) -> Finding | None:
    """Return the likeliest watermark in the faces of a video; None: no face is seen for a second or longer.

    Args:
        key: key of the watermarks of this installation, 32 bytes; None: only public watermarks are looked for.
        threads: threads of the decoder.
        on_frame: called with the number of tracked frames.

    Raises:
        MediaUnsupportedError: the file breaks off.
        DubstageError: from the face stage.
    """
    faces = await responses_of_faces(stages, info, threads=threads, on_frame=on_frame)
    return await asyncio.to_thread(lambda: likeliest(faces, Detector(key)))


def likeliest(faces: Sequence[Sequence[ResponseSpan]], detector: Detector) -> Finding | None:
    """Return the likeliest watermark in the faces of a video; None: no face is seen for a second or longer.

    Args:
        faces: responses of every face, from `responses_of_faces`.
        detector: looks for marks.
    """
    findings = [detector.find(parts, trials=len(faces)) for parts in faces]
    return min((finding for finding in findings if finding is not None), key=lambda finding: finding.log10_chance, default=None)


async def responses_of_faces(
    stages: Stages, info: MediaInfo, *, threads: int, on_frame: Callable[[int], None]
) -> list[list[ResponseSpan]]:
    """Return the responses of every face of a video to chips. They do not depend on a key.

    Memory grows with the length of the video: 2 kB per face and frame.

    Args:
        threads: threads of the decoder.
        on_frame: called with the number of tracked frames.

    Raises:
        MediaUnsupportedError: the file breaks off.
        DubstageError: from the face stage.
    """
    faces: dict[int, _Face] = {}
    times = [float(tick * info.video.time_base) for tick in (info.video.pts - info.video.pts[0]).tolist()]
    shot = 0

    async def take(frame: TrackedFrame) -> None:
        nonlocal shot
        shot += frame.faces.shot_cut
        for face_id, luma, picture in await asyncio.to_thread(_lumas, frame):
            face = faces.setdefault(face_id, _Face(shot=shot))
            if face.shot != shot:
                face.cuts.append(len(face.seconds))
                face.shot = shot
            face.seconds.append(times[frame.index])
            face.luma.append(luma)
            face.pictures.append(face.moments.with_frame(times[frame.index], picture))
        on_frame(frame.index + 1)

    await track_all(stages, info, threads, take)
    return await asyncio.to_thread(lambda: [_parts(face) for face in faces.values()])


def _lumas(frame: TrackedFrame) -> list[tuple[int, Float32, UInt8]]:
    """Return the id, the projected luma and the reduced luma of every face of a frame."""
    rows = face_records(frame.faces, frame.cut_box, frame.scale)
    lumas = [(int(row["face_id"]), np.asarray(cv2.cvtColor(row["pixels"], cv2.COLOR_RGB2GRAY), np.uint8)) for row in rows]
    return [(face_id, projected(luma), reduced(luma)) for face_id, luma in lumas]


def _parts(face: _Face) -> list[ResponseSpan]:
    seconds, luma, pictures = np.array(face.seconds, np.float64), np.array(face.luma, np.float32), np.array(face.pictures, np.uint8)
    parts = []
    for seen in seen_spans(seconds, face.cuts):
        first, rows = responses(seconds[seen], luma[seen])
        grid = STEP_S * np.arange(first, first + len(rows), dtype=np.float64)
        parts.append(ResponseSpan(first, rows, at_first_frames(seconds, pictures, grid)))
    return parts
