"""Identity coefficients of a person, and expression coefficients of the person's frames on the morphable model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from dubstage.client import face as face_client
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2
from gateway.async_utilities import in_thread
from gateway.dub.analyse.footage import STATE_EVERY, picture_for_tracker, tracked_answers
from gateway.dub.analyse.shot_looks import ShotLooks
from gateway.dub.analyse.tracking_point import TrackingPoint
from gateway.dub.convert import timeline_of
from gateway.dub.progress import OnProgress
from gateway.dub.sound.speech import AlignedSpeech
from gateway.dub.state.native_boxes import KeptLuma
from gateway.dub.state.records import RecordFile
from gateway.media.reader import VideoReader
from gateway.media.types import DecodedFrame, MediaInfo
from gateway.stages.calls import until_done
from gateway.stages.interface import Stages
from services.common.array_types import Array, Float32, Float64, Int64, UInt8
from services.common.errors import NoUsableFootageError
from services.common.wire.convert import from_tensor

MAX_FITTED_FRAMES: Final = 300
"""Most frames that are fitted. A frame takes some 40 ms: 10 for tracking and 30 for the fit. Of longer footage every second or
third frame is fitted, and frames between are interpolated."""
_MAX_GAP: Final = 12
"""Missing frames up to which two spans of frames are tracked as one. Stretches further apart begin anew."""
_SAME_FACE: Final = 90.0
"""Largest distance of a tracked face from the recorded face, pixels of the render box's unit: half a face's width."""


class _FrameSpan(NamedTuple):
    """Frames that are tracked as one stream. Attributes: start, stop: frames of the footage; step: distance of the sent frames."""

    start: int
    stop: int
    step: int


async def fitted_expressions(
    stages: Stages,
    info: MediaInfo,
    faces: RecordFile,
    rows: list[int],
    identity: common_pb2.ArtefactRef,
    on_step: OnProgress,
) -> Float32:
    """Return the expression of the person in each record row, float32 [F, E], smoothed over time, without NaN.

    The footage is decoded again, because records hold the lower face only. A frame in which the face stage does not find the person
    takes the interpolation of its neighbours.

    Args:
        faces: FACE_RECORDs of the footage.
        rows: record rows of the person, F of them, in the order of the footage.
        identity: artefact of FitIdentity.
        on_step: called with every fitted frame.

    Raises:
        NoUsableFootageError: the face stage finds the person in no frame.
        MediaUnsupportedError: the footage breaks off.
        DubstageError: from the face stage.
    """
    records = faces.read_rows(rows)
    spans = spans_of(records["frame"])
    by_frame = {int(record["frame"]): record for record in records}
    total = sum(len(range(*span)) for span in spans)

    expressions: dict[int, Float32] = {}
    # The frames that are answered; the spans that are; and where the tracking of the next span goes on.
    answered: set[int] = set()
    finished, point = 0, TrackingPoint.begin()

    async def fit() -> None:
        nonlocal finished, point
        for span in spans[finished:]:
            async with aclosing(_tracked(stages, info, span, identity, point)) as frames:
                async for index, answer, scale in frames:
                    answered.add(index)
                    on_step("coefficients", len(answered), total)
                    if index in by_frame and (expression := _expression(by_frame[index], answer, scale)) is not None:
                        expressions[index] = expression
            finished, point = finished + 1, TrackingPoint.begin()

    await until_done(fit, progress=lambda: len(answered))
    if not expressions:
        raise NoUsableFootageError("the face stage finds the person's face in none of the enrolled frames again", subject="footage")
    fitted = np.array(sorted(expressions))
    return interpolated(fitted, np.stack([expressions[index] for index in fitted]), records["frame"])


def spans_of(frames: Int64) -> list[_FrameSpan]:
    """Return the spans of the footage that are tracked.

    Args:
        frames: int64 [F], F >= 1, frames of the footage, ascending.
    """
    breaks = np.flatnonzero(np.diff(frames) > _MAX_GAP) + 1
    step = -(-len(frames) // MAX_FITTED_FRAMES)
    return [_FrameSpan(int(part[0]), int(part[-1]) + 1, step) for part in np.split(frames, breaks)]


def interpolated(value_frames: Int64, values: Float32, frames: Int64 | Float64) -> Float32:
    """Return values at the target frames, float32 [F, E]: linear between the frames of the values, constant outside.

    Args:
        value_frames: int64 [K], frames of the values, ascending, K >= 1.
        values: float32 [K, E].
        frames: int64 or float64 [F].
    """
    columns = [np.interp(frames, value_frames, column) for column in values.T.astype(np.float64)]
    return np.asarray(np.stack(columns, 1), np.float32)


async def _tracked(
    stages: Stages, info: MediaInfo, span: _FrameSpan, identity: common_pb2.ArtefactRef, point: TrackingPoint
) -> AsyncGenerator[tuple[int, face_pb2.FrameFaces, float], None]:
    """Yield the frames of a span from a point on: index in the footage, faces, and footage pixels per pixel of the picture."""
    scales: deque[float] = deque()

    def requests(begin: TrackingPoint) -> AsyncIterator[face_pb2.TrackRequest]:
        scales.clear()
        return _messages(info, span, identity, scales, begin)

    async with aclosing(tracked_answers(stages, requests, point)) as answers:
        async for frame in answers:
            yield span.start + span.step * int(frame.frame_index), frame, scales.popleft()


async def _messages(
    info: MediaInfo, span: _FrameSpan, identity: common_pb2.ArtefactRef, scales: deque[float], point: TrackingPoint
) -> AsyncGenerator[face_pb2.TrackRequest, None]:
    requests = face_client.track.requests(
        timeline=timeline_of(info),
        identity=identity,
        fit_colours=True,
        first_frame=point.next_frame,
        state_every=STATE_EVERY,
        resume=point.state,
    )
    yield requests.config
    with VideoReader(info) as reader:
        frames = reader.frames_from(span.start + span.step * point.next_frame, span.stop)
        while (decoded := await in_thread(_next_picture, frames, span)) is not None:
            picture, scale = decoded
            scales.append(scale)
            yield requests.item(picture)


def _next_picture(frames: Iterator[DecodedFrame], span: _FrameSpan) -> tuple[UInt8, float] | None:
    for frame in frames:
        if (frame.index - span.start) % span.step == 0:
            _, small, scale = picture_for_tracker(frame)
            return small, scale
    return None


def _expression(record: Any, answer: face_pb2.FrameFaces, scale: float) -> Float32 | None:
    """Return the expression of the answered face that lies where the recorded face lies; None: there is none."""
    fitted = [face for face in answer.faces if face.HasField("coefficients")]
    wanted: Float64 = record["translation"][:2]
    distances = [float(np.linalg.norm(np.array(face.pose.translation[:2]) * scale - wanted)) for face in fitted]
    if not distances or min(distances) > _SAME_FACE * float(record["scale"]):
        return None
    nearest = fitted[int(np.argmin(distances))]
    expression: Array = from_tensor(nearest.coefficients.expression, "coefficients.expression", dtype=np.float32, shape=(None,))
    return np.asarray(expression, np.float32)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BankExtras:
    """Arrays that a bank holds of its N frames, beside their pictures.

    Attributes:
        speech: float32 [N, 20, 40], features of the footage's own sound at each frame; None: the footage has no sound.
        expression: float32 [N, E], fitted expression on the identity's morphable model; None: not fitted.
        spoken_mouth: float32 [N, 59, 3], predicted mouth of the footage's own sound at each frame; None: the sound does not count.
    """

    speech: Float32 | None = None
    expression: Float32 | None = None
    spoken_mouth: Float32 | None = None

    def of(self, index: int) -> dict[str, Float32]:
        """Return the arrays of one frame, by the names of BankFrame's attributes."""
        arrays = {"speech": self.speech, "expression": self.expression, "spoken_mouth": self.spoken_mouth}
        return {name: array[index] for name, array in arrays.items() if array is not None}


