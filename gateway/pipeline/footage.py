"""First pass over the footage: every face of every frame, with its render box, on disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2
from dubstage.face.v1alpha1 import face_pb2
from gateway.ahead import close, in_thread, read_ahead
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.types import DecodedFrame, MediaInfo
from gateway.pipeline.messages import timeline_of
from gateway.pipeline.records import FACE_RECORD, RecordFile, pose_of
from gateway.stages.attempts import until_done
from gateway.stages.interface import Stages
from services.common.arrays import from_tensor
from services.common.crops import BOX_SIZE, HeadPose, box_from_frame
from services.common.errors import ContractBroken
from services.common.landmarks import NUM_LANDMARKS, NUM_MOUTH_AREA
from services.common.sampling import sample_patch

Pixels = npt.NDArray[np.uint8]

MAX_TRACKED_SIDE: Final = 1280
"""Frames with a longer side are halved until they fit before they go to the tracker, which works on 192 px faces anyway."""

AHEAD: Final = 4
"""Decoded frames that may wait for the tracker, and tracked ones that may wait to be cut."""

OnProgress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class FaceIndex:
    """Where the records of a footage's faces lie.

    Attributes:
        frame, face_id, reason, row: int64 [R], one entry a record.
        area: float32 [R], box area in frame pixels.
        centre: float32 [R, 2], box centre in frame pixels.
        shot_cuts: frames that begin a shot.
        num_frames: frames of the footage.
    """

    frame: npt.NDArray[np.int64]
    face_id: npt.NDArray[np.int64]
    reason: npt.NDArray[np.int64]
    area: npt.NDArray[np.float32]
    centre: npt.NDArray[np.float32]
    shot_cuts: tuple[int, ...]
    num_frames: int

    def rows_of(self, face_id: int) -> npt.NDArray[np.int64]:
        """int64 [num_frames]: the record row of a face in each frame, -1 where it is not."""
        rows = np.full(self.num_frames, -1, dtype=np.int64)
        (mine,) = np.nonzero(self.face_id == face_id)
        rows[self.frame[mine]] = mine
        return rows


async def analyse_footage(
    stages: Stages, info: MediaInfo, faces: RecordFile, *, threads: int, on_progress: OnProgress
) -> list[int]:
    """Track all faces, and append a FACE_RECORD a face a frame; returns the frames that begin a shot.

    The footage is decoded once, unless the stream breaks off because a replica of the face stage went away. What the tracker knows
    went with it: another one sees the film from its beginning, and the records go on where they ended.

    Raises:
        MediaUnsupported: the file breaks off.
        DubstageError: from the face stage.
    """
    shot_cuts: list[int] = []
    num_recorded = 0

    async def track() -> None:
        nonlocal num_recorded
        waiting: deque[tuple[int, Pixels, float]] = deque()
        async with AsyncExitStack() as stack:
            # Frames are decoded, tracked and cut at the same time.
            messages = read_ahead(_frame_messages(info, threads, waiting), AHEAD)
            stack.push_async_callback(close, messages)
            replies = await stack.enter_async_context(aclosing(read_ahead(stages.track(messages), AHEAD)))
            async for reply in replies:
                for frame in reply.frames:
                    index, rgb, scale = waiting.popleft()
                    if index < num_recorded:
                        continue
                    if frame.faces:
                        faces.append(await asyncio.to_thread(face_records, frame, rgb, scale))
                    if frame.shot_cut:
                        shot_cuts.append(index)
                    num_recorded = index + 1
                    on_progress(num_recorded)

    await until_done(track, progress=lambda: num_recorded)
    faces.sync()
    return shot_cuts


async def _frame_messages(
    info: MediaInfo, threads: int, waiting: deque[tuple[int, Pixels, float]]
) -> AsyncGenerator[face_pb2.TrackRequest, None]:
    """The footage as the tracker's requests; frames that are out are added to `waiting`."""
    yield face_pb2.TrackRequest(config=face_pb2.TrackConfig(timeline=timeline_of(info)))
    with VideoReader(info, threads=threads) as reader:
        frames = iter(reader)
        while (decoded := await in_thread(_next_rgb, frames)) is not None:
            index, rgb, small, scale = decoded
            waiting.append((index, rgb, scale))
            yield frame_message(index, small)


