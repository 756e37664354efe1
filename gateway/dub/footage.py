"""First pass over the footage: every face of every frame and its render box, written to disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from dubstage.client import face as face_client
from dubstage.client import rpcs
from dubstage.face.v1 import face_pb2
from gateway.async_utilities import ReadAhead, close, in_thread
from gateway.dub.face_records import face_records
from gateway.dub.messages import timeline_of
from gateway.dub.records import RecordFile
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.types import DecodedFrame, MediaInfo
from gateway.stages.calls import CallPace, PaceProbe, until_done
from gateway.stages.interface import Stages
from services.common.array_types import UInt8
from services.common.errors import BackendUnavailableError

MAX_TRACKED_SIDE: Final = 1280
"""Longest side of a frame that is sent to the tracker, pixels.
Larger frames are halved, because the tracker uses faces of 192 px."""

AHEAD: Final = 4
"""Decoded frames that may wait for the tracker, and tracked frames that may wait to be cut."""

OnProgress = Callable[[int], None]
OnFace = Callable[[face_pb2.FaceTrack], None]


@dataclass(frozen=True, slots=True, eq=False)
class TrackedFrame:
    """A frame of footage with its faces.

    Attributes:
        index: number of the frame.
        faces: answer of the tracker.
        rgb: the frame, uint8 [H, W, 3].
        scale: pixels of the frame per pixel of the picture that the tracker saw.
    """

    index: int
    faces: face_pb2.FrameFaces
    rgb: UInt8
    scale: float


async def analyse_footage(
    stages: Stages,
    info: MediaInfo,
    faces: RecordFile,
    *,
    threads: int,
    on_progress: OnProgress,
    embed_every: int = 0,
    on_face: OnFace = lambda _: None,
) -> list[int]:
    """Track all faces, append a FACE_RECORD per face and frame, and return the frames that begin a shot.

    The footage is decoded once, unless a replica of the face stage goes away. The state of its tracker is lost then, so another
    replica tracks the video from the beginning, and records are appended from the first frame that has none.

    Args:
        faces: gets the records.
        threads: threads of the decoder.
        on_progress: called with the number of tracked frames.
        embed_every: frames of a face from one embedding to the next; 0: no embeddings.
        on_face: called with every face of every frame, as the face stage answered it.

    Raises:
        MediaUnsupportedError: the file breaks off.
        DubstageError: from the face stage.
    """
    shot_cuts: list[int] = []
    num_recorded = 0

    async def track() -> None:
        nonlocal num_recorded
        async with aclosing(tracked_frames(stages, info, threads, embed_every=embed_every)) as frames:
            async for frame in frames:
                if frame.index < num_recorded:
                    continue
                for face in frame.faces.faces:
                    on_face(face)
                if frame.faces.faces:
                    faces.append(await asyncio.to_thread(face_records, frame.faces, frame.rgb, frame.scale))
                if frame.faces.shot_cut:
                    shot_cuts.append(frame.index)
                num_recorded = frame.index + 1
                on_progress(num_recorded)

    await until_done(track, progress=lambda: num_recorded)
    faces.sync()
    return shot_cuts


async def check_length(stages: Stages, info: MediaInfo, *, threads: int, embed_every: int = 0) -> None:
    """Check that the face stage can track a video in one call, by its pace on the first frames. Nothing is written.

    Short videos, and all videos if the stages are in this process, need no measurement. Otherwise it takes at most 15 s.

    Args:
        info: the video.
        threads: threads of the decoder.
        embed_every: frames of a face from one embedding to the next; 0: no embeddings.

    Raises:
        InvalidRequestError: the video is too long. The message has the length that can be tracked.
        MediaUnsupportedError: the file breaks off in its first frames.
        DubstageError: from the face stage.
    """
    video = info.video

    async def measure() -> None:
        probe = PaceProbe(stages.call_deadline_s, "face", str(info.path), video.num_frames, float(video.duration))
        if not probe.needed:
            return
        async with aclosing(tracked_frames(stages, info, threads, embed_every=embed_every)) as frames:
            async for frame in frames:
                if probe.answered(frame.index + 1):
                    return

    await until_done(measure)


async def tracked_frames(
    stages: Stages, info: MediaInfo, threads: int, *, first: int = 0, embed_every: int = 0
) -> AsyncGenerator[TrackedFrame, None]:
    """Yield every frame of the footage with its faces, in order. Closing the generator ends decoding and tracking.

    Args:
        threads: threads of the decoder.
        first: first frame that is tracked.
        embed_every: frames of a face from one embedding to the next; 0: no embeddings.

    Raises:
        MediaUnsupportedError: the file breaks off.
        InvalidRequestError: the video is too long for one call to a stage that is a server.
        BackendUnavailableError: embeddings are asked for, and the face stage is of a version that has none.
        DubstageError: from the face stage. The tracker's state is lost then, so a new attempt begins at the first frame.
    """
    waiting: deque[tuple[int, UInt8, float]] = deque()
    known: set[int] = set()
    async with AsyncExitStack() as stack:
        # Frames are decoded, tracked and cut at the same time.
        messages = ReadAhead(_frame_messages(info, threads, waiting, first, embed_every), AHEAD)
        stack.push_async_callback(close, messages)
        replies = await stack.enter_async_context(aclosing(ReadAhead(stages.stream(rpcs.face.TRACK, messages), AHEAD)))
        video = info.video
        pace = CallPace(stages.call_deadline_s, "face", str(info.path), video.num_frames, float(video.duration))
        async for reply in replies:
            for frame in reply.frames:
                index, rgb, scale = waiting.popleft()
                pace.answered(index + 1)
                if any(face.face_id not in known and not face.HasField("embedding") for face in frame.faces) and embed_every:
                    raise BackendUnavailableError(
                        "the face stage measures no faces, which consent records need: run the face stage and the gateway from the "
                        "same version of dubstage"
                    )
                known.update(face.face_id for face in frame.faces)
                yield TrackedFrame(index, frame, rgb, scale)


async def _frame_messages(
    info: MediaInfo, threads: int, waiting: deque[tuple[int, UInt8, float]], first: int, embed_every: int
) -> AsyncGenerator[face_pb2.TrackRequest, None]:
    """Yield the footage as requests to the tracker, and append each sent frame to `waiting`."""
    requests = face_client.track.requests(timeline=timeline_of(info), first_frame=first, embed_every=embed_every)
    yield requests.config
    with VideoReader(info, threads=threads) as reader:
        frames = reader.frames(first)
        while (decoded := await in_thread(_next_rgb, frames)) is not None:
            index, rgb, small, scale = decoded
            waiting.append((index, rgb, scale))
            yield requests.item(small)


def _next_rgb(frames: Iterator[DecodedFrame]) -> tuple[int, UInt8, UInt8, float] | None:
    frame = next(frames, None)
    if frame is None:
        return None
    return frame.index, *picture_for_tracker(frame)


def picture_for_tracker(frame: DecodedFrame) -> tuple[UInt8, UInt8, float]:
    """Return a frame, uint8 RGB [H, W, 3], the picture that the tracker gets, and pixels of the frame per pixel of that picture."""
    rgb = to_rgb(frame)
    factor = 1
    while max(rgb.shape[:2]) > MAX_TRACKED_SIDE * factor:
        factor *= 2
    if factor == 1:
        return rgb, rgb, 1.0
    size = (rgb.shape[1] // factor, rgb.shape[0] // factor)
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return rgb, np.asarray(small, np.uint8), rgb.shape[1] / size[0]
