"""Frames, time, memory and disk of a dub before it runs, from a few pictures of the footage and measured costs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np

from dubstage.client import face as face_client
from dubstage.client import rpcs
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2
from gateway.async_utilities import close
from gateway.dub.analyse.footage import tracker_factor
from gateway.dub.job.dub_job import trains_networks
from gateway.dub.job.kept_analysis import trained_methods
from gateway.dub.job.key import analysis_key, embeds_faces
from gateway.dub.learn.analysis import folder_of
from gateway.dub.request.dub_request import (
    DubRequest,
    check_against_footage,
    check_line,
    check_output,
    fitted,
    output_speech,
    sha256_of,
    shown_video,
)
from gateway.dub.sound.speech import motion_frames_for
from gateway.dub.state.costs import DubWork, PaceFile, figures
from gateway.dub.state.disk_needs import output_needs, records_need
from gateway.dub.state.records import read_note
from gateway.dub.state.workspace import FACTS, is_analysis, is_whole
from gateway.media.inspection import inspect_in_child
from gateway.media.opening import DecodingProgress, decoded_frames, open_input, video_stream
from gateway.media.reader import VideoReader, reduced, to_rgb
from gateway.media.stills import is_still, still_video_info
from gateway.media.types import MediaInfo
from gateway.stages.calls import until_done
from gateway.stages.interface import Stages
from services.common.array_types import UInt8
from services.common.errors import MediaUnsupportedError
from services.common.face.native_pictures import native_scale
from services.common.methods import method_named

_SAMPLES: Final = 12
"""Pictures of the footage that are looked at, evenly spread."""
_BANK_FRAMES: Final = 300
"""Most frames of a person that an enrolment stores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DubEstimate:
    """Estimated costs of a dub.

    Attributes:
        num_frames: frames of the video; exact.
        num_rendered: frames with a usable face and, of a scene, with a line, by a few pictures of the footage.
        processor_s: processor seconds of all threads, with the stages.
        wall_s: wall-clock seconds on two processors or more.
        memory_bytes: largest memory of a process that runs the stages too.
        disk_bytes: files of the job, artefacts and video at their largest.
        num_dubs: earlier dubs of this machine that correct the times; 0: the figures are of another machine.
    """

    num_frames: int
    num_rendered: int
    processor_s: float
    wall_s: float
    memory_bytes: int
    disk_bytes: int
    num_dubs: int


async def estimate_dub(request: DubRequest, stages: Stages, jobs: Path) -> DubEstimate:
    """Return what a dub will take. The face stage looks at a few pictures; all else is read from the headers of the files.

    Args:
        request: the prepared request.
        stages: the open stages.
        jobs: folder of all jobs. Times of earlier dubs lie in the data folder above.

    Raises:
        DubstageError: the request cannot be met, a file cannot be read, or the face stage failed.
    """
    info = await inspect_in_child(request.footage)
    check_against_footage(request, info)
    tracks, learns_anew = await asyncio.to_thread(_left_to_learn, request, jobs, stages.face_model)
    lines = await asyncio.to_thread(lambda: [check_line(line, info) for line in request.lines])
    speech = await asyncio.to_thread(output_speech, request, info, lines)
    request = await asyncio.to_thread(fitted, request, info, speech)
    own = request.own_timeline
    choice = await asyncio.to_thread(check_output, request, info, speech)
    share, scale = await sampled_face(stages, info)
    if is_still(info):
        # A dub opens the picture as a video of one frame, which is smaller than a photograph.
        info = still_video_info(info)
    video = await asyncio.to_thread(shown_video, request, info, speech)
    spoken = set().union(*lines) if lines else range(video.num_frames)
    rendered, mouths = round(share * len(spoken)), round(share * (sum(map(len, lines)) or video.num_frames))
    learns = rendered > 0 and learns_anew and trains_networks(request, info)
    # Lines that name their faces in one way are of one person.
    strangers = {part.face for part in request.parts if part.actor is None}
    work = DubWork(
        method=request.method,
        pixels=video.width * video.height,
        footage_frames=info.video.num_frames if tracks else 0,
        frames=video.num_frames,
        rendered=mouths,
        scale=scale if request.has_bank_detail else 0,
        own_timeline=own,
        personalized=len(strangers) if learns else 0,
    )
    records = records_need(
        jobs,
        round(share * info.video.num_frames),
        motion_frames_for(video.end),
        own_sound=bool(info.audio),
        keeps_expression=request.keeps_expression,
        background=video if own else None,
        used=0,
    )
    segmented = bool(lines) and choice.has_segments
    output = output_needs(request.output, choice.codec, video, jobs, [(mouths, work.scale)], stored=0, segmented=segmented)
    bank = len(strangers) * min(round(share * info.video.num_frames), _BANK_FRAMES)
    pace = await asyncio.to_thread(PaceFile(jobs.parent).read)
    return DubEstimate(
        num_frames=video.num_frames,
        num_rendered=rendered,
        processor_s=work.processor_s * pace.processor,
        wall_s=work.wall_s * pace.wall,
        memory_bytes=work.memory_bytes,
        disk_bytes=sum(need.num_bytes for need in (records, *output)) + int(bank * figures().bank_frame_kb * 1000),
        num_dubs=pace.num_dubs,
    )


