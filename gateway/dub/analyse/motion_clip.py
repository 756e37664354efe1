"""Motion of a person in their footage, and the frames that enrolment and the texture bank use.

Mouths and head poses are on the motion grid. The module also decides on the lag of the footage's sound: the lag is applied only if
the voice is that of the person.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from dubstage.client import motion as motion_client
from dubstage.client import rpcs
from dubstage.common.v1 import common_pb2
from gateway.dub.analyse.face_records import numbers_of_shots
from gateway.dub.convert import reason_name
from gateway.dub.sound.speech import feature_block
from gateway.dub.state.records import RecordFile, pose_of
from gateway.media.types import MediaInfo
from gateway.stages.interface import Stages
from services.common.array_types import Array, Bool, Float32, Float64, Int32, Int64
from services.common.errors import NoUsableFootageError
from services.common.face.crops import POSE_SIZE, pose_vectors, to_head_space
from services.common.face.landmarks import NUM_MOUTH_AREA, NUM_UPPER, pose_landmarks
from services.common.face.mouth_bank import choose_frames
from services.common.methods import LAG_FEATURES
from services.common.texts import Option, Text
from services.common.wire.timeline import MOTION_RATE, sampled

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
TRACKED_MOTION: Final = np.dtype(
    [("frame", "<i8"), ("pose", "<f8", (POSE_SIZE,)), ("mouth", "<f4", (NUM_MOUTH_AREA, 3)), ("upper", "<f4", (NUM_UPPER, 3))]
)
"""Record of the tracked motion of a face in one frame: index of the frame, head-pose vector, mouth-area and upper landmarks in head
space."""
_READ_ROWS: Final = 256
_LEAST_CONFIDENCE: Final = 0.25
"""Least confidence of a lag that is applied."""
_LEAST_STRENGTH: Final = 3.0
"""Least strength of a lag that is applied. docs/models/lag.md has the shares of own and of foreign voices that reach it."""
MOST_FRAMES: Final = 900
"""Most frames of a bank that is made from more than ten seconds: 36 s at 25 frames per second. More frames gain little, and cost
time in every frame of a dub."""
STRETCH_FRAMES: Final = 50
"""Neighbours that are chosen together. Retrieval finds no window in the first five frames of a span. Short stretches also hold
mostly rare mouths, and the ordinary mouths are missed. The texture stage gives each stretch one exposure."""


@dataclass(frozen=True, slots=True)
class MotionClip:
    """Motion of a person on the motion grid. Frame 0 is at time 0 of the clip.

    Attributes:
        mouth: float32 [T, 59, 3], mouth-area landmarks in head space.
        usable: bool [T].
        poses: float64 [T, 6], head-pose vectors.
        upper: float32 [T, 99, 3], landmarks of the upper face in head space (services.common.face.landmarks). None: not
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
    rows: Int64, reason: Int32, seconds: Float64, frames: range | None = None, *, most_s: float = ENROLMENT_SECONDS
) -> list[int]:
    """Return the record rows of the first usable frames of a face.

    More than FEW_SECONDS are taken only within ENROLMENT_SPAN_S of the first usable frame.

    Args:
        rows: int64 [T], record row of the face in each frame, -1 where the frame does not show the face.
        reason: int32 [R], reasons of all records (FaceIndex.reason).
        seconds: float64 [T], presentation time of every frame from the first frame.
        frames: consecutive frames to choose from; None: all.
        most_s: seconds of usable frames that are taken at most.

    Raises:
        NoUsableFootageError: fewer than MIN_ENROLMENT_FRAMES are usable.
    """
    usable: list[int] = []
    spent, first_s = 0.0, 0.0
    span = frames if frames is not None else range(len(rows))
    for frame in range(span.start, min(span.stop, len(rows))):
        far = seconds[frame] - first_s >= ENROLMENT_SPAN_S
        if spent >= (min(most_s, FEW_SECONDS) if usable and far else most_s) - 1e-6:
            break
        row = int(rows[frame])
        if row >= 0 and reason[row] == common_pb2.FRAME_REASON_DUBBED:
            first_s = first_s if usable else float(seconds[frame])
            usable.append(row)
            spent += seconds[frame + 1] - seconds[frame] if frame + 1 < len(seconds) else 0.0
    if len(usable) < MIN_ENROLMENT_FRAMES:
        raise NoUsableFootageError(
            Text(
                "only {usable} frames show the face well enough to learn it; at least {least} are needed: give footage in which "
                "the person faces the camera, or an actor that is enrolled already ({actor})",
                usable=len(usable),
                least=MIN_ENROLMENT_FRAMES,
                actor=Option("actor"),
            ),
            subject="footage",
        )
    return usable


