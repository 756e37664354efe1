"""Motion of a person in their footage: which face records enrolment uses, and their mouths and head poses on the motion grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from dubstage.common.v1alpha1 import common_pb2
from gateway.media.types import MediaInfo
from gateway.pipeline.messages import reason_name
from gateway.pipeline.records import RecordFile, pose_of
from services.common.array_types import Array, Bool, Float32, Float64, Int64
from services.common.errors import NoUsableFootage
from services.common.face.crops import to_head_space
from services.common.face.head_pose_vectors import POSE_SIZE, pose_vectors
from services.common.face.landmark_layout import NUM_UPPER, pose_landmarks
from services.common.face.landmarks import NUM_MOUTH_AREA
from services.common.wire.timeline import MOTION_RATE

ENROLMENT_SECONDS: Final = 300
"""Seconds of usable footage that enrolment learns from at most."""
ENROLMENT_SPAN_S: Final = 360
"""Seconds from the first usable frame within which enrolment goes on for more than FEW_SECONDS of usable footage. One message holds
the motion of the whole span."""
FEW_SECONDS: Final = 10
"""Seconds of usable footage that are looked for however far apart they are, and that a face is compared with the sound on."""
_MOST_FRAMES: Final = int(ENROLMENT_SPAN_S * MOTION_RATE)
"""Frames of a clip at most: seconds of usable footage that lie far apart are brought together."""
_KEPT_AROUND: Final = (100, 50, 25, 12)
"""Frames that a long clip keeps before and after each usable frame: the first number that makes the clip short enough. Predictors
compare a frame's loudness with 100 frames before."""
MIN_ENROLMENT_FRAMES: Final = 25
"""Fewest usable frames that make a texture bank and a speaking style."""
MOVED_RECORD: Final = np.dtype(
    [("frame", "<i8"), ("pose", "<f8", (POSE_SIZE,)), ("mouth", "<f4", (NUM_MOUTH_AREA, 3)), ("upper", "<f4", (NUM_UPPER, 3))]
)
"""Motion of a face in one frame: index of the frame, head-pose vector, mouth-area and upper landmarks in head space."""
_READ_ROWS: Final = 256


@dataclass(frozen=True, slots=True)
class MotionClip:
    """Motion of a person on the motion grid. Frame 0 is at time 0 of the clip.

    Attributes:
        mouth: float32 [T, 59, 3], mouth-area landmarks in head space.
        usable: bool [T].
        poses: float64 [T, 6], head-pose vectors.
        upper: float32 [T, 99, 3], landmarks of the upper face in head space (services.common.face.landmark_layout). None: not
            measured.
    """

    mouth: Float32
    usable: Bool
    poses: Float64
    upper: Float32 | None = None


def frame_seconds(info: MediaInfo) -> Float64:
    """Return the presentation time of every frame from the first frame, seconds, float64 [T]."""
    return np.asarray((info.video.pts - info.video.pts[0]) * float(info.video.time_base), np.float64)


def enrolment_rows(
    faces: RecordFile, rows: Int64, seconds: Float64, frames: range | None = None, *, most_s: float = ENROLMENT_SECONDS
) -> list[int]:
    """Return the record rows of the first usable frames of a face.

    More than FEW_SECONDS are taken only within ENROLMENT_SPAN_S of the first usable frame.

    Args:
        faces: FACE_RECORDs of the footage.
        rows: int64 [T], record row of the face in each frame, -1 where the frame does not show the face.
        seconds: float64 [T], presentation time of every frame from the first frame.
        frames: consecutive frames to choose from; None: all.
        most_s: seconds of usable frames that are taken at most.

    Raises:
        NoUsableFootage: fewer than MIN_ENROLMENT_FRAMES are usable.
    """
    usable: list[int] = []
    spent, first_s = 0.0, 0.0
    span = frames if frames is not None else range(len(rows))
    for frame in range(span.start, min(span.stop, len(rows))):
        far = seconds[frame] - first_s >= ENROLMENT_SPAN_S
        if spent >= (min(most_s, FEW_SECONDS) if usable and far else most_s) - 1e-6:
            break
        row = int(rows[frame])
        if row < 0:
            continue
        if faces.read(row, row + 1)["reason"][0] == common_pb2.FRAME_REASON_DUBBED:
            first_s = first_s if usable else float(seconds[frame])
            usable.append(row)
            spent += seconds[frame + 1] - seconds[frame] if frame + 1 < len(seconds) else 0.0
    if len(usable) < MIN_ENROLMENT_FRAMES:
        raise NoUsableFootage(
            f"only {len(usable)} frames show the face well enough to learn it; at least {MIN_ENROLMENT_FRAMES} are needed: "
            "give footage in which the person faces the camera, or an actor that is enrolled already (--actor)",
            subject="footage",
        )
    return usable