def read_index(faces: RecordFile, shot_cuts: object, num_frames: int) -> FaceIndex:
    """The index of a finished first pass; reads the file in pieces.

    Args:
        faces: FACE_RECORDs in the order of their frames.
        shot_cuts: list of the frames that begin a shot, in their order.
        num_frames: frames of the footage.

    Raises:
        ContractBroken: the records or the shot cuts are not those of such a footage.
    """
    columns: list[npt.NDArray[np.float64]] = []
    for begin in range(0, faces.num_rows, 64):
        rows = faces.read(begin, begin + 64)
        box = rows["box"].astype(np.float64)
        centre = box[:, :2] + box[:, 2:] / 2
        area = box[:, 2] * box[:, 3]
        parts = [rows["frame"], rows["face_id"], rows["reason"], area, centre[:, 0], centre[:, 1]]
        columns.append(np.stack([np.asarray(part, np.float64) for part in parts], axis=1))
    table = np.concatenate(columns) if columns else np.empty((0, 6))
    _check_index(table, shot_cuts, num_frames)
    assert isinstance(shot_cuts, list)
    return FaceIndex(
        frame=table[:, 0].astype(np.int64),
        face_id=table[:, 1].astype(np.int64),
        reason=table[:, 2].astype(np.int64),
        area=table[:, 3].astype(np.float32),
        centre=table[:, 4:6].astype(np.float32),
        shot_cuts=tuple(shot_cuts),
        num_frames=num_frames,
    )


def _check_index(table: npt.NDArray[np.float64], shot_cuts: object, num_frames: int) -> None:
    frame, face_id = table[:, 0], table[:, 1]
    if not isinstance(shot_cuts, list) or not all(type(cut) is int and 0 <= cut < num_frames for cut in shot_cuts):
        raise ContractBroken("the shot cuts are no frames of the footage")
    if sorted(set(shot_cuts)) != shot_cuts:
        raise ContractBroken("the shot cuts are out of order")
    if not np.isfinite(table).all() or (len(table) and (frame.min() < 0 or frame.max() >= num_frames or face_id.min() < 0)):
        raise ContractBroken("face records of frames that the footage does not have")
    order = np.diff(frame)
    if (order < 0).any() or len(np.unique(table[:, :2], axis=0)) != len(table):
        raise ContractBroken("face records out of order, or a face twice in one frame")


def _next_rgb(frames: Iterator[DecodedFrame]) -> tuple[int, Pixels, Pixels, float] | None:
    frame = next(frames, None)
    if frame is None:
        return None
    rgb = to_rgb(frame)
    factor = 1
    while max(rgb.shape[:2]) > MAX_TRACKED_SIDE * factor:
        factor *= 2
    if factor == 1:
        return frame.index, rgb, rgb, 1.0
    size = (rgb.shape[1] // factor, rgb.shape[0] // factor)
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return frame.index, rgb, np.asarray(small, np.uint8), rgb.shape[1] / size[0]


def frame_message(index: int, rgb: Pixels) -> face_pb2.TrackRequest:
    """The message of a frame, uint8 RGB [H, W, 3]."""
    # Filled in place: a message put into another is copied, and these are megabytes.
    message = face_pb2.TrackRequest()
    message.frame.frame_index = index
    image = message.frame.image
    image.height, image.width = rgb.shape[:2]
    image.encoding, image.data = common_pb2.IMAGE_ENCODING_RGB8, rgb.tobytes()
    return message


def face_records(frame: face_pb2.FrameFaces, rgb: Pixels, scale: float) -> npt.NDArray[np.void]:
    """FACE_RECORDs of a frame.

    Args:
        frame: the tracker's answer.
        rgb: the frame, uint8 [H, W, 3].
        scale: pixels of it a pixel of what the tracker saw.
    """
    rows = np.zeros(len(frame.faces), dtype=FACE_RECORD)
    for row, face in zip(rows, frame.faces, strict=True):
        row["frame"], row["face_id"], row["reason"] = frame.frame_index, face.face_id, face.reason
        row["confidence"], row["visibility"], row["blink"] = face.confidence, face.mouth_visibility, face.blink
        row["box"] = np.array(face.box, dtype=np.float32) * scale
        # Sampling positions of a reduced picture: centre of its pixel x lies at scale * (x + 0.5) - 0.5 of the full one.
        offset = 0.5 * (scale - 1.0)
        landmarks = from_tensor(face.landmarks, "landmarks", dtype=np.float32, shape=(NUM_LANDMARKS, 3)) * scale
        landmarks[:, :2] += offset
        row["landmarks"] = landmarks
        row["scale"] = face.pose.scale * scale
        row["rotation"] = np.array(face.pose.rotation).reshape(3, 3)
        row["translation"] = np.array(face.pose.translation) * scale + np.array([offset, offset, 0.0])
        row["mouth"] = from_tensor(face.mouth_landmarks, "mouth_landmarks", dtype=np.float32, shape=(NUM_MOUTH_AREA, 3))
        row["pixels"] = cut_box(rgb, pose_of(row))
    return rows


def cut_box(rgb: Pixels, pose: HeadPose) -> Pixels:
    """The render box of a face: uint8 [160, 160, 3], from the upright frame uint8 [H, W, 3]. Pixels outside are repeated edges.

    Where the face is larger than in the crop, the picture is low-pass filtered first, so that it does not alias.
    """
    return sample_patch(rgb, box_from_frame(pose), (BOX_SIZE, BOX_SIZE))
