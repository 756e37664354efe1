"""The motion stage: mouth and head motion from speech, speaking styles, and the lag between sound and picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from dubstage.audio.v1 import audio_pb2
from dubstage.client import rpcs
from dubstage.client.arrays import Artefact, Float32, Tensor, Times, as_artefact, as_tensor, as_timeline, from_tensor, rational
from dubstage.client.audio import Features, as_block
from dubstage.client.calls import Requests, download_call, stream_call, unary_call
from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2 as pb

FEATURE_RATE = Fraction(25)
"""Features per second that the motion networks take."""


@dataclass(frozen=True, slots=True)
class Step:
    """Progress of a personalisation, which the motion and the render stage report alike.

    Attributes:
        step: optimisation steps that are done.
        loss: of the last step, unitless.
        artefact: the adapted state in the stages' artefact store; None in all steps but the last.
    """

    step: int
    num_steps: int
    loss: float
    artefact: common_pb2.ArtefactRef | None


@dataclass(frozen=True, slots=True)
class Motion:
    """The motion of one video frame.

    Attributes:
        frame_index: number of the frame on the output timeline.
        mouth_landmarks: float32 [59, 3], mouth area in head space.
        expression: coefficients of the default morphable model, float32 [E]; None if the method answers none.
        pose: of the head, in pixels of the footage that the style was made from; None if the method does not move the head.
        speech_probability: probability that somebody speaks, 0 to 1.
        blink: closure of the eyes, 0 open to 1 shut; 0 if the method makes none.
        message: the stage's whole answer, which `texture.retrieve_warp` takes.
    """

    frame_index: int
    mouth_landmarks: Float32
    expression: Float32 | None
    pose: common_pb2.HeadPose | None
    speech_probability: float
    blink: float
    message: pb.MotionFrame = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Lag:
    """By how much a clip's sound is late or early against its picture.

    Attributes:
        frames: of 40 ms; positive: the sound comes after the picture.
        confidence: height of the best score over the median score, at least 0.
        scores: weighted mean correlation of sound and picture at lags of -15 to 15 frames, float32 [31].
        distance: sync distance: mean distance of the sync network's embeddings of sound and mouth, where they are nearest.
        fraction: part of a frame to add to `frames`, a multiple of 1/4 from -1/2 to 1/2.
    """

    frames: int
    confidence: float
    scores: Float32
    distance: float
    fraction: float = 0.0


def _motions(reply: pb.PredictMotionResponse) -> Iterator[Motion]:
    for frame in reply.frames:
        yield Motion(
            frame_index=frame.frame_index,
            mouth_landmarks=from_tensor(frame.mouth_landmarks),
            expression=from_tensor(frame.expression) if frame.HasField("expression") else None,
            pose=frame.pose if frame.HasField("pose") else None,
            speech_probability=frame.speech_probability,
            blink=frame.blink,
            message=frame,
        )


def _lag(reply: pb.EstimateLagResponse) -> Lag:
    return Lag(reply.lag_frames, reply.confidence, from_tensor(reply.scores), reply.distance, reply.lag_fraction)


def _step(reply: pb.PersonalizeResponse) -> tuple[Step]:
    return (Step(reply.step, reply.num_steps, reply.loss, reply.style if reply.HasField("style") else None),)


def _models(reply: pb.ListModelsResponse) -> Sequence[pb.Model]:
    return reply.models


def motion_frame(frame_index: int, mouth_landmarks: Tensor) -> pb.MotionFrame:
    """Return the MotionFrame message of target mouth landmarks, float32 [59, 3] in head space."""
    return pb.MotionFrame(frame_index=frame_index, mouth_landmarks=as_tensor(mouth_landmarks, "<f4"))


@stream_call(rpcs.motion.PREDICT_MOTION, _motions)
def predict_motion(
    *,
    method: str,
    style: Artefact,
    timeline: Times = FEATURE_RATE,
    num_frames: int = 0,
    whole_speech: bool = False,
    expressiveness: float | None = None,
    look_ahead_frames: int | None = None,
) -> Requests[Features | audio_pb2.AudioFeatureBlock, pb.PredictMotionRequest]:
    """Yield the Motion of each frame of `timeline`, while features come.

    Items are the blocks of `audio.extract_features` at 25 frames per second, in order, with the features that the method takes.

    Args:
        method: name of the predictor.
        style: from `encode_style` or `personalize`.
        timeline: of the motion that is wanted.
        num_frames: frames to answer; 0: as many as the features cover.
        whole_speech: the speech is no live stream: answers may wait for 400 ms of features after a frame, and the mouth opens
            before speech that follows silence.
        expressiveness: factor of the mouth's movement about the person's shut mouth, 0.5 to 1.5; None: 1, as the person speaks.
        look_ahead_frames: frames of features after a frame that the frame waits for, one of the `look_ahead_choices` that
            `list_models` lists for the predictor; None: the predictor's `frames_ahead`.
    """
    config = pb.PredictMotionConfig(
        method=method,
        style=as_artefact(style),
        feature_rate=rational(FEATURE_RATE),
        output_timeline=as_timeline(timeline),
        num_frames=num_frames,
        whole_speech=whole_speech,
        expressiveness=expressiveness,
        look_ahead_frames=look_ahead_frames,
    )

    def item(features: Features | audio_pb2.AudioFeatureBlock) -> pb.PredictMotionRequest:
        return pb.PredictMotionRequest(features=as_block(features))

    return Requests(pb.PredictMotionRequest(config=config), item)


@unary_call(rpcs.motion.ENCODE_STYLE, lambda reply: reply.style)
def encode_style(
    *,
    method: str,
    mouth_landmarks: Tensor,
    usable: Tensor,
    frame_rate: Fraction | int = FEATURE_RATE,
    head_poses: Tensor | None = None,
    pose_landmarks: Tensor | None = None,
) -> pb.EncodeStyleRequest:
    """Return the speaking style of a person: a reference to an artefact.

    Args:
        method: name of the predictor.
        mouth_landmarks: of tracked footage, float32 [T, 59, 3] in head space.
        usable: bool [T], frames that may be used.
        frame_rate: frames per second.
        head_poses: head-pose vectors of the frames, float64 [T, 6] (docs/coordinates.md), for predictors that move the head.
        pose_landmarks: landmarks of the upper face of the frames, float32 [T, 99, 3] in head space; None: the mean face.
    """
    return pb.EncodeStyleRequest(
        method=method,
        mouth_landmarks=as_tensor(mouth_landmarks, "<f4"),
        usable=as_tensor(usable, "?"),
        frame_rate=rational(frame_rate),
        head_poses=None if head_poses is None else as_tensor(head_poses, "<f8"),
        pose_landmarks=None if pose_landmarks is None else as_tensor(pose_landmarks, "<f4"),
    )


@unary_call(rpcs.motion.ESTIMATE_LAG, _lag)
def estimate_lag(
    *, features: Features | audio_pb2.AudioFeatureBlock, mouth_landmarks: Tensor, usable: Tensor
) -> pb.EstimateLagRequest:
    """Return the Lag of a clip.

    Args:
        features: of the clip at 25 frames per second, with "mel", "posteriorgram" and "speech_states".
        mouth_landmarks: of the same frames, float32 [T, 59, 3] in head space.
        usable: bool [T], frames that may be used.
    """
    return pb.EstimateLagRequest(
        features=as_block(features), mouth_landmarks=as_tensor(mouth_landmarks, "<f4"), usable=as_tensor(usable, "?")
    )


@download_call(rpcs.motion.PERSONALIZE, _step)
def personalize(
    *,
    method: str,
    style: Artefact,
    features: Features | audio_pb2.AudioFeatureBlock,
    mouth_landmarks: Tensor,
    usable: Tensor,
    head_poses: Tensor | None = None,
) -> pb.PersonalizeRequest:
    """Yield the Steps of adapting the motion networks to one person; the last step has the new style.

    Args:
        method: name of the predictor.
        style: from `encode_style`.
        features: of the enrolment footage at 25 frames per second, its lag removed.
        mouth_landmarks: of the same frames, float32 [T, 59, 3] in head space.
        usable: bool [T], frames that may be used.
        head_poses: head-pose vectors of the frames, float64 [T, 6] (docs/coordinates.md), for predictors that move the head.
    """
    return pb.PersonalizeRequest(
        method=method,
        style=as_artefact(style),
        features=as_block(features),
        mouth_landmarks=as_tensor(mouth_landmarks, "<f4"),
        usable=as_tensor(usable, "?"),
        head_poses=None if head_poses is None else as_tensor(head_poses, "<f8"),
    )


@unary_call(rpcs.motion.LIST_MODELS, _models)
def list_models() -> pb.ListModelsRequest:
    """Return the predictors that are loaded, with the features that they take."""
    return pb.ListModelsRequest()
