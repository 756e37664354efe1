"""Messages that several stages use, to and from own types, with validation: arrays, artefacts, head poses, faces, timelines, and
the models that ListModels answers. The gateway compares these models with the rows of its own table of methods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from dubstage.client.arrays import DTYPES
from dubstage.common.v1 import common_pb2
from dubstage.common.v1 import common_pb2 as pb
from dubstage.motion.v1 import motion_pb2
from dubstage.render.v1 import render_pb2
from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.face.crops import (
    MAX_FRAME_PX,
    MAX_HEAD_PX,
    MAX_SCALE,
    MIN_SCALE,
    HeadPose,
    face_shape_problem,
    fit_head_pose,
    to_head_space,
)
from services.common.face.landmarks import NUM_LANDMARKS
from services.common.methods import MouthOptions, PredictorSpec, RendererSpec
from services.common.store.artefacts import ArtefactRef, check_ref
from services.common.wire.timeline import MAX_FRAMES, Timeline, check_rate, check_span, check_times

M = TypeVar("M", bound=MouthOptions)
_MAX_LENGTH: Final = 1 << 31
_ROTATION_TOLERANCE: Final = 1e-3
_OTHER_SCALE: Final = 10.0
"""Largest factor between the scale of a pose and the scale of its landmarks. Smoothing makes a few per cent."""


def from_tensor(
    message: pb.Tensor,
    field: str,
    *,
    dtype: npt.DTypeLike,
    shape: Sequence[int | None],
    finite: bool = True,
    limit: float | None = None,
) -> npt.NDArray[Any]:
    """Return the array of a Tensor message, read-only.

    Args:
        message: the tensor.
        field: name of the tensor in the request, for the error text.
        dtype: required data type.
        shape: required lengths; None where any length is allowed.
        finite: refuse NaN and infinity in floats.
        limit: largest magnitude of a number; None: any.

    Raises:
        InvalidRequestError: the type, shape or byte count is another one, a number is not finite or beyond the limit, or a bool is
            neither 0 nor 1.
    """
    required = np.dtype(dtype)
    actual = DTYPES.get(message.data_type)
    if actual != required:
        raise InvalidRequestError(f"{field}: expected {required}, got {actual or 'no data type'}", field=field)
    got = tuple(message.shape)
    fits = len(got) == len(shape) and all(length >= 0 for length in got)
    if not fits or any(want is not None and want != have for want, have in zip(shape, got, strict=True)):
        expected = "[" + ", ".join("any" if length is None else str(length) for length in shape) + "]"
        raise InvalidRequestError(f"{field}: expected shape {expected}, got {list(got)}", field=field)
    # The product is computed in Python's integers: a product in 64 bits could overflow.
    size = math.prod(got) * required.itemsize
    data = message.data  # each access to a message's bytes copies the bytes
    if len(data) != size or (not size and max(got, default=0) > _MAX_LENGTH):
        raise InvalidRequestError(f"{field}: shape {list(got)} needs {size} bytes, got {len(data)}", field=field)
    array: npt.NDArray[Any] = np.frombuffer(data, dtype=required).reshape(got)
    if finite and required.kind == "f" and not np.isfinite(array).all():
        first = np.argwhere(~np.isfinite(array))[0].tolist()
        raise InvalidRequestError(f"{field}: value at {first} is not a finite number ({array[tuple(first)]})", field=field)
    if limit is not None and array.size and not (array.min() >= -limit and array.max() <= limit):
        first = np.argwhere(np.abs(array) > limit)[0].tolist()
        raise InvalidRequestError(
            f"{field}: value at {first} is {array[tuple(first)]:g}; numbers from {-limit:g} to {limit:g} are expected", field=field
        )
    if required.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise InvalidRequestError(f"{field}: a bool is a byte 0 or 1", field=field)
    return array


def from_image(message: pb.Image, field: str, *, channels: int, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
    """Return the pixels of an 8-bit Image: uint8 [H, W, 3] for channels=3, [H, W] for channels=1; read-only.

    Raises:
        InvalidRequestError: the encoding is another one, the size is not `size` (width, height), or the number of bytes is wrong.
    """
    encoding = pb.IMAGE_ENCODING_RGB8 if channels == 3 else pb.IMAGE_ENCODING_GRAY8
    if message.encoding != encoding:
        is_named = message.encoding in pb.ImageEncoding.values()
        got = pb.ImageEncoding.Name(message.encoding) if is_named else f"encoding {message.encoding}"
        raise InvalidRequestError(f"{field}: expected {pb.ImageEncoding.Name(encoding)}, got {got}", field=field)
    width, height = message.width, message.height
    if size is not None and (width, height) != size:
        raise InvalidRequestError(f"{field}: expected {size[0]} x {size[1]} pixels, got {width} x {height}", field=field)
    data = message.data  # each access to a message's bytes copies the bytes
    if not width or not height or len(data) != width * height * channels:
        needed = width * height * channels
        raise InvalidRequestError(f"{field}: {width} x {height} needs {needed} bytes, got {len(data)}", field=field)
    pixels = np.frombuffer(data, dtype=np.uint8)
    return pixels.reshape((height, width, 3) if channels == 3 else (height, width))


def ref_from_proto(message: common_pb2.ArtefactRef, field: str) -> ArtefactRef:
    """Return a reference to an artefact.

    Raises:
        InvalidRequestError: the reference has no uri, its sha256 is no digest, or its size is negative. The message names the
            field.
    """
    if not message.uri:
        raise InvalidRequestError(f"{field}: an artefact's uri and sha256 are needed", field=field)
    ref = ArtefactRef(message.uri, message.sha256, message.size_bytes)
    check_ref(ref, field)
    return ref


def ref_to_proto(ref: ArtefactRef) -> common_pb2.ArtefactRef:
    """Return a reference as a message."""
    return common_pb2.ArtefactRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes)


def pose_from_proto(message: common_pb2.HeadPose, field: str) -> HeadPose:
    """Return a head pose.

    Raises:
        InvalidRequestError: numbers are missing or not finite, the scale is outside MIN_SCALE to MAX_SCALE, the translation is
            further than MAX_FRAME_PX from the frame's corner, or the matrix is no rotation.
    """
    if len(message.rotation) != 9 or len(message.translation) != 3:
        raise InvalidRequestError(
            f"{field}: 9 numbers of rotation and 3 of translation are needed, "
            f"got {len(message.rotation)} and {len(message.translation)}",
            field=field,
        )
    rotation = np.array(message.rotation, dtype=np.float64).reshape(3, 3)
    translation = np.array(message.translation, dtype=np.float64)
    # NaN fails each of these comparisons.
    if not MIN_SCALE <= message.scale <= MAX_SCALE:
        raise InvalidRequestError(
            f"{field}.scale: {message.scale:g} frame pixels a head-space pixel are not between {MIN_SCALE:g} and {MAX_SCALE:g}",
            field=f"{field}.scale",
        )
    if not (np.abs(translation) <= MAX_FRAME_PX).all():
        raise InvalidRequestError(
            f"{field}.translation: {translation.tolist()} is not within {MAX_FRAME_PX:g} pixels of the frame's corner",
            field=f"{field}.translation",
        )
    bounded = bool((np.abs(rotation) <= 1.0 + _ROTATION_TOLERANCE).all())
    if not bounded or np.abs(rotation @ rotation.T - np.eye(3)).max() > _ROTATION_TOLERANCE or np.linalg.det(rotation) < 0:
        raise InvalidRequestError(f"{field}.rotation is not a rotation matrix", field=f"{field}.rotation")
    return HeadPose(message.scale, rotation, translation)


def pose_to_proto(pose: HeadPose) -> common_pb2.HeadPose:
    """Return a head pose as a message."""
    return common_pb2.HeadPose(scale=pose.scale, rotation=pose.rotation.ravel().tolist(), translation=pose.translation.tolist())


def face_from_proto(points: common_pb2.Tensor, head_pose: common_pb2.HeadPose, field: str) -> tuple[Float32, HeadPose]:
    """Return landmarks of a whole face, float32 [478, 3], frame pixels, and their head pose.

    Raises:
        InvalidRequestError: the points are no face, the pose cannot be used, or the pose does not belong to the landmarks.
    """
    where = f"{field}.landmarks"
    landmarks: Float32 = from_tensor(points, where, dtype=np.float32, shape=(NUM_LANDMARKS, 3), limit=MAX_FRAME_PX)
    if problem := face_shape_problem(landmarks):
        raise InvalidRequestError(f"{where}: these points are no face: {problem}", field=where)
    pose = pose_from_proto(head_pose, f"{field}.pose")
    own = fit_head_pose(landmarks)
    if not 1.0 / _OTHER_SCALE <= own.scale / pose.scale <= _OTHER_SCALE:
        raise InvalidRequestError(
            f"{field}.pose: the pose has scale {pose.scale:g} and the landmarks have scale {own.scale:g}: they are not of one face",
            field=f"{field}.pose.scale",
        )
    if not np.abs(to_head_space(landmarks, pose)).max() <= MAX_HEAD_PX:
        raise InvalidRequestError(
            f"{field}.pose: the landmarks lie more than {MAX_HEAD_PX:g} head-space pixels from the head: they are not of one face",
            field=f"{field}.pose.translation",
        )
    return landmarks, pose


def rate_from_proto(message: common_pb2.Rational, field: str) -> Fraction:
    """Return a frame rate, frames per second.

    Raises:
        InvalidRequestError: the rate is no positive number, or lies outside MIN_RATE to MAX_RATE.
    """
    rate = _fraction(message, field)
    check_rate(rate, field)
    return rate


def timeline_from_proto(message: common_pb2.Timeline, field: str) -> Timeline:
    """Return a timeline.

    Raises:
        InvalidRequestError: there is neither a rate nor times, the rate is out of range, times do not increase, lie too dense or
            too far from time zero, or the time base is no positive number.
    """
    if message.HasField("frame_rate"):
        return Timeline(rate=rate_from_proto(message.frame_rate, f"{field}.frame_rate"))
    if not message.HasField("explicit"):
        raise InvalidRequestError(f"{field}: give frame_rate or explicit times", field=field)
    where = f"{field}.explicit"
    if len(message.explicit.pts) > MAX_FRAMES:
        raise InvalidRequestError(
            f"{where}.pts: {len(message.explicit.pts)} frames are more than the {MAX_FRAMES} of one timeline", field=f"{where}.pts"
        )
    pts: npt.NDArray[np.int64] = np.array(message.explicit.pts, np.int64)
    time_base = _fraction(message.explicit.time_base, f"{where}.time_base")
    check_times(pts, time_base, where)
    return Timeline(pts=pts, time_base=time_base)


def num_frames_from_proto(num_frames: int, timeline: Timeline, field: str) -> int:
    """Return how many frames of a timeline are asked for. 0: as many as the input covers.

    Raises:
        InvalidRequestError: the number is outside 0 to MAX_FRAMES, the timeline has fewer frames, or the last frame is shown too
            late.
    """
    if not 0 <= num_frames <= MAX_FRAMES:
        raise InvalidRequestError(f"{field}: {num_frames} is not between 0 and {MAX_FRAMES}", field=field)
    timeline_frames = timeline.num_frames
    if timeline_frames is not None and num_frames > timeline_frames:
        raise InvalidRequestError(f"{field}: {num_frames} is more than the timeline's {timeline_frames} frames", field=field)
    check_span(timeline, num_frames, field)
    return num_frames


def timeline_to_proto(timeline: Timeline) -> common_pb2.Timeline:
    """Return a timeline as a message."""
    if timeline.rate is not None:
        return common_pb2.Timeline(frame_rate=rational_to_proto(timeline.rate))
    assert timeline.pts is not None
    times = common_pb2.FrameTimes(time_base=rational_to_proto(timeline.time_base), pts=timeline.pts.tolist())
    return common_pb2.Timeline(explicit=times)


def rational_to_proto(value: Fraction) -> common_pb2.Rational:
    """Return an exact number as a message."""
    return common_pb2.Rational(num=value.numerator, den=value.denominator)


def _fraction(message: common_pb2.Rational, field: str) -> Fraction:
    if message.den <= 0 or message.num <= 0:
        raise InvalidRequestError(f"{field}: {message.num}/{message.den} is not a positive number", field=field)
    return Fraction(message.num, message.den)


def mouth_from_proto(message: Any, unset: M) -> M:
    """Return the options of mouths that a message has, of the fields of `unset`.

    Args:
        message: DubSpec, LineSpec, LiveConfig or PredictMotionConfig.
        unset: values of the fields that the message does not set.
    """
    return replace(unset, **{each.name: getattr(message, each.name) for each in fields(unset) if message.HasField(each.name)})


def predictor_to_proto(row: PredictorSpec, *, version: str = "") -> motion_pb2.Model:
    """Return the message of a predictor.

    Args:
        row: the predictor's row.
        version: digest of the predictor's networks.
    """
    return motion_pb2.Model(
        name=row.name,
        version=version,
        features=row.features,
        frames_ahead=row.frames_ahead,
        moves_head=row.moves_head,
        look_ahead_choices=row.look_ahead_choices,
    )


def renderer_to_proto(row: RendererSpec) -> render_pb2.Model:
    """Return the message of a renderer, without the fields that say which network computes it, and how."""
    return render_pb2.Model(
        name=row.name,
        frames_before=row.frames_before,
        frames_after=row.frames_after,
        inputs=row.inputs,
        texture=render_pb2.TextureInput.Value(f"TEXTURE_INPUT_{row.picture.name}"),
        needs_actor=row.needs_actor,
        needs_identity=row.needs_identity,
    )
