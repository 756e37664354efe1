"""Boxes, curves and tracks of a dub, from the records in the job's folder and from the tracked output."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from dubstage.client import face as face_client
from dubstage.client import rpcs
from dubstage.common.v1 import common_pb2
from gateway.consent.record import EMBEDDING_SIZE
from gateway.dub.analysis import track_footage
from gateway.dub.face_records import FaceIndex, cut_box
from gateway.dub.motion_clip import TRACKED_MOTION, frame_seconds, tracked_motion
from gateway.dub.outcome import DubOutcome, LineRecords
from gateway.dub.records import RecordFile, RecordSpan, pose_of
from gateway.dub.request import DubRequest
from gateway.dub.slow_expression import target_mouths
from gateway.dub.workspace import Workspace
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.types import MediaInfo
from gateway.reports.appearance import (
    AppearanceMetrics,
    MouthAppearance,
    appearance_metrics,
    clothing_moved,
    joined,
    mouth_appearance,
    skin_light,
)
from gateway.reports.pictures import MOST_FRAMES, pictures_of
from gateway.stages.calls import until_done
from gateway.stages.interface import Stages
from services.common.array_types import Array, Float32, Float64, Int64, UInt8
from services.common.face.crops import (
    BOX_SIZE,
    CROP_SIZE,
    POSE_SIZE,
    HeadPose,
    apply_affine,
    box_from_frame,
    crop_from_frame,
    pose_vectors,
)
from services.common.face.landmarks import NUM_LANDMARKS, lip_width, mouth_opening
from services.common.face.sampling import sample_patch
from services.common.methods import method_named
from services.common.wire.convert import from_tensor
from services.common.wire.mouth_curves import MOTION_FRAME_S, SPOKEN_FROM, MotionMetrics, motion_metrics

_BLOCK: Final = 4096
"""Frames whose mouths are read at once."""
_PHONE_FRAMES: Final = 7500
"""Frames of the motion grid whose phones are looked for, five minutes: memory does not grow with the video."""
Box = tuple[int, int, int, int]
"""Left, top, width and height, pixels."""


def video_face_records(outcome: DubOutcome, workspace: Workspace) -> RecordFile:
    """Return the face records of the video that was dubbed in place. The plan has their rows."""
    return workspace.faces if outcome.video.path == outcome.info.path else workspace.backgrounds


def boxes_of(outcome: DubOutcome, workspace: Workspace, chosen: list[int]) -> dict[int, Box]:
    """Return the face box of each chosen frame, by frame."""
    boxes: dict[int, Box] = {}
    for frame in chosen:
        row = int(outcome.plan.row[frame])
        left, top, width, height = video_face_records(outcome, workspace).read(row, row + 1)["box"][0]
        boxes[frame] = (int(left), int(top), int(width), int(height))
    return boxes


def head_motion_of(request: DubRequest, outcome: DubOutcome, workspace: Workspace) -> dict[str, Float64] | None:
    """Return the head-pose vectors of the video and the predicted ones; None: the method does not move the head."""
    if not method_named(request.method).motion.moves_head:
        return None
    predicted = workspace.motion.read(0, MOST_FRAMES)["pose"].copy()
    video = np.full((min(outcome.plan.num_frames, MOST_FRAMES), POSE_SIZE), np.nan)
    for frame in range(len(video)):
        row = int(outcome.plan.row[frame])
        if row >= 0:
            video[frame] = pose_vectors([pose_of(video_face_records(outcome, workspace).read(row, row + 1)[0])])[0]
    return {"video": video, "predicted": predicted}


def _frames_of(outcome: DubOutcome) -> range:
    """Return the frames that the records of the target are of: those of the line, or all frames of the video."""
    return outcome.line.frames if outcome.line is not None else range(outcome.plan.num_frames)


def _records_of(outcome: DubOutcome, workspace: Workspace) -> LineRecords:
    """Return the records of the target of a line, or of a whole dub."""
    if outcome.line is not None and outcome.line.records is not None:
        return outcome.line.records
    motion, speech = workspace.motion, workspace.speech
    whole = RecordSpan(motion, 0, motion.num_rows), RecordSpan(speech, 0, speech.num_rows)
    return LineRecords(*whole, partial(target_mouths, workspace))


def motion_of(outcome: DubOutcome, workspace: Workspace) -> MotionMetrics | None:
    """Return the target motion of a dub compared with the person's own motion.

    None: no frame is dubbed, the person's own motion is not known, or the video is shorter than two frames.
    """
    own = outcome.actor.speaking if outcome.actor is not None else None
    frames = _frames_of(outcome)
    rendered = outcome.plan.rendered()[frames.start : frames.stop]
    if own is None or len(frames) < 2 or not rendered.any():
        return None
    line = _records_of(outcome, workspace)
    seconds = frame_seconds(outcome.video)[frames.start : frames.stop]
    seconds = seconds - seconds[0]
    parts = []
    for begin in range(0, len(seconds), _BLOCK):
        end = min(begin + _BLOCK, len(seconds))
        mouths = line.mouths(frames.start + begin, frames.start + end)
        spoken = line.motion.read(begin, end)["speech_probability"]
        parts.append(np.stack([mouth_opening(mouths), lip_width(mouths), spoken]))
    curves = np.concatenate(parts, axis=1).astype(np.float64)
    curves[:2, ~rendered] = np.nan
    grid = np.arange(0.0, seconds[-1], MOTION_FRAME_S)
    opening, width, speech = (np.interp(grid, seconds, curve) for curve in curves)
    posteriorgram = line.features.read(0, min(len(grid), _PHONE_FRAMES))["posteriorgram"]
    return motion_metrics(own, opening, width, speech >= SPOKEN_FROM, posteriorgram)


def commanded_opening(outcome: DubOutcome, workspace: Workspace) -> Float32:
    """Return the opening of the target mouths, float32 [T], crop pixels; NaN: the mouth of the frame is not rendered."""
    opening = np.full(outcome.plan.num_frames, np.nan, np.float32)
    if outcome.actor is None:
        return opening
    frames = _frames_of(outcome)
    mouths = _records_of(outcome, workspace).mouths(frames.start, min(frames.stop, frames.start + MOST_FRAMES))
    opening[frames.start : frames.start + len(mouths)] = mouth_opening(mouths)
    opening[~outcome.plan.rendered()] = np.nan
    return opening


@dataclass(frozen=True, slots=True)
class TrackedOutput:
    """Tracked output.

    Attributes:
        opening: float32 [T], opening of the mouth, crop pixels.
        landmarks: float32 [T, 478, 3], landmarks of the dubbed face, pixels of the frame; NaN rows where not tracked.
        moved: TRACKED_MOTION [R], motion of the frames that show the face well, in order.
        poses: head pose of each frame, by frame; frames in which the face is not tracked are missing.
    """

    opening: Float32 = field(repr=False)
    landmarks: Float32 = field(repr=False)
    moved: Array = field(repr=False, default_factory=lambda: np.empty(0, TRACKED_MOTION))
    poses: Mapping[int, HeadPose] = field(repr=False, default_factory=dict)


async def track_output(
    stages: Stages, result: MediaInfo, boxes: Sequence[tuple[int, Box] | None], on_frame: Callable[[int], None] = lambda _: None
) -> list[TrackedOutput | None]:
    """Track the output of a dub once, and return what is found of each dubbed face.

    None: the video is too long, or the face is not dubbed.

    Args:
        boxes: of each face, a frame and the face's box there; None: the face is not dubbed.
        on_frame: called with the number of tracked frames.

    Raises:
        DubstageError: from the face stage.
    """
    total = result.video.num_frames
    if not any(boxes) or total > MOST_FRAMES:
        return [None] * len(boxes)
    with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as workspace:
        index = await track_footage(stages, result, workspace, threads=2, on_frame=on_frame)
        return [_tracked(index, workspace, total, *box) if box is not None else None for box in boxes]


async def track_main_face(stages: Stages, video: MediaInfo) -> TrackedOutput | None:
    """Track the face that is in most frames of a video; None: the video is too long, or shows no face.

    Raises:
        DubstageError: from the face stage.
    """
    total = video.video.num_frames
    if total > MOST_FRAMES:
        return None
    with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as workspace:
        index = await track_footage(stages, video, workspace, threads=2, on_frame=lambda _: None)
        if not len(index.face_id):
            return None
        faces, counts = np.unique(index.face_id, return_counts=True)
        return _tracked_rows(index.rows_of(int(faces[counts.argmax()])), workspace, total)


def _tracked(index: FaceIndex, workspace: Workspace, total: int, frame: int, box: Box) -> TrackedOutput:
    """Return what was tracked of the face nearest to a box. In a video with its own timeline, faces may have other ids."""
    left, top, width, height = box
    (there,) = np.nonzero(index.frame == frame)
    if not len(there):
        return _tracked_rows(np.full(total, -1), workspace, total)
    distance = np.linalg.norm(index.centre[there] - np.array([left + width / 2, top + height / 2]), axis=1)
    return _tracked_rows(index.rows_of(int(index.face_id[there[np.argmin(distance)]])), workspace, total)


def _tracked_rows(rows: Int64, workspace: Workspace, total: int) -> TrackedOutput:
    """Return what was tracked of a face.

    Args:
        rows: int64 [T], record row of the face in each frame; -1: not there.
        workspace: has the records.
        total: frames of the video.
    """
    opening = np.full(total, np.nan, np.float32)
    landmarks = np.full((total, NUM_LANDMARKS, 3), np.nan, np.float32)
    poses: dict[int, HeadPose] = {}
    good: list[int] = []
    for place in np.nonzero(rows >= 0)[0]:
        (record,) = workspace.faces.read(int(rows[place]), int(rows[place]) + 1)
        opening[place] = mouth_opening(record["mouth"][None])[0]
        landmarks[place] = record["landmarks"]
        poses[int(place)] = pose_of(record)
        if record["reason"] == common_pb2.FRAME_REASON_DUBBED:
            good.append(int(rows[place]))
    moved = tracked_motion(workspace.faces, good) if good else np.empty(0, TRACKED_MOTION)
    return TrackedOutput(opening, landmarks, moved, poses)


_APPEARANCE_FRAMES: Final = 125
"""Frames whose appearance is measured at once: memory does not grow with the video."""
_FACES: Final = 8
"""Faces that are compared by their embeddings."""


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Frames before and after a dub: what is measured of the mouths, how much clothing moves, and some face crops."""

    video: list[MouthAppearance]
    dub: list[MouthAppearance]
    moved: list[Float32]
    video_faces: UInt8
    dub_faces: UInt8