def still_row(faces: RecordFile, rows: Int64) -> list[int]:
    """Return the record row of a face in a still picture, as a list of one.

    Raises:
        NoUsableFootageError: the face cannot be used.
    """
    (record,) = faces.read_rows([int(rows[0])])
    if record["reason"] != common_pb2.FRAME_REASON_DUBBED:
        raise NoUsableFootageError(
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
    records = tracked_motion(faces, rows)
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


def tracked_motion(faces: RecordFile, rows: list[int]) -> Array:
    """Return the tracked motion of face records, TRACKED_MOTION [R]. The records of minutes, with pixels, would fill the memory."""
    begins = range(0, len(rows), _READ_ROWS)
    return np.concatenate([tracked_motion_of(faces.read_rows(rows[begin : begin + _READ_ROWS])) for begin in begins])


def tracked_motion_of(records: Array) -> Array:
    """Return the tracked motion of FACE_RECORDs that are in memory, TRACKED_MOTION [R]."""
    heads = [pose_of(record) for record in records]
    moved = np.empty(len(records), TRACKED_MOTION)
    moved["frame"], moved["mouth"], moved["pose"] = records["frame"], records["mouth"], pose_vectors(heads)
    for row, landmarks, head in zip(moved["upper"], records["landmarks"], heads, strict=True):
        row[...] = to_head_space(pose_landmarks(landmarks), head)
    return moved


def on_motion_grid(records: Array, seconds: Float64, begin_s: float) -> MotionClip:
    """Return landmarks and head poses on the motion grid, by linear interpolation in time.

    Args:
        records: TRACKED_MOTION [R], in the order of their frames.
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


def moved_later(clip: MotionClip, fraction: float) -> MotionClip:
    """Return a clip whose frame n shows the mouth and the head pose between the frames, at n - fraction.

    A lag of whole frames and a fraction is removed from sound and picture this way: whole frames of sound are left out, and the
    picture moves by the fraction. A frame is usable if both frames beside its time are.

    Args:
        fraction: part of a frame, from -1/2 to 1/2.
    """
    if fraction == 0.0:
        return clip
    beside = np.roll(clip.usable, 1 if fraction > 0.0 else -1)
    beside[0 if fraction > 0.0 else -1] = False
    return replace(
        clip,
        mouth=sampled(clip.mouth, -fraction),
        poses=sampled(clip.poses, -fraction),
        usable=np.asarray(clip.usable & beside, np.bool_),
    )


@dataclass(frozen=True, slots=True)
class SoundLag:
    """Lag of the footage's sound against the mouth of one face.

    Attributes:
        frames: frames of 40 ms by which the sound comes after the picture; None: the lag is unknown, or must not be applied.
        confidence: EstimateLagResponse.confidence; 0: nothing was measured.
        distance: EstimateLagResponse.distance.
        num_frames: usable frames that the lag was measured on.
        at_end: whether no larger lag was searched.
        fraction: part of a frame to add to `frames`, a multiple of 1/4 from -1/2 to 1/2.
        doubt: why the voice does not count as the person's, so that the measured lag is not applied; empty: no doubt.
    """

    frames: int | None = None
    confidence: float = 0.0
    distance: float = 0.0
    num_frames: int = 0
    at_end: bool = False
    fraction: float = 0.0
    doubt: str = ""

    @property
    def strength(self) -> float:
        """Confidence times the root of the number of frames. The mean strength of foreign voices is the same for all lengths."""
        return self.confidence * math.sqrt(self.num_frames)


async def measured_lag(stages: Stages, clip: MotionClip, features: Array) -> SoundLag:
    """Return the lag of the footage's sound, with any confidence.

    The lag is unknown if the clip is too short, the mouth never opens, or hardly anybody speaks.

    Args:
        clip: motion of the person.
        features: FEATURE_RECORDs of the footage's sound, of the same frames of the motion grid.

    Raises:
        DubstageError: from the motion stage.
    """
    count = min(len(clip.mouth), len(features))
    usable = clip.usable[:count]
    request = motion_client.estimate_lag.request(
        features=feature_block(features[:count], 0, LAG_FEATURES), mouth_landmarks=clip.mouth[:count], usable=usable
    )
    try:
        lag = await stages.unary(rpcs.motion.ESTIMATE_LAG, request)
    except NoUsableFootageError:
        return SoundLag()
    at_end = abs(lag.lag_frames) >= lag.scores.shape[0] // 2
    return SoundLag(lag.lag_frames, lag.confidence, lag.distance, int(usable.sum()), at_end, lag.lag_fraction)


def credible_lag(lag: SoundLag, others: Mapping[int, SoundLag]) -> SoundLag:
    """Return a lag that may be applied, or the lag without its number and with the doubt.

    Args:
        lag: measured lag of the person who is learned.
        others: measured lags of other faces that are in the picture at the same time, by face id.
    """
    if lag.frames is None:
        return lag
    least = max(_LEAST_CONFIDENCE, _LEAST_STRENGTH / math.sqrt(lag.num_frames))
    rival = max(others, key=lambda face: others[face].strength, default=None)
    if rival is not None and others[rival].strength > lag.strength:
        why = f"the mouth of face {rival} fits the sound better"
    elif lag.confidence < least:
        why = f"the confidence is {lag.confidence:.2f}, and {lag.num_frames} frames need {least:.2f}"
    elif lag.at_end:
        why = "larger lags were not searched"
    else:
        return lag
    return replace(lag, frames=None, doubt=f"{why}; the lag that fits best, {lag.frames:+d} frames of 40 ms, is not applied")


class BankRows(NamedTuple):
    """Frames for a bank.

    Attributes:
        rows: record rows, in the order of the footage.
        max_frames: most frames that the bank keeps; 0: the texture stage's own number.
    """

    rows: list[int]
    max_frames: int


def bank_rows(faces: RecordFile, rows: list[int], seconds: Float64, shot_cuts: Sequence[int]) -> BankRows:
    """Return the frames for a bank: all usable frames, or the stretches with the most different mouths.

    Of ten seconds or less, the texture stage chooses: its number is smaller and keeps banks of high frame rates small.

    Args:
        faces: FACE_RECORDs of the footage.
        rows: record rows of the usable frames.
        seconds: float64 [T], presentation time of every frame from the first frame.
        shot_cuts: frames that begin a shot, in order. A stretch ends there.
    """
    records = tracked_motion(faces, rows)
    shown_s = np.diff(seconds, append=seconds[-1:])[records["frame"]].sum()
    if shown_s <= FEW_SECONDS + 0.5:
        return BankRows(rows, 0)
    chosen = choose_frames(records["mouth"], numbers_of_shots(records["frame"], shot_cuts), MOST_FRAMES, STRETCH_FRAMES)
    return BankRows([rows[index] for index in chosen], MOST_FRAMES)
