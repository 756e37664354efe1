"""Boxes, curves and tracks of a dub, from the records in the job's folder and from the tracked output."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from gateway.dub.analysis import track_footage
from gateway.dub.motion_clip import frame_seconds
from gateway.dub.outcome import DubOutcome
from gateway.dub.records import RecordFile, pose_of
from gateway.dub.request import DubRequest
from gateway.dub.slow_expression import target_mouths
from gateway.dub.workspace import Workspace
from gateway.media.types import MediaInfo
from gateway.reports.pictures import MOST_FRAMES
from gateway.stages.interface import Stages
from services.common.array_types import Float32, Float64
from services.common.face.crops import POSE_SIZE, pose_vectors
from services.common.face.landmarks import lip_width, mouth_opening
from services.common.methods import method_named
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
    return {"film": video, "predicted": predicted}


def motion_of(outcome: DubOutcome, workspace: Workspace) -> MotionMetrics | None:
    """Return the target motion of a dub compared with the person's own motion.

    None: no frame is dubbed, the person's own motion is not known, or the video is shorter than two frames.
    """
    own = outcome.actor.speaking if outcome.actor is not None else None
    rendered, seconds = outcome.plan.rendered(), frame_seconds(outcome.video)
    if own is None or len(seconds) < 2 or not rendered.any():
        return None
    parts = []
    for begin in range(0, len(seconds), _BLOCK):
        mouths = target_mouths(workspace, begin, begin + _BLOCK)
        spoken = workspace.motion.read(begin, begin + _BLOCK)["speech_probability"]
        parts.append(np.stack([mouth_opening(mouths), lip_width(mouths), spoken]))
    curves = np.concatenate(parts, axis=1).astype(np.float64)
    curves[:2, ~rendered] = np.nan
    grid = np.arange(0.0, seconds[-1], MOTION_FRAME_S)
    opening, width, speech = (np.interp(grid, seconds, curve) for curve in curves)
    posteriorgram = workspace.speech.read(0, min(len(grid), _PHONE_FRAMES))["posteriorgram"]
    return motion_metrics(own, opening, width, speech >= SPOKEN_FROM, posteriorgram)


def commanded_opening(outcome: DubOutcome, workspace: Workspace) -> Float32:
    """Return the opening of the target mouths, float32 [T], crop pixels; NaN: the mouth of the frame is not rendered."""
    opening = np.full(outcome.plan.num_frames, np.nan, np.float32)
    if outcome.actor is None:
        return opening
    mouths = target_mouths(workspace, 0, MOST_FRAMES)
    opening[: len(mouths)] = mouth_opening(mouths)
    opening[~outcome.plan.rendered()] = np.nan
    return opening


@dataclass(frozen=True, slots=True)
class TrackedOutput:
    """Tracked output.

    Attributes:
        opening: float32 [T], opening of the mouth, crop pixels.
        landmarks: landmarks of the chosen frames, float32 [478, 3] each.
    """

    opening: Float32 = field(repr=False)
    landmarks: dict[int, Float32] = field(repr=False)


async def track_output(
    stages: Stages, result: MediaInfo, outcome: DubOutcome, boxes: dict[int, Box], chosen: list[int]
) -> TrackedOutput | None:
    """Track the output of a dub, and return what is found of the dubbed face; None: the video is too long, or nothing is dubbed.

    Args:
        boxes: face box of each chosen frame.
        chosen: frames that the report shows.

    Raises:
        DubstageError: from the face stage.
    """
    total = outcome.plan.num_frames
    if not boxes or total > MOST_FRAMES:
        return None
    opening = np.full(total, np.nan, np.float32)
    landmarks: dict[int, Float32] = {}
    with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as workspace:
        index = await track_footage(stages, result, workspace, threads=2, on_frame=lambda _: None)
        # In a video with its own timeline, faces may have other ids, so the target is the face nearest to the chosen box.
        left, top, width, height = boxes[chosen[0]]
        (there,) = np.nonzero(index.frame == chosen[0])
        if not len(there):
            return TrackedOutput(opening, landmarks)
        distance = np.linalg.norm(index.centre[there] - np.array([left + width / 2, top + height / 2]), axis=1)
        rows = index.rows_of(int(index.face_id[there[np.argmin(distance)]]))
        for frame in np.nonzero(rows >= 0)[0]:
            (record,) = workspace.faces.read(int(rows[frame]), int(rows[frame]) + 1)
            opening[frame] = mouth_opening(record["mouth"][None])[0]
            if int(frame) in boxes:
                landmarks[int(frame)] = record["landmarks"].copy()
    return TrackedOutput(opening, landmarks)
