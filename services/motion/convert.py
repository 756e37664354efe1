"""Messages of dubstage.motion.v1alpha1 to and from the stage's own types, with validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.common.v1alpha1 import common_pb2
from dubstage.motion.v1alpha1 import motion_pb2 as pb
from services.common.arrays import from_tensor, to_tensor
from services.common.artefacts import ArtefactRef
from services.common.crops import HeadPose
from services.common.errors import InvalidRequest
from services.common.head_pose_vectors import POSE_SIZE, pose_of_vector, pose_vectors
from services.common.timeline import MOTION_RATE, Timeline
from services.motion.types import (
    METHODS,
    NUM_CEPSTRA,
    NUM_MELS,
    NUM_PHONES,
    NUM_POINTS,
    ROWS_PER_FRAME,
    Bool,
    Float32,
    LagEstimate,
    Motion,
    SpeechFeatures,
)

Float64 = npt.NDArray[np.float64]

MAX_FRAMES_PER_REPLY: Final = 256
"""Bounds a reply to about 200 kB."""
MAX_FRAMES: Final = 10_000_000
"""Frames that one stream may ask for: 100 h at 25 frames/s."""


@dataclass(frozen=True, slots=True)
class PredictConfig:
    """What a stream of motion is to be like."""

    style: ArtefactRef
    timeline: Timeline
    num_frames: int
    without_style: bool
    method: str = "ugc"


@dataclass(frozen=True, slots=True)
class FeatureBlock:
    """Features of the motion frames from `first_frame` on."""

    first_frame: int
    features: SpeechFeatures


@dataclass(frozen=True, slots=True)
class Footage:
    """Tracked faces at 25 frames/s.

    Attributes:
        mouth_landmarks: float32 [T, 59, 3].
        usable: bool [T].
        head_poses: float64 [T, 6], head-pose vectors; None where the method does not need them.
    """

    mouth_landmarks: Float32
    usable: Bool
    head_poses: Float64 | None = None


def check_method(method: str) -> None:
    """Raises InvalidRequest where the stage has no such motion predictor."""
    if method not in METHODS:
        raise InvalidRequest(f"method: this stage has no predictor {method[:80]!r}, only {', '.join(METHODS)}", field="method")


def config_from_proto(request: pb.PredictMotionRequest) -> PredictConfig:
    """The first message of a stream.

    Raises:
        InvalidRequest: it is not a config, or the config cannot be used.
    """
    if not request.HasField("config"):
        raise InvalidRequest("the first message of the stream must be the config", field="config")
    config = request.config
    check_method(config.method)
    rate = _fraction(config.feature_rate, "config.feature_rate")
    if rate != MOTION_RATE:
        raise InvalidRequest(
            f"config.feature_rate: {config.method} takes features at {MOTION_RATE} frames/s, not {rate}",
            field="config.feature_rate",
        )
    if not 0 <= config.num_frames <= MAX_FRAMES:
        raise InvalidRequest(f"config.num_frames: {config.num_frames} is not between 0 and {MAX_FRAMES}", field="config.num_frames")
    timeline = timeline_from_proto(config.output_timeline, "config.output_timeline")
    return PredictConfig(
        ref_from_proto(config.style, "config.style"), timeline, config.num_frames, config.without_style, config.method
    )


def config_to_proto(method: str, config: PredictConfig) -> pb.PredictMotionRequest:
    """The first message of a stream, for callers."""
    return pb.PredictMotionRequest(
        config=pb.PredictMotionConfig(
            method=method,
            style=ref_to_proto(config.style),
            feature_rate=_rational(MOTION_RATE),
            output_timeline=timeline_to_proto(config.timeline),
            num_frames=config.num_frames,
            without_style=config.without_style,
        )
    )


def features_from_proto(request: pb.PredictMotionRequest, method: str = "ugc") -> FeatureBlock:
    """A later message of a stream of `method`.

    Raises:
        InvalidRequest: a second config, an empty message, or tensors of a wrong shape or type.
    """
    if not request.HasField("features"):
        raise InvalidRequest("features: after the config every message must hold features", field="features")
    return block_from_proto(request.features, method)


def block_from_proto(block: audio_pb2.AudioFeatureBlock, method: str = "ugc") -> FeatureBlock:
    """Features as the audio stage answers them.

    Posteriorgram, mel and speech probability are needed, by `everybody` the ID-removed cepstra too.

    Raises:
        InvalidRequest: a tensor is missing, or of a wrong shape or type, or not finite, or not probabilities.
    """
    frames = block.num_frames

    def tensor(name: str, message: common_pb2.Tensor, *shape: int) -> Float32:
        field = f"features.{name}"
        array: Float32 = from_tensor(message, field, dtype=np.float32, shape=(frames, *shape))
        return array

    posteriorgram = tensor("posteriorgram", block.posteriorgram, ROWS_PER_FRAME, NUM_PHONES)
    speaking = tensor("speech_probability", block.speech_probability)
    for name, values in (("posteriorgram", posteriorgram), ("speech_probability", speaking)):
        if values.size and (values.min() < 0.0 or values.max() > 1.001):
            raise InvalidRequest(f"features.{name}: probabilities lie in [0, 1]", field=f"features.{name}")
    mel = tensor("mel", block.mel, ROWS_PER_FRAME, NUM_MELS)
    removed = None
    if method == "everybody":
        removed = tensor("identity_removed", block.identity_removed, ROWS_PER_FRAME, NUM_CEPSTRA)
    return FeatureBlock(block.first_frame, SpeechFeatures(posteriorgram, mel, speaking, removed))


def block_to_proto(block: FeatureBlock) -> audio_pb2.AudioFeatureBlock:
    """The message of a block of features."""
    features = block.features
    message = audio_pb2.AudioFeatureBlock(
        first_frame=block.first_frame,
        num_frames=len(features),
        posteriorgram=to_tensor(features.posteriorgram),
        mel=to_tensor(features.mel),
        speech_probability=to_tensor(features.speech_probability),
    )
    if features.identity_removed is not None:
        message.identity_removed.CopyFrom(to_tensor(features.identity_removed))
    return message


def motion_to_proto(motion: Motion) -> Iterator[pb.PredictMotionResponse]:
    """Replies of at most 256 frames; none for a motion without frames."""
    for begin in range(0, len(motion.mouth_landmarks), MAX_FRAMES_PER_REPLY):
        end = min(begin + MAX_FRAMES_PER_REPLY, len(motion.mouth_landmarks))
        yield pb.PredictMotionResponse(frames=[_frame_to_proto(motion, index) for index in range(begin, end)])


def _frame_to_proto(motion: Motion, index: int) -> pb.MotionFrame:
    frame = pb.MotionFrame(
        frame_index=motion.first_frame + index,
        mouth_landmarks=to_tensor(motion.mouth_landmarks[index]),
        speech_probability=float(motion.speech_probability[index]),
    )
    if motion.expression is not None:
        frame.expression.CopyFrom(to_tensor(motion.expression[index]))
    if motion.poses is not None:
        pose = pose_of_vector(motion.poses[index])
        frame.pose.scale = pose.scale
        frame.pose.rotation.extend(pose.rotation.ravel().tolist())
        frame.pose.translation.extend(pose.translation.tolist())
    if motion.blink is not None:
        frame.blink = float(motion.blink[index])
    return frame


def motion_from_proto(response: pb.PredictMotionResponse) -> Motion:
    """The frames of one reply, which follow each other.

    Raises:
        InvalidRequest: a frame without mouth landmarks of the right shape, with an expression of another size than the others', or
            with a pose that is none or that the others lack.
    """
    mouths = [
        from_tensor(frame.mouth_landmarks, "frames.mouth_landmarks", dtype=np.float32, shape=(NUM_POINTS, 3))
        for frame in response.frames
    ]
    speaking = np.array([frame.speech_probability for frame in response.frames], np.float32)
    expressions = [
        from_tensor(frame.expression, "frames.expression", dtype=np.float32, shape=(None,))
        for frame in response.frames
        if frame.HasField("expression")
    ]
    if expressions and (len(expressions) < len(mouths) or len({len(expression) for expression in expressions}) > 1):
        raise InvalidRequest("frames.expression: all frames have one of the same size, or none has", field="frames.expression")
    first = response.frames[0].frame_index if response.frames else 0
    stacked = np.array(mouths, np.float32).reshape(-1, NUM_POINTS, 3)
    poses = [_pose_from_proto(frame.pose) for frame in response.frames if frame.HasField("pose")]
    if poses and len(poses) < len(mouths):
        raise InvalidRequest("frames.pose: all frames have one, or none has", field="frames.pose")
    blink = np.array([frame.blink for frame in response.frames], np.float32) if poses else None
    expression = np.array(expressions, np.float32) if expressions else None
    return Motion(first, stacked, speaking, expression, pose_vectors(poses) if poses else None, blink)


def _pose_from_proto(message: common_pb2.HeadPose) -> HeadPose:
    if len(message.rotation) != 9 or len(message.translation) != 3 or not message.scale > 0:
        raise InvalidRequest("frames.pose: a scale, 9 numbers of rotation and 3 of translation are needed", field="frames.pose")
    return HeadPose(message.scale, np.array(message.rotation).reshape(3, 3), np.array(message.translation))


def footage_from_proto(
    mouth_landmarks: common_pb2.Tensor,
    usable: common_pb2.Tensor,
    frame_rate: common_pb2.Rational | None = None,
    *,
    head_poses: common_pb2.Tensor | None = None,
) -> Footage:
    """Tracked faces, brought to 25 frames/s where they come at another rate (nearest frame: no mouth is made up).

    Args:
        mouth_landmarks: of the request.
        usable: of the request.
        frame_rate: of the request; None: 25/1.
        head_poses: of the request where the method needs them, else None.

    Raises:
        InvalidRequest: tensors of a wrong shape or type, or not finite; a rate or a scale of a pose that is not positive; head
            poses that are needed and missing.
    """
    mouths = from_tensor(mouth_landmarks, "mouth_landmarks", dtype=np.float32, shape=(None, NUM_POINTS, 3))
    flags = from_tensor(usable, "usable", dtype=np.bool_, shape=(len(mouths),))
    poses = None if head_poses is None else _head_poses(head_poses, flags)
    rate = MOTION_RATE if frame_rate is None else _fraction(frame_rate, "frame_rate")
    if rate != MOTION_RATE and len(mouths):
        count = int(len(mouths) / rate * MOTION_RATE)
        nearest = np.minimum(np.round(np.arange(count) * float(rate / MOTION_RATE)).astype(np.intp), len(mouths) - 1)
        return Footage(mouths[nearest], flags[nearest], None if poses is None else poses[nearest])
    return Footage(mouths, flags, poses)


def _head_poses(message: common_pb2.Tensor, usable: Bool) -> Float64:
    """Head-pose vectors, float64 [T, 6]; those of frames that are not usable may be anything finite, and become the unit pose."""
    if not message.shape:
        raise InvalidRequest(
            "head_poses: `headpose` needs the head-pose vectors of the same frames as mouth_landmarks", field="head_poses"
        )
    poses: Float64 = from_tensor(message, "head_poses", dtype=np.float64, shape=(len(usable), POSE_SIZE))
    if (poses[usable, 5] <= 0.0).any():
        raise InvalidRequest("head_poses: the scale of a pose is positive", field="head_poses")
    return np.where(usable[:, None], poses, np.eye(POSE_SIZE)[-1])


def lag_to_proto(estimate: LagEstimate) -> pb.EstimateLagResponse:
    """The reply with a lag."""
    return pb.EstimateLagResponse(
        lag_frames=estimate.lag_frames,
        confidence=estimate.confidence,
        scores=to_tensor(estimate.scores),
        distance=estimate.distance,
    )


def lag_from_proto(response: pb.EstimateLagResponse) -> LagEstimate:
    """The lag in a reply, for callers.

    Raises:
        InvalidRequest: scores of a wrong shape or type.
    """
    scores = from_tensor(response.scores, "scores", dtype=np.float32, shape=(None,))
    return LagEstimate(response.lag_frames, response.confidence, scores, response.distance)


def same_length(block: FeatureBlock, footage: Footage) -> None:
    """Raises InvalidRequest where sound and picture are not of the same frames."""
    if len(block.features) != len(footage.usable):
        raise InvalidRequest(
            f"features of {len(block.features)} frames, mouths of {len(footage.usable)}: both must be of the same frames",
            field="features",
        )


def ref_from_proto(message: common_pb2.ArtefactRef, field: str) -> ArtefactRef:
    """A reference to an artefact.

    Raises:
        InvalidRequest: it is empty.
    """
    if not message.uri:
        raise InvalidRequest(f"{field}: an artefact's uri and sha256 are needed", field=field)
    return ArtefactRef(message.uri, message.sha256, message.size_bytes)


def ref_to_proto(ref: ArtefactRef) -> common_pb2.ArtefactRef:
    """The message of a reference."""
    return common_pb2.ArtefactRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes)


def timeline_from_proto(message: common_pb2.Timeline, field: str) -> Timeline:
    """A timeline.

    Raises:
        InvalidRequest: no rate and no times, a rate that is not positive, or times that do not increase.
    """
    if message.HasField("frame_rate"):
        return Timeline(rate=_fraction(message.frame_rate, f"{field}.frame_rate"))
    if message.HasField("explicit"):
        pts: npt.NDArray[Any] = np.array(message.explicit.pts, np.int64)
        return Timeline(pts=pts, time_base=_fraction(message.explicit.time_base, f"{field}.explicit.time_base"))
    raise InvalidRequest(f"{field}: give frame_rate or explicit times", field=field)


def timeline_to_proto(timeline: Timeline) -> common_pb2.Timeline:
    """The message of a timeline."""
    if timeline.rate is not None:
        return common_pb2.Timeline(frame_rate=_rational(timeline.rate))
    assert timeline.pts is not None
    times = common_pb2.FrameTimes(time_base=_rational(timeline.time_base), pts=timeline.pts.tolist())
    return common_pb2.Timeline(explicit=times)


def _fraction(message: common_pb2.Rational, field: str) -> Fraction:
    if message.den <= 0 or message.num <= 0:
        raise InvalidRequest(f"{field}: {message.num}/{message.den} is not a positive number", field=field)
    return Fraction(message.num, message.den)


def _rational(value: Fraction) -> common_pb2.Rational:
    return common_pb2.Rational(num=value.numerator, den=value.denominator)