def still_row(faces: RecordFile, rows: Int64) -> list[int]:
    """Return the record row of a face in a still picture, as a list of one.

    Raises:
        NoUsableFootage: the face cannot be used.
    """
    (record,) = faces.read_rows([int(rows[0])])
    if record["reason"] != common_pb2.FRAME_REASON_DUBBED:
        raise NoUsableFootage(
            f"the face of the picture cannot be used ({reason_name(record['reason'])}): give a picture of the whole face from the "
            "front",
            subject="footage",
        )
    return [int(rows[0])]


def clip_of(faces: RecordFile, rows: list[int], seconds: Float64) -> tuple[MotionClip, list[int]]:
    """Return the motion of face records on the motion grid, and the frames of the footage's motion grid that the clip shows.

    The frames follow each other, unless the clip would be longer than ENROLMENT_SPAN_S. Then frames far from usable frames are
    left out.
    """
    records = motion_records(faces, rows)
    begin = int(np.floor(seconds[records["frame"][0]] * float(MOTION_RATE)))
    clip = on_motion_grid(records, seconds, begin / float(MOTION_RATE))
    kept = _kept_frames(clip.usable)
    if len(kept) < len(clip.usable):
        upper = None if clip.upper is None else clip.upper[kept]
        clip = MotionClip(clip.mouth[kept], clip.usable[kept], clip.poses[kept], upper)
    return clip, (begin + kept).tolist()


def _kept_frames(usable: Bool) -> Int64:
    """Return the frames of a clip that are kept, increasing: all, or those around usable frames if the clip is too long."""
    kept = np.ones(len(usable), np.bool_)
    for around in _KEPT_AROUND:
        if kept.sum() > _MOST_FRAMES:
            kept = np.convolve(usable, np.ones(2 * around + 1), "same") > 0.5
    return np.flatnonzero(kept)


def motion_records(faces: RecordFile, rows: list[int]) -> Array:
    """Return what face records tell of the motion, MOVED_RECORD [R]. Pixels and meshes of minutes would fill the memory."""
    begins = range(0, len(rows), _READ_ROWS)
    return np.concatenate([moved_records(faces.read_rows(rows[begin : begin + _READ_ROWS])) for begin in begins])


def moved_records(records: Array) -> Array:
    """Return what FACE_RECORDs tell of the motion, MOVED_RECORD [R]."""
    heads = [pose_of(record) for record in records]
    moved = np.empty(len(records), MOVED_RECORD)
    moved["frame"], moved["mouth"], moved["pose"] = records["frame"], records["mouth"], pose_vectors(heads)
    for row, landmarks, head in zip(moved["upper"], records["landmarks"], heads, strict=True):
        row[...] = to_head_space(pose_landmarks(landmarks), head)
    return moved


def on_motion_grid(records: Array, seconds: Float64, begin_s: float) -> MotionClip:
    """Return landmarks and head poses on the motion grid, by linear interpolation in time.

    Args:
        records: MOVED_RECORD [R], in the order of their frames.
        seconds: float64 [T], presentation time of every frame of the footage from the first frame.
        begin_s: time of grid frame 0, seconds.
    """
    vectors, upper = records["pose"], records["upper"]
    if len(records) == 1:
        return MotionClip(records["mouth"], np.ones(1, np.bool_), vectors, upper)
    times = seconds[records["frame"]] - begin_s
    step = float(1 / MOTION_RATE)
    grid = np.arange(int(np.floor(times[-1] / step)) + 1) * step
    right = np.clip(np.searchsorted(times, grid), 1, len(times) - 1)
    left = right - 1
    gap = times[right] - times[left]
    exact = np.clip((grid - times[left]) / gap, 0.0, 1.0)
    weight = exact.astype(np.float32)[:, None, None]
    mouth = records["mouth"][left] * (1.0 - weight) + records["mouth"][right] * weight
    upper = upper[left] * (1.0 - weight) + upper[right] * weight
    poses = vectors[left] * (1.0 - exact[:, None]) + vectors[right] * exact[:, None]
    usable = (gap <= 2.5 * step) & (grid >= times[0] - 0.5 * step)
    return MotionClip(np.asarray(mouth, np.float32), np.asarray(usable, np.bool_), poses, np.asarray(upper, np.float32))
