"""Messages of the motion stage as a caller writes and reads them."""

from dataclasses import asdict

import numpy as np

from dubstage.audio.v1 import audio_pb2
from dubstage.client import to_tensor
from dubstage.motion.v1 import motion_pb2 as pb
from services.common.errors import InvalidRequestError
from services.common.face.crops import MAX_HEAD_PX, pose_vectors
from services.common.wire.convert import from_tensor, pose_from_proto, rational_to_proto, ref_to_proto, timeline_to_proto
from services.common.wire.timeline import MOTION_RATE
from services.motion.convert import FeatureBlock, PredictConfig
from services.motion.types import NUM_POINTS, LagEstimate, Motion


def config_to_proto(config: PredictConfig) -> pb.PredictMotionRequest:
    """The first message of a stream, for callers."""
    return pb.PredictMotionRequest(
        config=pb.PredictMotionConfig(
            method=config.method,
            style=ref_to_proto(config.style),
            feature_rate=rational_to_proto(MOTION_RATE),
            output_timeline=timeline_to_proto(config.timeline),
            num_frames=config.num_frames,
            whole_speech=config.whole_speech,
            **asdict(config.mouth),
            look_ahead_frames=config.look_ahead_frames,
        )
    )


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
    for name, values in features.extra.items():
        getattr(message, name).CopyFrom(to_tensor(values))
    return message


def motion_from_proto(response: pb.PredictMotionResponse) -> Motion:
    """The frames of one reply, which follow each other.

    Raises:
        InvalidRequestError: a frame without mouth landmarks of the right shape, with an expression of another size than the
            others', or with a pose that is none or that the others lack.
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
        raise InvalidRequestError("frames.expression: all frames have one of the same size, or none has", field="frames.expression")
    first = response.frames[0].frame_index if response.frames else 0
    stacked = np.array(mouths, np.float32).reshape(-1, NUM_POINTS, 3)
    poses = [pose_from_proto(frame.pose, "frames.pose") for frame in response.frames if frame.HasField("pose")]
    if poses and len(poses) < len(mouths):
        raise InvalidRequestError("frames.pose: all frames have one, or none has", field="frames.pose")
    blink = np.array([frame.blink for frame in response.frames], np.float32) if poses else None
    expression = np.array(expressions, np.float32) if expressions else None
    return Motion(first, stacked, speaking, expression, pose_vectors(poses) if poses else None, blink)


def lag_from_proto(response: pb.EstimateLagResponse) -> LagEstimate:
    """The lag in a reply, for callers.

    Raises:
        InvalidRequestError: scores of a wrong shape or type.
    """
    scores = from_tensor(response.scores, "scores", dtype=np.float32, shape=(None,))
    return LagEstimate(response.lag_frames, response.confidence, scores, response.lag_fraction)
