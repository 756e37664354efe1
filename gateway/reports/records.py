"""Boxes, curves and tracks of a dub, from the records in the job's folder and from the tracked output."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from typing import Final

import numpy as np

from dubstage.client import face as face_client
from dubstage.client import rpcs
from dubstage.common.v1 import common_pb2
from gateway.async_utilities import in_stoppable_thread
from gateway.consent.record import EMBEDDING_SIZE
from gateway.dub.analyse.face_records import FaceIndex
from gateway.dub.analyse.footage import cut_from
from gateway.dub.analyse.motion_clip import TRACKED_MOTION, frame_seconds, tracked_motion
from gateway.dub.job.outcome import DubOutcome, TargetRecords
from gateway.dub.learn.analysis import gather_both, track_footage
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.state.records import RecordFile, pose_of
from gateway.dub.state.workspace import Workspace
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.types import DecodedFrame, MediaInfo
from gateway.reports.appearance import (
    AppearanceMetrics,
    MouthAppearance,
    appearance_metrics,
    clothing_moved,
    joined,
    mouth_appearance,
    skin_light,
)
from gateway.reports.pictures import MOST_FRAMES, cut_around, small_pair
from gateway.stages.calls import until_done
from gateway.stages.interface import Stages
from services.common.array_types import Array, Bool, Float32, Float64, Int64, UInt8
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
_APPEARANCE_FRAMES: Final = 125
"""Frames whose appearance is measured at once: memory does not grow with the video."""
_FACES: Final = 8
"""Faces that are compared by their embeddings."""


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
    predicted = _records_of(outcome).motion.read(0, MOST_FRAMES)["pose"].copy()
    video = np.full((min(outcome.plan.num_frames, MOST_FRAMES), POSE_SIZE), np.nan)
    for frame in range(len(video)):
        row = int(outcome.plan.row[frame])
        if row >= 0:
            video[frame] = pose_vectors([pose_of(video_face_records(outcome, workspace).read(row, row + 1)[0])])[0]
    return {"video": video, "predicted": predicted}


def _frames_of(outcome: DubOutcome) -> range:
    """Return the frames that the records of the target are of: those of the line, or all frames of the video."""
    return outcome.line.frames if outcome.line is not None else range(outcome.plan.num_frames)


def _records_of(outcome: DubOutcome) -> TargetRecords:
    """Return the records of the target of a line, or of a whole dub."""
    records = outcome.line.records if outcome.line is not None else outcome.records
    if records is None:
        raise ValueError("a dub with lines has one outcome for each line (DubOutcome.of_lines)")
    return records


def motion_of(outcome: DubOutcome) -> MotionMetrics | None:
    """Return the target motion of a dub compared with the person's own motion.

    None: no frame is dubbed, the person's own motion is not known, or the video is shorter than two frames.
    """
    own = outcome.actor.speaking if outcome.actor is not None else None
    frames = _frames_of(outcome)
    rendered = outcome.plan.rendered()[frames.start : frames.stop]
    if own is None or len(frames) < 2 or not rendered.any():
        return None
    line = _records_of(outcome)
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
    if line.mouths.share is not None:
        # A mouth that stays as filmed tells nothing about the new speech.
        curves[:2, line.mouths.share > 0] = np.nan
    grid = np.arange(0.0, seconds[-1], MOTION_FRAME_S)
    opening, width, speech = (np.interp(grid, seconds, curve) for curve in curves)
    posteriorgram = line.features.read(0, min(len(grid), _PHONE_FRAMES))["posteriorgram"]
    return motion_metrics(own, opening, width, speech >= SPOKEN_FROM, posteriorgram)


def commanded_opening(outcome: DubOutcome) -> Float32:
    """Return the opening of the target mouths, float32 [T], crop pixels; NaN: the mouth of the frame is not rendered."""
    opening = np.full(outcome.plan.num_frames, np.nan, np.float32)
    if outcome.actor is None:
        return opening
    frames = _frames_of(outcome)
    mouths = _records_of(outcome).mouths(frames.start, min(frames.stop, frames.start + MOST_FRAMES))
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


def can_be_tracked(result: MediaInfo, boxes: Sequence[tuple[int, Box] | None]) -> bool:
    """Return whether the video of a dub is tracked: it is short enough, and a face is dubbed.

    Args:
        boxes: as `track_output` takes them.
    """
    return result.video.num_frames <= MOST_FRAMES and any(boxes)


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
    if not can_be_tracked(result, boxes):
        return [None] * len(boxes)
    with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as workspace:
        index = await track_footage(stages, result, workspace, threads=2, on_frame=on_frame)
        return [_tracked(index, workspace, total, *box) if box is not None else None for box in boxes]


async def track_beside(
    stages: Stages,
    result: MediaInfo,
    boxes: Sequence[tuple[int, Box] | None],
    pictures: OutputPictures,
    read: Callable[[], object],
    on_frame: Callable[[int], None] = lambda _: None,
) -> list[TrackedOutput | None]:
    """Track the output of a dub as `track_output`, and take the pictures at the same time.

    Args:
        pictures: the pass that takes the pictures.
        read: does the pass. Blocks.

    Raises:
        DubstageError: from the face stage, or from `read`.
    """
    tracking = track_output(stages, result, boxes, on_frame)
    tracked, _ = await gather_both(tracking, in_stoppable_thread(read, pictures.stop))
    return tracked


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
    for frame in np.nonzero(rows >= 0)[0]:
        (record,) = workspace.faces.read(int(rows[frame]), int(rows[frame]) + 1)
        opening[frame] = mouth_opening(record["mouth"][None])[0]
        landmarks[frame] = record["landmarks"]
        poses[int(frame)] = pose_of(record)
        if record["reason"] == common_pb2.FRAME_REASON_DUBBED:
            good.append(int(rows[frame]))
    moved = tracked_motion(workspace.faces, good) if good else np.empty(0, TRACKED_MOTION)
    return TrackedOutput(opening, landmarks, moved, poses)


@dataclass(frozen=True, slots=True)
class FacePictures:
    """Pictures of a dubbed face, from one pass over the video of the dub.

    Attributes:
        frames: frames of the dub, or of the line.
        boxes: uint8 [T, 160, 160, 3], RGB: mouths of the dub in the head pose of the footage; 0 in frames that are not rendered.
            No row: they were not asked for.
        before, after: uint8 [256, 256, 3] each, RGB: squares of the footage and of the dub around chosen boxes, by frame.
        video_faces, dub_faces: uint8 [256, 256, 3] each, RGB: face crops of some early frames.
    """

    frames: range
    boxes: UInt8 = field(repr=False)
    before: dict[int, UInt8] = field(repr=False, default_factory=dict)
    after: dict[int, UInt8] = field(repr=False, default_factory=dict)
    video_faces: list[UInt8] = field(repr=False, default_factory=list)
    dub_faces: list[UInt8] = field(repr=False, default_factory=list)


class OutputPictures:
    """One pass over the video of a dub and its footage, in which all pictures are taken that figures and pages need.

    Args:
        result: the video of the dub.
        outcome: result of the dub.
        faces: the outcomes of the lines of a scene; otherwise only `outcome`.
        workspace: the open folder of the job.
        chosen: boxes of the frames to cut, by frame, for each face; empty: no frame is cut.
        shown: frames that are kept whole.
        measured: whether the mouths are cut for `appearance_of`.
        small: whether the first MOST_FRAMES frames are yielded beside the footage's.

    Attributes:
        faces: pictures of each face.
        whole: uint8 [H, W, 3], RGB: frames of the dub by frame.
    """

    def __init__(
        self,
        result: MediaInfo,
        outcome: DubOutcome,
        faces: Sequence[DubOutcome],
        workspace: Workspace,
        *,
        chosen: Sequence[Mapping[int, Box]] = (),
        shown: Collection[int] = (),
        measured: bool,
        small: bool = False,
    ) -> None:
        self._result, self._source, self._workspace = result, outcome.video, workspace
        self._outcomes, self._chosen, self._shown = faces, chosen or [{} for _ in faces], set(shown)
        self._rendered = [face.plan.rendered() if measured else None for face in faces]
        self._near = [set() if rendered is None else _near_frames(rendered) for rendered in self._rendered]
        self._measured = measured
        self._num_small = min(MOST_FRAMES, result.video.num_frames) if small else 0
        self._stopped = Event()
        self.whole: dict[int, UInt8] = {}
        self.faces = [
            FacePictures(frames, np.zeros((len(frames) if measured else 0, BOX_SIZE, BOX_SIZE, 3), np.uint8))
            for frames in map(_frames_of, faces)
        ]

    def stop(self) -> None:
        """End the pass after the frame that is being read."""
        self._stopped.set()

    def read(self) -> None:
        """Do the pass. Blocks.

        Raises:
            MediaUnsupportedError: a video breaks off.
        """
        for _ in self.pairs():
            pass

    def pairs(self) -> Iterator[UInt8]:
        """Do the pass, and yield the small pairs of frames, uint8 [360, W, 3]. Blocks between two pairs.

        Raises:
            MediaUnsupportedError: a video breaks off.
        """
        kept = self._shown.union(*self._chosen, *self._near)
        before_stop = max([self._num_small, *(frame + 1 for frame in kept)])
        after_stop = max([before_stop, *(face.frames.stop for face in self.faces if self._measured)])
        with VideoReader(self._source) as source, VideoReader(self._result) as result:
            befores = source.frames(0, before_stop)
            for after in result.frames(0, after_stop):
                if self._stopped.is_set():
                    return
                before = next(befores, None)
                self._take(before, after)
                if before is not None and after.index < self._num_small:
                    yield small_pair(before, after)

    def _take(self, before: DecodedFrame | None, after: DecodedFrame) -> None:
        frame = after.index
        parts = zip(self._outcomes, self.faces, self._chosen, self._near, self._rendered, strict=True)
        for outcome, face, chosen, near, rendered in parts:
            if rendered is not None and frame in face.frames and rendered[frame]:
                row = int(outcome.plan.row[frame])
                pose = pose_of(video_face_records(outcome, self._workspace).read(row, row + 1)[0])
                face.boxes[frame - face.frames.start] = cut_from(after, pose)
                if before is not None and frame in near:
                    for rgb, crops in ((to_rgb(before), face.video_faces), (to_rgb(after), face.dub_faces)):
                        crops.append(sample_patch(rgb, crop_from_frame(pose), (CROP_SIZE, CROP_SIZE)))
            if before is not None and frame in chosen:
                face.before[frame], face.after[frame] = (cut_around(to_rgb(one), chosen[frame]) for one in (before, after))
        if frame in self._shown:
            self.whole[frame] = to_rgb(after)


def _near_frames(rendered: Bool) -> set[int]:
    """Return some frames near the first rendered frame.

    Args:
        rendered: bool [T].
    """
    (frames,) = np.nonzero(rendered)
    near = frames[frames < frames[0] + _APPEARANCE_FRAMES] if len(frames) else frames
    return {int(frame) for frame in near[:: max(1, len(near) // _FACES)][:_FACES]}


async def appearance_of(
    stages: Stages,
    pictures: FacePictures,
    outcome: DubOutcome,
    workspace: Workspace,
    tracked: TrackedOutput | None,
    on_frame: Callable[[int], None] = lambda _: None,
) -> AppearanceMetrics | None:
    """Return the figures of a dub for what eyes see, against the frames of the video that was dubbed.

    Args:
        stages: the stages, which measure faces.
        pictures: pictures of the face, measured.
        outcome: result of the dub, or of a line.
        workspace: the open folder of the job.
        tracked: the tracked video of the dub; None: the video is too long, or nothing is dubbed.
        on_frame: called with the number of finished frames.

    Returns:
        the figures; None without `tracked`.

    Raises:
        DubstageError: the face stage failed.
    """
    if tracked is None:
        return None
    distance = await face_distance(stages, np.stack(pictures.video_faces), np.stack(pictures.dub_faces))
    return await asyncio.to_thread(_appearance, pictures, outcome, workspace, tracked, distance, on_frame)


def _appearance(
    pictures: FacePictures,
    outcome: DubOutcome,
    workspace: Workspace,
    tracked: TrackedOutput,
    distance: float,
    on_frame: Callable[[int], None],
) -> AppearanceMetrics:
    frames, rendered = pictures.frames, outcome.plan.rendered()
    video, dub, moved = list[MouthAppearance](), list[MouthAppearance](), list[Float32]()
    for begin in range(frames.start, frames.stop, _APPEARANCE_FRAMES):
        part = range(begin, min(begin + _APPEARANCE_FRAMES, frames.stop))
        before = np.zeros((len(part), BOX_SIZE, BOX_SIZE, 3), np.uint8)
        after = pictures.boxes[part.start - frames.start : part.stop - frames.start]
        filmed, drawn = (np.full((len(part), NUM_LANDMARKS, 2), np.nan, np.float32) for _ in range(2))
        for index, frame in enumerate(part):
            if not rendered[frame]:
                continue
            row = int(outcome.plan.row[frame])
            (record,) = video_face_records(outcome, workspace).read(row, row + 1)
            in_box = box_from_frame(pose_of(record))
            before[index] = record["pixels"]
            filmed[index] = apply_affine(in_box, record["landmarks"])
            drawn[index] = apply_affine(in_box, tracked.landmarks[frame])
        light = skin_light(before, filmed)
        video.append(mouth_appearance(before, filmed, light))
        dub.append(mouth_appearance(after, drawn, light))
        moved.append(clothing_moved(before, after, filmed))
        on_frame(part.stop - frames.start)
    return appearance_metrics(joined(video), joined(dub), np.concatenate(moved), distance)


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
