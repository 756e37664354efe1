"""First pass over the footage: every face of every frame and its render box, written to disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from dubstage.client import face as face_client
from dubstage.client import rpcs
from dubstage.face.v1 import face_pb2
from gateway.async_utilities import in_thread
from gateway.dub.analyse.face_records import cut_box, face_records, region_of_box
from gateway.dub.analyse.tracking_point import TrackingCheckpoint, TrackingPoint
from gateway.dub.convert import timeline_of
from gateway.dub.state.native_boxes import KeptLuma
from gateway.dub.state.records import RecordFile
from gateway.media.reader import FramePart, VideoReader, to_reduced_rgb, to_rgb, to_rgb_within
from gateway.media.types import DecodedFrame, MediaInfo
from gateway.stages.calls import continued, until_done
from gateway.stages.interface import Stages
from services.common.array_types import UInt8
from services.common.errors import BackendUnavailableError
from services.common.face.crops import HeadPose

MAX_TRACKED_SIDE: Final = 1280
"""Longest side of a frame that is sent to the tracker, pixels.
Larger frames are halved, because the tracker uses faces of 192 px."""

AHEAD: Final = 4
"""Most decoded frames that may wait for the tracker, and tracked frames that may wait to be cut."""
_AHEAD_BYTES: Final = 32 << 20
"""Most bytes of RGB that wait in each of these queues, but at least one frame waits."""

OnProgress = Callable[[int], None]
OnFace = Callable[[face_pb2.FaceTrack], None]
STATE_EVERY: Final = 50
"""Frames from one state of the tracker to the next: most frames that are tracked again when a call breaks off. A state takes a
twentieth of the time of a frame, and 70 kB for a face."""


@dataclass(frozen=True, slots=True, eq=False)
class TrackedFrame:
    """A frame of footage with its faces.

    Attributes:
        index: number of the frame.
        faces: answer of the tracker.
        picture: the frame, uint8 RGB [H, W, 3]; a large frame as it was decoded, because only the faces are converted to RGB.
        scale: pixels of the frame per pixel of the picture that the tracker saw.
    """

    index: int
    faces: face_pb2.FrameFaces
    picture: UInt8 | DecodedFrame
    scale: float

    def cut_box(self, pose: HeadPose, luma: KeptLuma | None = None) -> UInt8:
        """Return the render box of a face, uint8 [160, 160, 3].

        Args:
            luma: gets the luma around the face; None: nothing does.
        """
        return cut_from(self.picture, pose, luma)


def cut_from(picture: UInt8 | DecodedFrame, pose: HeadPose, luma: KeptLuma | None = None) -> UInt8:
    """Return the render box of a face, uint8 [160, 160, 3]. Both kinds of pictures give the same box.

    Args:
        picture: the upright frame, uint8 RGB [H, W, 3], or the frame as it was decoded, of which only the face is converted to RGB.
        pose: head pose in the frame.
        luma: gets the luma around the face; None: nothing does.
    """
    part = FramePart(picture, 0, 0) if isinstance(picture, np.ndarray) else to_rgb_within(picture, region_of_box(pose))
    if luma is not None:
        luma.add(part, pose)
    if isinstance(picture, DecodedFrame) and pose.scale <= 1.0:
        # OpenCV rounds pictures that are not reduced by their position in the frame.
        part = part.in_frame(picture.video)
    return cut_box(part.rgb, pose.in_part(part.left, part.top))


async def analyse_footage(
    stages: Stages,
    info: MediaInfo,
    faces: RecordFile,
    *,
    threads: int,
    on_progress: OnProgress,
    embed_every: int = 0,
    on_face: OnFace = lambda _: None,
    checkpoint: TrackingCheckpoint | None = None,
    luma: KeptLuma | None = None,
) -> list[int]:
    """Track all faces, append a FACE_RECORD per face and frame, and return the frames that begin a shot.

    Args:
        faces: gets the records.
        threads: threads of the decoder.
        on_progress: called with the number of tracked frames.
        embed_every: frames of a face from one embedding to the next; 0: no embeddings.
        on_face: called with every face of every frame, as the face stage answered it.
        checkpoint: from which tracking goes on, and which is stored again and again; None: there is none.
        luma: gets the luma around all faces, if tracking begins with the first frame; None: nothing does.

    Raises:
        MediaUnsupportedError: the file breaks off.
        DubstageError: from the face stage.
    """
    point, shot_cuts = TrackingPoint.begin(), list[int]()
    if checkpoint is not None:
        point, shot_cuts = await asyncio.to_thread(checkpoint.restore)
        if point.next_frame:
            on_progress(point.next_frame)
    if luma is not None and not point.next_frame:
        await asyncio.to_thread(luma.begin, info.video)

    async def record(frame: TrackedFrame) -> None:
        # Here, and only here, all frames before the point are recorded, and no others.
        if checkpoint is not None and frame.index == point.next_frame:
            await asyncio.to_thread(checkpoint.save, point, shot_cuts)
        for face in frame.faces.faces:
            on_face(face)
        if frame.faces.faces:
            faces.append(await asyncio.to_thread(face_records, frame.faces, partial(frame.cut_box, luma=luma), frame.scale))
        if frame.faces.shot_cut:
            shot_cuts.append(frame.index)
        on_progress(frame.index + 1)

    await track_all(stages, info, threads, record, embed_every=embed_every, point=point)
    faces.sync()
    return shot_cuts


async def tracked_answers(
    stages: Stages,
    requests: Callable[[TrackingPoint], AsyncIterator[face_pb2.TrackRequest]],
    point: TrackingPoint,
    *,
    ahead: int = AHEAD,
) -> AsyncGenerator[face_pb2.FrameFaces, None]:
    """Yield the answer for every frame from `point.next_frame` on, in order. Closing the generator ends tracking.

    Args:
        requests: yields a config with `state_every` and the state of a point, then the frames from the point on.
        point: is moved to each state that comes (`continued`). After an error, another attempt goes on from the point.
        ahead: most requests that wait for the tracker, and most answers that wait to be taken.

    Raises:
        BackendUnavailableError: a face stage of another version does not take the state. The point is then at the first frame.
        DubstageError: from the face stage.
    """
    # Frames are decoded, tracked and cut at the same time.
    calls = continued(
        stages, rpcs.face.TRACK, requests, point, ahead=ahead, stage="the face stage", resumed=lambda reply: reply.resumed
    )
    async with aclosing(calls) as replies:
        async for reply in replies:
            for frame in reply.frames:
                yield frame


async def tracked_frames(
    stages: Stages, info: MediaInfo, threads: int, *, first: int = 0, embed_every: int = 0, point: TrackingPoint | None = None
) -> AsyncGenerator[TrackedFrame, None]:
    """Yield every frame of the footage with its faces, in order. Closing the generator ends decoding and tracking.

    Args:
        threads: threads of the decoder.
        first: first frame that is tracked.
        embed_every: frames of a face from one embedding to the next; 0: no embeddings.
        point: where an earlier attempt was; None: tracking begins with the frame `first`. Is moved on, see `tracked_answers`.

    Raises:
        MediaUnsupportedError: the file breaks off.
        BackendUnavailableError: embeddings are asked for, and the face stage is of a version that has none; or see
            `tracked_answers`.
        DubstageError: from the face stage.
    """
    point = point or TrackingPoint.begin(first)
    waiting: deque[tuple[int, UInt8 | DecodedFrame, float]] = deque()

    def requests(begin: TrackingPoint) -> AsyncIterator[face_pb2.TrackRequest]:
        waiting.clear()
        return _frame_messages(info, threads, waiting, begin, embed_every)

    ahead = min(AHEAD, max(1, _AHEAD_BYTES // (3 * info.video.width * info.video.height)))
    async with aclosing(tracked_answers(stages, requests, point, ahead=ahead)) as answers:
        async for frame in answers:
            index, picture, scale = waiting.popleft()
            if any(face.face_id not in point.face_ids and not face.HasField("embedding") for face in frame.faces) and embed_every:
                raise BackendUnavailableError(
                    "the face stage measures no faces, which consent records need: run the face stage and the gateway from the "
                    "same version of dubstage"
                )
            point.face_ids.update(face.face_id for face in frame.faces)
            yield TrackedFrame(index, frame, picture, scale)


async def track_all(
    stages: Stages,
    info: MediaInfo,
    threads: int,
    take: Callable[[TrackedFrame], Awaitable[None]],
    *,
    embed_every: int = 0,
    point: TrackingPoint | None = None,
) -> None:
    """Await `take` with every frame of the footage and its faces, once, in order.

    If a call to the face stage breaks off, the next call goes on from the last state of the tracker.

    Args:
        threads: threads of the decoder.
        embed_every: frames of a face from one embedding to the next; 0: no embeddings.
        point: where an earlier process was; None: tracking begins with the first frame. Is moved on, see `tracked_answers`.

    Raises:
        DubstageError: see `tracked_frames`; the error of the last attempt.
    """
    point = point or TrackingPoint.begin()
    taken = point.next_frame

    async def track() -> None:
        nonlocal taken
        async with aclosing(tracked_frames(stages, info, threads, embed_every=embed_every, point=point)) as frames:
            async for frame in frames:
                if frame.index == taken:
                    await take(frame)
                    taken += 1

    await until_done(track, progress=lambda: taken)


async def _frame_messages(
    info: MediaInfo, threads: int, waiting: deque[tuple[int, UInt8 | DecodedFrame, float]], point: TrackingPoint, embed_every: int
) -> AsyncGenerator[face_pb2.TrackRequest, None]:
    """Yield the footage from a point on as requests to the tracker, and append each sent frame to `waiting`."""
    requests = face_client.track.requests(
        timeline=timeline_of(info),
        first_frame=point.next_frame,
        embed_every=embed_every,
        state_every=STATE_EVERY,
        resume=point.state,
    )
    yield requests.config
    with VideoReader(info, threads=threads) as reader:
        frames = reader.frames_from(point.next_frame, info.video.num_frames)
        while (decoded := await in_thread(_next_rgb, frames)) is not None:
            index, picture, small, scale = decoded
            waiting.append((index, picture, scale))
            yield requests.item(small)


def _next_rgb(frames: Iterator[DecodedFrame]) -> tuple[int, UInt8 | DecodedFrame, UInt8, float] | None:
    frame = next(frames, None)
    if frame is None:
        return None
    return frame.index, *picture_for_tracker(frame)


def tracker_factor(width: int, height: int) -> int:
    """Return the pixels of a frame per pixel of the picture that the tracker takes, in each direction: a power of two."""
    factor = 1
    while max(width, height) > MAX_TRACKED_SIDE * factor:
        factor *= 2
    return factor


def picture_for_tracker(frame: DecodedFrame) -> tuple[UInt8 | DecodedFrame, UInt8, float]:
    """Return a frame as `TrackedFrame.picture`, uint8 RGB for the tracker, and pixels of the frame per pixel of the tracker."""
    width, height = frame.video.orientation.upright_size
    factor = tracker_factor(width, height)
    scale = width / (width // factor)
    if factor > 1:
        return frame, to_reduced_rgb(frame, factor), scale
    rgb = to_rgb(frame)
    return rgb, rgb, scale