async def appearance_of(
    stages: Stages,
    result: MediaInfo,
    outcome: DubOutcome,
    workspace: Workspace,
    tracked: TrackedOutput | None,
    on_frame: Callable[[int], None] = lambda _: None,
) -> AppearanceMetrics | None:
    """Return the figures of a dub for what eyes see, against the frames of the video that was dubbed.

    Args:
        stages: the stages, which measure faces.
        result: the video of the dub.
        outcome: result of the dub.
        workspace: the open folder of the job.
        tracked: the tracked video of the dub; None: the video is too long, or nothing is dubbed.
        on_frame: called with the number of finished frames of the video.

    Returns:
        the figures; None without `tracked`.

    Raises:
        DubstageError: a video cannot be read, or the face stage failed.
    """
    if tracked is None:
        return None
    pieces = await asyncio.to_thread(_pieces, result, outcome, workspace, tracked, on_frame)
    distance = await face_distance(stages, pieces.video_faces, pieces.dub_faces)
    return await asyncio.to_thread(
        appearance_metrics, joined(pieces.video), joined(pieces.dub), np.concatenate(pieces.moved), distance
    )


def _pieces(
    result: MediaInfo, outcome: DubOutcome, workspace: Workspace, tracked: TrackedOutput, on_frame: Callable[[int], None]
) -> _Pieces:
    pieces = _Pieces([], [], [], *_faces(result, outcome, workspace))
    rendered, shown = outcome.plan.rendered(), _frames_of(outcome)
    with VideoReader(result) as reader:
        frames = (to_rgb(frame) for frame in reader.frames(shown.start, shown.stop))
        for begin in range(shown.start, shown.stop, _APPEARANCE_FRAMES):
            chosen = range(begin, min(begin + _APPEARANCE_FRAMES, shown.stop))
            before, after = (np.zeros((len(chosen), BOX_SIZE, BOX_SIZE, 3), np.uint8) for _ in range(2))
            filmed, drawn = (np.full((len(chosen), NUM_LANDMARKS, 2), np.nan, np.float32) for _ in range(2))
            for place, (frame, rgb) in enumerate(zip(chosen, frames, strict=False)):
                if not rendered[frame]:
                    continue
                row = int(outcome.plan.row[frame])
                (record,) = video_face_records(outcome, workspace).read(row, row + 1)
                pose = pose_of(record)
                before[place], after[place] = record["pixels"], cut_box(rgb, pose)
                filmed[place] = apply_affine(box_from_frame(pose), record["landmarks"])
                drawn[place] = apply_affine(box_from_frame(pose), tracked.landmarks[frame])
            light = skin_light(before, filmed)
            pieces.video.append(mouth_appearance(before, filmed, light))
            pieces.dub.append(mouth_appearance(after, drawn, light))
            pieces.moved.append(clothing_moved(before, after, filmed))
            on_frame(chosen.stop)
    return pieces


