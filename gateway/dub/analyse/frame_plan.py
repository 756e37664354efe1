"""Frame plan of a video: whether each frame is dubbed or passes through, the reason, and the strength.

The plan is made once the target mouths are known: a frame is SILENT only if the mouth is at rest there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dubstage.common.v1 import common_pb2
from gateway.dub.analyse.face_records import FaceIndex
from gateway.dub.convert import reason_name
from gateway.dub.state.records import RecordFile, RecordSpan
from services.common.array_types import Array, Bool, Float32, Int32, Int64
from services.common.face.landmarks import mouth_opening
from services.common.wire.mouth_curves import SpeakingMotion

DUBBED: Final = common_pb2.FRAME_REASON_DUBBED
SILENT: Final = common_pb2.FRAME_REASON_SILENT
RENDERED: Final = (DUBBED, SILENT)
"""Reasons of the frames whose mouth is rendered."""
FADE_FRAMES: Final = 2
"""Number of frames over which a dubbed stretch fades in and out beside frames that pass through."""
SILENT_BELOW: Final = 0.5
"""Speech probability below which nobody speaks in a frame."""
REST_SHARE: Final = 0.08
"""Opening above the person's rest up to which a mouth counts as at rest, share of the person's range."""
_BLOCK: Final = 512
"""Frames whose mouths are read at once."""
_SHUT_PX: Final = 2.0
"""Opening up to which the mouth of a person whose range is not known counts as at rest, crop pixels."""


@dataclass(frozen=True, slots=True)
class FramePlan:
    """Plan of every frame of a video.

    Attributes:
        reason: int32 [T], FrameReason.
        row: int64 [T], face record of the target; -1: the frame does not show the target.
        strength: float32 [T], weight of the rendered mouth: 1 inside a dubbed stretch, falling towards its ends, 0 elsewhere.
    """

    reason: Int32
    row: Int64
    strength: Float32

    @property
    def num_frames(self) -> int:
        """Number of frames of the video."""
        return len(self.reason)

    def rendered(self) -> Bool:
        """Return the frames whose mouth is rendered, bool [T]."""
        return np.isin(self.reason, RENDERED)

    def counts(self) -> dict[str, int]:
        """Return the number of frames by reason, such as {'DUBBED': 100}."""
        numbers, counts = np.unique(self.reason, return_counts=True)
        names = [reason_name(number) for number in numbers]
        return dict(zip(names, counts.tolist(), strict=True))


def at_rest(opening: Float32, own: SpeakingMotion | None) -> Bool:
    """Return whether mouths are shut or at the person's rest, bool [T].

    Args:
        opening: float32 [T], opening of the mouths, crop pixels.
        own: how the person moves the mouth; None: not known.
    """
    most = _SHUT_PX if own is None else own.rest_opening + REST_SHARE * own.opening_range
    return np.asarray(opening <= most, np.bool_)


def silent_frames(
    motion: RecordFile | RecordSpan, mouths: Callable[[int, int], Float32], frames: range, own: SpeakingMotion | None
) -> Bool:
    """Return the frames in which nobody speaks and the target mouth is at rest, bool [T].

    Args:
        motion: MOTION_RECORDs of the T frames.
        mouths: returns the target mouths of a range of frames of the video, with the slow expression if the dub keeps the
            expression, float32 [N, 59, 3].
        frames: the T frames, as frames of the video.
        own: how the person moves the mouth; None: not known.
    """
    silent = [np.zeros(0, np.bool_)]
    for begin in range(0, len(frames), _BLOCK):
        end = min(begin + _BLOCK, len(frames))
        still = at_rest(mouth_opening(mouths(frames.start + begin, frames.start + end)), own)
        silent.append(still & (motion.read(begin, end)["speech_probability"] < SILENT_BELOW))
    return np.concatenate(silent)


def make_plan(
    index: FaceIndex,
    face_id: int | None,
    silent: Bool,
    frames: range,
    spoken: Sequence[range] = (),
) -> FramePlan:
    """Return the plan of a video, or of one line of a scene.

    Args:
        index: faces of the video.
        face_id: face to dub; None: the video shows no face.
        silent: bool, see silent_frames, of every frame of the video, or of the line.
        frames: all frames of the video, or those of the line.
        spoken: frames of all lines of this face. The line does not fade beside another.
    """
    total = index.num_frames
    row, reason = _rows_and_reasons(index, face_id)
    own, dubbed = (_within(ranges, total) for ranges in ((frames,), (frames, *spoken)))
    strength = np.where(own, _strength((reason == DUBBED) & dubbed, index.shot_cuts), np.float32(0.0))
    of_line = np.zeros(total, dtype=bool)
    of_line[frames.start : frames.stop] = silent
    reason[(reason == DUBBED) & of_line] = SILENT
    reason[~own] = common_pb2.FRAME_REASON_NO_LINE
    return FramePlan(reason.astype(np.int32), row, strength)


def strength_of(index: FaceIndex, face_id: int) -> Float32:
    """Return the strength of the new mouth in each frame of a video whose frames are all dubbed with one speech, float32 [T]."""
    _, reason = _rows_and_reasons(index, face_id)
    return _strength(reason == DUBBED, index.shot_cuts)


def _rows_and_reasons(index: FaceIndex, face_id: int | None) -> tuple[Int64, Int64]:
    """Return the record row of a face in each frame, int64 [T], and what the face stage says of each frame, int64 [T]."""
    row = np.full(index.num_frames, -1, dtype=np.int64) if face_id is None else index.rows_of(face_id)
    reason = np.where(index.with_faces(), common_pb2.FRAME_REASON_TARGET_NOT_PRESENT, common_pb2.FRAME_REASON_NO_FACE)
    present = row >= 0
    reasons = index.reason.copy()
    reasons[index.partly_covered] = DUBBED
    reason[present] = reasons[row[present]]
    return row, reason


def _within(ranges: Sequence[range], num_frames: int) -> Bool:
    """Return the frames of ranges, bool [num_frames]."""
    inside = np.zeros(num_frames, dtype=np.bool_)
    for frames in ranges:
        inside[frames.start : frames.stop] = True
    return inside


def joined_plan(plans: Sequence[FramePlan]) -> FramePlan:
    """Return what happens to every frame of a scene: a frame counts as dubbed if any line dubs the frame.

    Args:
        plans: plans of the lines, at least one.
    """
    joined = plans[0]
    for plan in plans[1:]:
        takes = _rank(plan.reason) > _rank(joined.reason)
        joined = FramePlan(
            np.where(takes, plan.reason, joined.reason),
            np.where(takes, plan.row, joined.row),
            np.maximum(plan.strength, joined.strength),
        )
    return joined


def _rank(reason: Int32) -> Int32:
    """Return how much a reason says of a frame: dubbed most, no line least."""
    return np.select([reason == DUBBED, reason == SILENT, reason == common_pb2.FRAME_REASON_NO_LINE], [3, 2, 0], default=1).astype(
        np.int32
    )


def _strength(dubbed: Array, shot_cuts: tuple[int, ...]) -> Float32:
    """Return the distance to the nearest frame of the same shot that passes through, divided by FADE_FRAMES + 1, at most 1."""
    strength = np.where(dubbed, 1.0, 0.0).astype(np.float32)
    edges = [0, *(cut for cut in shot_cuts if cut > 0), len(dubbed)]
    for begin, end in zip(edges, edges[1:], strict=False):
        inside, faded = dubbed[begin:end], strength[begin:end]
        for offset in range(FADE_FRAMES, 0, -1):
            near = np.zeros(end - begin, dtype=np.bool_)
            near[offset:] |= ~inside[:-offset]
            near[:-offset] |= ~inside[offset:]
            faded[near & inside] = offset / (FADE_FRAMES + 1)
    return strength