def _left_to_learn(request: DubRequest, jobs: Path, face_model: str) -> tuple[bool, bool]:
    """Return whether a dub has to track the faces of its footage, and whether it has to learn people. Blocks.

    A kept analysis has the faces. If the networks of the method were adapted to a person of the analysis, the dub counts as one of
    this person: whom a dub shows is known only when a face is chosen. The footage is read for its digest only if an analysis of a
    file of this name is kept.
    """
    name = request.footage.name
    named = [folder for folder in _folders(jobs) if is_whole(folder) and is_analysis(folder) and _footage_of(folder) == name]
    if not named:
        return True, True
    kept = folder_of(jobs, analysis_key(sha256_of(request.footage), face_model, embeds=embeds_faces(request)))
    if kept not in named:
        return True, True
    return False, method_named(request.method).name not in trained_methods(kept)


def _folders(jobs: Path) -> list[Path]:
    return [folder for folder in jobs.iterdir() if folder.is_dir()] if jobs.is_dir() else []


def _footage_of(folder: Path) -> object:
    return (read_note(folder / FACTS) or {}).get("footage")


async def sampled_face(stages: Stages, info: MediaInfo) -> tuple[float, int]:
    """Return the share of frames with a usable face, 0 to 1, and the native pixels per box pixel of the largest face, 1 to 4.

    Raises:
        MediaUnsupportedError: no picture of the footage can be decoded.
        DubstageError: from the face stage.
    """
    pictures = await asyncio.to_thread(_pictures, info)
    return await until_done(lambda: _seen_face(stages, pictures))


async def _seen_face(stages: Stages, pictures: list[tuple[float, UInt8]]) -> tuple[float, int]:
    scales: deque[float] = deque()

    async def requests() -> AsyncIterator[face_pb2.TrackRequest]:
        call = face_client.track.requests(smoothing_half_width=0)
        yield call.config
        for _, small in pictures:
            yield call.item(small)

    seen = usable = 0
    replies = stages.stream(rpcs.face.TRACK, requests())
    try:
        async for reply in replies:
            for frame in reply.frames:
                factor = pictures[seen][0]
                seen += 1
                frame_scales = [face.pose.scale * factor for face in frame.faces if face.reason == common_pb2.FRAME_REASON_DUBBED]
                usable += bool(frame_scales)
                scales.extend([max(frame_scales)] if frame_scales else [])
    finally:
        await close(replies)
    return usable / max(1, seen), native_scale(float(np.median(scales))) if scales else 1


def _pictures(info: MediaInfo) -> list[tuple[float, UInt8]]:
    """Return pictures of the footage, upright RGB as the tracker takes them, each with its frame's pixels per pixel. Blocks.

    A picture is the first one after a key frame near its time, so that a long video need not be decoded.
    """
    pictures = [_reduced(rgb) for rgb in _sampled(info)]
    if not pictures:
        raise MediaUnsupportedError(f"{info.path}: no picture can be decoded", field="video")
    return pictures


def _reduced(rgb: UInt8) -> tuple[float, UInt8]:
    """Return the pixels of a picture per pixel of the picture that the tracker takes, and the latter."""
    factor = tracker_factor(rgb.shape[1], rgb.shape[0])
    small = np.ascontiguousarray(reduced(rgb, factor) if factor > 1 else rgb)
    return rgb.shape[1] / small.shape[1], small


def _sampled(info: MediaInfo) -> Iterator[UInt8]:
    """Yield pictures of the footage, upright RGB, in the size that is dubbed."""
    video = info.video
    if is_still(info):
        shown = still_video_info(info).video
        with VideoReader(info) as reader:
            rgb = to_rgb(next(iter(reader)))
        yield np.asarray(cv2.resize(rgb, (shown.width, shown.height), interpolation=cv2.INTER_AREA), np.uint8)
        return
    with open_input(info.path, only="picture") as container:
        stream = video_stream(container, info.path)
        for number in range(_SAMPLES):
            at = video.pts[min(video.num_frames - 1, (2 * number + 1) * video.num_frames // (2 * _SAMPLES))]
            picture = None
            # Damage around one sample does not prevent an estimate: the dub says where the footage breaks.
            with suppress(av.FFmpegError, MediaUnsupportedError):
                container.seek(int(at), stream=stream)
                picture = next(decoded_frames(container, stream, info.path, DecodingProgress()), None)
            if picture is not None:
                yield video.orientation.upright(np.asarray(picture.to_ndarray(format="rgb24"), np.uint8))
