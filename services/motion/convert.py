"""Messages of dubstage.motion.v1 to and from the stage's own types, with validation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from dubstage.audio.v1 import audio_pb2
from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2 as pb
from services.common.array_types import Array, Bool, Float32, Float64
from services.common.errors import InvalidRequestError
from services.common.face.crops import MAX_HEAD_PX, POSE_SIZE, check_pose_vectors, pose_of_vector
from services.common.methods import MouthOptions
from services.common.server.call_context import charge
from services.common.store.artefacts import ArtefactRef
from services.common.wire.convert import (
    from_tensor,
    mouth_from_proto,
    num_frames_from_proto,
    pose_to_proto,
    rate_from_proto,
    ref_from_proto,
    timeline_from_proto,
)
from services.common.wire.stream_state import StateColumn
from services.common.wire.stream_state import state_from_proto as state_arrays
from services.common.wire.stream_state import state_to_proto as wire_state_to_proto
from services.common.wire.timeline import MOTION_RATE, Timeline
from services.motion.stream import StreamPoint
from services.motion.types import (
    EXTRA_FEATURES,
    NUM_MELS,
    NUM_PHONES,
    NUM_POINTS,
    NUM_POSE_POINTS,
    ROWS_PER_FRAME,
    Footage,
    LagEstimate,
    Motion,
    SpeechFeatures,
)

MAX_FRAMES_PER_REPLY: Final = 256
"""Most frames of one reply: about 200 kB."""
MAX_FOOTAGE_FRAMES: Final = 90_000
"""Most frames of footage at 25 frames per second: an hour. Footage at a lower rate is filled up to 25 frames per second."""
MAX_FEATURE: Final = 1e3
"""Largest magnitude of a log-mel power or of a cepstrum. Sound of any loudness stays within 100."""
_LAYOUT: Final = 1
_MOST_KEPT: Final = 16
_KEPT: Final = {
    "stream": StateColumn(np.int64, (2,), 0, 1 << 40),
    "kept.mouth": StateColumn(np.float32, ("kept", NUM_POINTS, 3), -MAX_HEAD_PX, MAX_HEAD_PX, most=_MOST_KEPT),
    "kept.numbers": StateColumn(np.float64, ("kept", 2), 0.0, 1.001, most=_MOST_KEPT),
}
_LARGEST: Final = 1e9
"""Largest magnitude of a number of a recurrent state."""


@dataclass(frozen=True, slots=True)
class PredictConfig:
    """Config of a stream of motion.

    Attributes:
        method: name of the predictor.
        timeline: times of the target motion frames.
        num_frames: number of motion frames to answer. 0: as many as the features cover.
        whole_speech: the speech is there as a whole, so answers may wait for later features.
        states: answer states.
        resume: state to go on from; None: a new stream.
        look_ahead_frames: frames of features after a frame that the frame waits for. None: the predictor's own number.
    """

    method: str
    style: ArtefactRef
    timeline: Timeline
    num_frames: int
    whole_speech: bool = False
    mouth: MouthOptions = MouthOptions()
    states: bool = False
    resume: common_pb2.StreamState | None = None
    look_ahead_frames: int | None = None


@dataclass(frozen=True, slots=True)
class FeatureBlock:
    """Features of consecutive motion frames, the first of which is `first_frame`."""

    first_frame: int
    features: SpeechFeatures


def config_from_proto(request: pb.PredictMotionRequest) -> PredictConfig:
    """Return the config in the first message of a stream.

    Raises:
        InvalidRequestError: no config, or an invalid config. The caller checks the method, and the look-ahead against the method.
    """
    if not request.HasField("config"):
        raise InvalidRequestError("the first message of the stream must be the config", field="config")
    config = request.config
    rate = rate_from_proto(config.feature_rate, "config.feature_rate")
    if rate != MOTION_RATE:
        raise InvalidRequestError(
            f"config.feature_rate: predictors take features at {MOTION_RATE} frames per second, not {rate}",
            field="config.feature_rate",
        )
    timeline = timeline_from_proto(config.output_timeline, "config.output_timeline")
    num_frames = num_frames_from_proto(config.num_frames, timeline, "config.num_frames")
    style = ref_from_proto(config.style, "config.style")
    return PredictConfig(
        config.method,
        style,
        timeline,
        num_frames,
        config.whole_speech,
        mouth_from_proto(config, MouthOptions()),
        config.states,
        config.resume if config.HasField("resume") else None,
        config.look_ahead_frames if config.HasField("look_ahead_frames") else None,
    )


def state_from_proto(message: common_pb2.StreamState, new: Mapping[str, Array], *, moves_head: bool) -> dict[str, Array]:
    """Return the arrays of a state.

    Args:
        new: arrays of a stream with this config that has just begun.
        moves_head: whether the predictor answers head poses.

    Raises:
        InvalidRequestError: the arrays are not those of such a stream.
    """
    poses = StateColumn(np.float64, ("kept" if moves_head else 0, POSE_SIZE), -_LARGEST, _LARGEST)
    columns = _KEPT | {"kept.pose": poses}
    for name, array in new.items():
        columns.setdefault(name, StateColumn(array.dtype, array.shape, -_LARGEST, _LARGEST))
    return state_arrays(message, _LAYOUT, columns, "config.resume")


def state_to_proto(state: StreamPoint) -> pb.PredictMotionResponse:
    """Return the reply with a state."""
    return pb.PredictMotionResponse(state=wire_state_to_proto(state.arrays, _LAYOUT), resume_from=state.resume_from)


def features_from_proto(request: pb.PredictMotionRequest, features: Collection[str]) -> FeatureBlock:
    """Return the features in a later message of a stream.

    Args:
        features: tensors that the predictor takes (PredictorSpec.tensors).

    Raises:
        InvalidRequestError: a second config, an empty message, or see block_from_proto.
    """
    if not request.HasField("features"):
        raise InvalidRequestError("features: after the config every message must hold features", field="features")
    return block_from_proto(request.features, features)


def block_from_proto(block: audio_pb2.AudioFeatureBlock, features: Collection[str]) -> FeatureBlock:
    """Return a block of features from the audio stage.

    Args:
        features: tensors that the predictor takes (PredictorSpec.tensors). Other tensors are ignored.

    Raises:
        InvalidRequestError: a tensor is missing, has a wrong shape or type, is not finite, or holds no probabilities.
    """
    frames = block.num_frames

    if frames < 0:
        raise InvalidRequestError(f"features.num_frames: must not be negative, got {frames}", field="features.num_frames")

    def tensor(name: str, *shape: int) -> Float32:
        message: common_pb2.Tensor = getattr(block, name)
        array: Float32 = from_tensor(message, f"features.{name}", dtype=np.float32, shape=(frames, *shape), limit=MAX_FEATURE)
        return array

    posteriorgram = tensor("posteriorgram", ROWS_PER_FRAME, NUM_PHONES)
    speaking = tensor("speech_probability")
    for name, values in (("posteriorgram", posteriorgram), ("speech_probability", speaking)):
        if values.size and (values.min() < 0.0 or values.max() > 1.001):
            raise InvalidRequestError(
                f"features.{name}: probabilities lie in [0, 1], got {values.min():g} to {values.max():g}", field=f"features.{name}"
            )
    mel = tensor("mel", ROWS_PER_FRAME, NUM_MELS)
    extra = {name: tensor(name, *shape) for name, shape in EXTRA_FEATURES.items() if name in features}
    return FeatureBlock(block.first_frame, SpeechFeatures(posteriorgram, mel, speaking, extra))


def motion_to_proto(motion: Motion) -> Iterator[pb.PredictMotionResponse]:
    """Return replies of at most 256 frames each; no reply for a motion without frames."""
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


def footage_from_proto(
    mouth_landmarks: common_pb2.Tensor,
    usable: common_pb2.Tensor,
    frame_rate: common_pb2.Rational | None = None,
    *,
    head_poses: common_pb2.Tensor | None = None,
    pose_landmarks: common_pb2.Tensor | None = None,
) -> Footage:
    """Return tracked faces at 25 frames per second. At another rate, the nearest frame is taken, so that no mouth is made up.

    A single frame is a picture, which has no rate, and stays one frame.

    Args:
        mouth_landmarks: of the request.
        usable: of the request.
        frame_rate: of the request. None: 25/1.
        head_poses: of the request, if the predictor moves the head. None: the predictor does not.
        pose_landmarks: of the request. None, or a tensor without a shape: the request has none.

    Raises:
        InvalidRequestError: tensors of a wrong shape or type, not finite or out of range; a rate out of range; footage of more than
            MAX_FOOTAGE_FRAMES frames at 25 frames per second; head poses that are needed and missing.
        CallTooLargeError: the call would hold more memory than allowed.
    """
    mouths = from_tensor(mouth_landmarks, "mouth_landmarks", dtype=np.float32, shape=(None, NUM_POINTS, 3), limit=MAX_HEAD_PX)
    flags = from_tensor(usable, "usable", dtype=np.bool_, shape=(len(mouths),))
    poses = None if head_poses is None else _head_poses(head_poses, flags)
    upper = None if pose_landmarks is None or not pose_landmarks.shape else _pose_landmarks(pose_landmarks, len(mouths))
    rate = MOTION_RATE if frame_rate is None else rate_from_proto(frame_rate, "frame_rate")
    if len(mouths) == 1:
        rate = MOTION_RATE
    count = int(len(mouths) / rate * MOTION_RATE)
    if count > MAX_FOOTAGE_FRAMES:
        raise InvalidRequestError(
            f"mouth_landmarks: {len(mouths)} frames at {rate} frames/s last {float(len(mouths) / rate):.0f} s; at most "
            f"{MAX_FOOTAGE_FRAMES // MOTION_RATE} s of footage are taken: send a part",
            field="mouth_landmarks",
        )
    charge(count * (NUM_POINTS + (0 if upper is None else NUM_POSE_POINTS)) * 3 * mouths.itemsize)
    if rate != MOTION_RATE and len(mouths):
        nearest = np.minimum(np.floor(np.arange(count) * float(rate / MOTION_RATE) + 0.5).astype(np.intp), len(mouths) - 1)
        poses, upper = None if poses is None else poses[nearest], None if upper is None else upper[nearest]
        return Footage(mouths[nearest], flags[nearest], poses, upper)
    return Footage(mouths, flags, poses, upper)


def _pose_landmarks(message: common_pb2.Tensor, frames: int) -> Float32:
    """Return landmarks of the upper face, float32 [T, 99, 3]."""
    landmarks: Float32 = from_tensor(
        message, "pose_landmarks", dtype=np.float32, shape=(frames, NUM_POSE_POINTS, 3), limit=MAX_HEAD_PX
    )
    return landmarks


def _head_poses(message: common_pb2.Tensor, usable: Bool) -> Float64:
    """Return head-pose vectors, float64 [T, 6]. Frames that are not usable may hold any numbers and get the unit pose."""
    if not message.shape:
        raise InvalidRequestError(
            "head_poses: missing; a predictor that moves the head needs the head-pose vectors of the frames of mouth_landmarks",
            field="head_poses",
        )
    vectors: Float64 = from_tensor(message, "head_poses", dtype=np.float64, shape=(len(usable), POSE_SIZE))
    poses = np.where(usable[:, None], vectors, np.eye(POSE_SIZE)[-1])
    check_pose_vectors(poses, "head_poses")
    return poses


def lag_to_proto(estimate: LagEstimate, distance: float) -> pb.EstimateLagResponse:
    """Return the reply with a lag and the sync distance."""
    return pb.EstimateLagResponse(
        lag_frames=estimate.lag_frames,
        confidence=estimate.confidence,
        scores=to_tensor(estimate.scores),
        distance=distance,
        lag_fraction=estimate.lag_fraction,
    )


def same_length(block: FeatureBlock, footage: Footage) -> None:
    """Raise InvalidRequestError if sound and picture have different numbers of frames."""
    if len(block.features) != len(footage.usable):
        raise InvalidRequestError(
            f"features of {len(block.features)} frames, mouths of {len(footage.usable)}: both must be of the same frames",
            field="features",
        )