def _faces(result: MediaInfo, outcome: DubOutcome, workspace: Workspace) -> tuple[UInt8, UInt8]:
    """Return face crops before and after the dub, uint8 [N, 256, 256, 3] each, of frames near the first dubbed frame."""
    (rendered,) = np.nonzero(outcome.plan.rendered())
    near = rendered[rendered < rendered[0] + _APPEARANCE_FRAMES]
    chosen = [int(frame) for frame in near[:: max(1, len(near) // _FACES)][:_FACES]]
    poses: dict[int, HeadPose] = {}
    for frame in chosen:
        row = int(outcome.plan.row[frame])
        poses[frame] = pose_of(video_face_records(outcome, workspace).read(row, row + 1)[0])
    before, after = (
        np.stack([sample_patch(picture, crop_from_frame(poses[frame]), (CROP_SIZE, CROP_SIZE)) for frame, picture in shown.items()])
        for shown in (pictures_of(video, set(chosen)) for video in (outcome.video, result))
    )
    return before, after


async def face_distance(stages: Stages, before: UInt8, after: UInt8) -> float:
    """Return the distance of the mean face embeddings of two sets of face crops; NaN: no face is found in one of them.

    Args:
        before, after: uint8 [N, 256, 256, 3], RGB.

    Raises:
        DubstageError: from the face stage.
    """
    means = [await until_done(partial(_mean_embedding, stages, crops)) for crops in (before, after)]
    return float(np.linalg.norm(means[0] - means[1]))


async def _mean_embedding(stages: Stages, crops: UInt8) -> Float32:
    """Return the mean embedding of the faces of crops, float32 [128]; NaN: no face is found."""
    requests = face_client.track.requests(max_faces=1, smoothing_half_width=0, embed_every=1)

    vectors = [
        from_tensor(face.embedding.vector, "embedding.vector", dtype=np.float32, shape=(EMBEDDING_SIZE,))
        async for reply in stages.stream(rpcs.face.TRACK, requests.of_async(crops))
        for frame in reply.frames
        for face in frame.faces
        if face.HasField("embedding")
    ]
    return np.mean(vectors, axis=0, dtype=np.float32) if vectors else np.full(EMBEDDING_SIZE, np.nan, np.float32)
