"""Messages of dubstage.motion.v1alpha1 to and from the stage's own types, with validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.common.v1alpha1 import common_pb2
from dubstage.motion.v1alpha1 import motion_pb2 as pb
from services.common.arrays import from_tensor, to_tensor
from services.common.artefact_messages import ref_from_proto, ref_to_proto
from services.common.artefacts import ArtefactRef
from services.common.calls import charge
from services.common.crops import MAX_HEAD_PX
from services.common.errors import InvalidRequest
from services.common.head_pose_vectors import POSE_SIZE, check_pose_vectors, pose_of_vector, pose_vectors
from services.common.pose_messages import pose_from_proto, pose_to_proto
from services.common.timeline import MOTION_RATE, Timeline
from services.common.timeline_messages import (
    num_frames_from_proto,
    rate_from_proto,
    rational_to_proto,
    timeline_from_proto,
    timeline_to_proto,
)
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
MAX_FOOTAGE_FRAMES: Final = 90_000
"""Frames of footage at 25 frames/s, an hour: footage at a lower rate is filled up to them."""
MAX_FEATURE: Final = 1e3
"""Largest magnitude of a log-mel power or of a cepstrum; sound of any loudness stays within 100."""


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
    rate = rate_from_proto(config.feature_rate, "config.feature_rate")
    if rate != MOTION_RATE:
        raise InvalidRequest(
            f"config.feature_rate: {config.method} takes features at {MOTION_RATE} frames/s, not {rate}",
            field="config.feature_rate",
        )
    timeline = timeline_from_proto(config.output_timeline, "config.output_timeline")
    num_frames = num_frames_from_proto(config.num_frames, timeline, "config.num_frames")
    return PredictConfig(ref_from_proto(config.style, "config.style"), timeline, num_frames, config.without_style, config.method)


def config_to_proto(method: str, config: PredictConfig) -> pb.PredictMotionRequest:
    """The first message of a stream, for callers."""
    return pb.PredictMotionRequest(
        config=pb.PredictMotionConfig(
            method=method,
            style=ref_to_proto(config.style),
            feature_rate=rational_to_proto(MOTION_RATE),
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

    if frames < 0:
        raise InvalidRequest(f"features.num_frames: must not be negative, got {frames}", field="features.num_frames")

    def tensor(name: str, message: common_pb2.Tensor, *shape: int) -> Float32:
        field = f"features.{name}"
        array: Float32 = from_tensor(message, field, dtype=np.float32, shape=(frames, *shape), limit=MAX_FEATURE)
        return array

    posteriorgram = tensor("posteriorgram", block.posteriorgram, ROWS_PER_FRAME, NUM_PHONES)
    speaking = tensor("speech_probability", block.speech_probability)
    for name, values in (("posteriorgram", posteriorgram), ("speech_probability", speaking)):
        if values.size and (values.min() < 0.0 or values.max() > 1.001):
            raise InvalidRequest(
                f"features.{name}: probabilities lie in [0, 1], got {values.min():g} to {values.max():g}", field=f"features.{name}"
            )
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
        frame.pose.CopyFrom(pose_to_proto(pose_of_vector(motion.poses[index])))
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
        from_tensor(frame.mouth_landmarks, "frames.mouth_landmarks", dtype=np.float32, shape=(NUM_POINTS, 3), limit=MAX_HEAD_PX)
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
    poses = [pose_from_proto(frame.pose, "frames.pose") for frame in response.frames if frame.HasField("pose")]
    if poses and len(poses) < len(mouths):
        raise InvalidRequest("frames.pose: all frames have one, or none has", field="frames.pose")
    blink = np.array([frame.blink for frame in response.frames], np.float32) if poses else None
    expression = np.array(expressions, np.float32) if expressions else None
    return Motion(first, stacked, speaking, expression, pose_vectors(poses) if poses else None, blink)


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
        InvalidRequest: tensors of a wrong shape or type, not finite or out of range; a rate out of range; footage of more than
            MAX_FOOTAGE_FRAMES frames at 25 frames/s; head poses that are needed and missing.
        CallTooLarge: the call would hold more than it may.
    """
    mouths = from_tensor(mouth_landmarks, "mouth_landmarks", dtype=np.float32, shape=(None, NUM_POINTS, 3), limit=MAX_HEAD_PX)
    flags = from_tensor(usable, "usable", dtype=np.bool_, shape=(len(mouths),))
    poses = None if head_poses is None else _head_poses(head_poses, flags)
    rate = MOTION_RATE if frame_rate is None else rate_from_proto(frame_rate, "frame_rate")
    count = int(len(mouths) / rate * MOTION_RATE)
    if count > MAX_FOOTAGE_FRAMES:
        raise InvalidRequest(
            f"mouth_landmarks: {len(mouths)} frames at {rate} frames/s last {float(len(mouths) / rate):.0f} s; at most "
            f"{MAX_FOOTAGE_FRAMES // MOTION_RATE} s of footage are taken: send a part",
            field="mouth_landmarks",
        )
    charge(count * NUM_POINTS * 3 * mouths.itemsize)
    if rate != MOTION_RATE and len(mouths):
        nearest = np.minimum(np.round(np.arange(count) * float(rate / MOTION_RATE)).astype(np.intp), len(mouths) - 1)
        return Footage(mouths[nearest], flags[nearest], None if poses is None else poses[nearest])
    return Footage(mouths, flags, poses)


def _head_poses(message: common_pb2.Tensor, usable: Bool) -> Float64:
    """Return head-pose vectors, float64 [T, 6]. Frames that are not usable may have any numbers; they get the unit pose."""
    if not message.shape:
        raise InvalidRequest(
            "head_poses: `headpose` needs the head-pose vectors of the same frames as mouth_landmarks", field="head_poses"
        )
    found: Float64 = from_tensor(message, "head_poses", dtype=np.float64, shape=(len(usable), POSE_SIZE))
    poses = np.where(usable[:, None], found, np.eye(POSE_SIZE)[-1])
    check_pose_vectors(poses, "head_poses")
    return poses


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