@dataclass(frozen=True, slots=True)
class TrackedPerson:
    """A person in footage.

    Attributes:
        faces: FACE_RECORDs of the footage.
        rows: record rows of the person, N of them, in the order of the footage.
        max_frames: most frames that a bank of the person keeps; 0: the texture stage's own number.
        shot_cuts: frames that begin a shot, in order.
        looks: looks of the person, to take away what stands before the face; None: nothing does.
        luma: luma around the faces; None: the footage is decoded again for it.
    """

    info: MediaInfo
    faces: RecordFile
    rows: list[int]
    max_frames: int = 0
    shot_cuts: tuple[int, ...] = ()
    looks: ShotLooks | None = None
    luma: KeptLuma | None = None


async def bank_extras(
    stages: Stages, person: TrackedPerson, identity: common_pb2.ArtefactRef, spoken: AlignedSpeech | None, on_step: OnProgress
) -> BankExtras:
    """Return what the bank holds of a person's frames beside their pictures.

    Args:
        identity: the person on the morphable model.
        spoken: the footage's own sound; None: the footage has no sound.
        on_step: called with every fitted frame.

    Raises:
        NoUsableFootageError: the face stage finds the person in no frame.
        MediaUnsupportedError: the footage breaks off.
        DubstageError: from the face stage.
    """
    expression = await fitted_expressions(stages, person.info, person.faces, person.rows, identity, on_step)
    speech: Float32 | None = None
    if spoken is not None:
        speech = await asyncio.to_thread(lambda: spoken.around(person.faces.read_rows(person.rows)["frame"]))
    return BankExtras(speech=speech, expression=expression)
