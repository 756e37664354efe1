"""Requests to the motion stage, and calls of a running one."""

from collections.abc import AsyncIterable
from fractions import Fraction
from typing import Any

import numpy as np

from dubstage.audio.v1 import audio_pb2
from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2 as pb
from services.common.array_types import Float32
from services.common.store.artefacts import ArtefactRef
from services.common.wire.convert import ref_from_proto
from services.common.wire.timeline import Timeline
from services.motion.convert import FeatureBlock
from services.motion.models import MotionModels
from services.motion.predictor import encode_mouths
from services.motion.stream import MotionStream
from services.motion.types import Footage, Motion, SpeechFeatures
from tests.contract.motion.requests import block_to_proto, motion_from_proto
from tests.unit.motion.synthesised import head_poses, mouths

PAL = Timeline(rate=Fraction(25))


def talking(num_frames: int = 100) -> Float32:
    return mouths((5.0 + 4.0 * np.sin(np.arange(num_frames) * 0.7)).astype(np.float32))


def seen(mouths: Float32) -> dict[str, Any]:
    """Fields of a request that hold the mouths of footage without a lost face."""
    return {"mouth_landmarks": to_tensor(mouths), "usable": to_tensor(np.ones(len(mouths), np.bool_))}


def heard(features: SpeechFeatures) -> audio_pb2.AudioFeatureBlock:
    return block_to_proto(FeatureBlock(0, features))


def style_request(num_frames: int = 100, rate: int = 25, method: str = "ugc") -> pb.EncodeStyleRequest:
    pace = common_pb2.Rational(num=rate, den=1)
    return pb.EncodeStyleRequest(method=method, frame_rate=pace, **seen(talking(num_frames)))


def computed(predictor: type[Any], features: SpeechFeatures, *more: object) -> list[Motion]:
    """The motion of a person who talks, by a predictor in this process."""
    models = MotionModels()
    style = encode_mouths(Footage(talking(), np.ones(100, np.bool_)), models)
    return streamed(predictor(*more, models, style), features)


def streamed(predictor: Any, features: SpeechFeatures) -> list[Motion]:
    """All that a predictor in this process makes of speech."""
    local = MotionStream(predictor, PAL)
    parts = [local.push(0, features)]
    while (part := local.drain()) is not None:
        parts.append(part)
    return parts


async def encoded(stub) -> ArtefactRef:
    return ref_from_proto((await stub.EncodeStyle(style_request())).style, "style")


def stream(config: pb.PredictMotionRequest, features: SpeechFeatures, cut: int = 9, begin: int = 0) -> list[Any]:
    """The requests of PredictMotion, with the features in blocks of `cut` frames."""
    blocks = (FeatureBlock(first, features[first : first + cut]) for first in range(begin, len(features), cut))
    return [config, *(pb.PredictMotionRequest(features=block_to_proto(block)) for block in blocks)]


async def predicted(stub, config: pb.PredictMotionRequest, features: SpeechFeatures) -> Float32:
    parts = [motion_from_proto(reply) async for reply in stub.PredictMotion(stream(config, features))]
    return np.concatenate([part.mouth_landmarks for part in parts])


async def drained(replies: AsyncIterable[object]) -> None:
    async for _ in replies:
        pass


def head_request(num_frames: int = 100) -> pb.EncodeStyleRequest:
    request = style_request(num_frames, method="headpose")
    request.head_poses.CopyFrom(to_tensor(head_poses(num_frames)))
    return request


async def encoded_head(stub, num_frames: int = 100) -> ArtefactRef:
    return ref_from_proto((await stub.EncodeStyle(head_request(num_frames))).style, "style")
