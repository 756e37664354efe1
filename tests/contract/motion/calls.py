"""Requests to the motion stage, and calls of a running one."""

from collections.abc import AsyncIterable, AsyncIterator
from fractions import Fraction

import numpy as np

from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2 as pb
from services.common.array_types import Float32
from services.common.store.artefacts import ArtefactRef
from services.common.wire.convert import ref_from_proto
from services.common.wire.timeline import Timeline
from services.motion.convert import FeatureBlock
from services.motion.types import SpeechFeatures
from tests.contract.motion.requests import block_to_proto, motion_from_proto
from tests.unit.motion.synthesised import head_poses, mouths

PAL = Timeline(rate=Fraction(25))
Requests = AsyncIterator[pb.PredictMotionRequest]


def talking(num_frames: int = 100) -> Float32:
    return mouths((5.0 + 4.0 * np.sin(np.arange(num_frames) * 0.7)).astype(np.float32))


def style_request(num_frames: int = 100, rate: int = 25) -> pb.EncodeStyleRequest:
    return pb.EncodeStyleRequest(
        method="ugc",
        mouth_landmarks=to_tensor(talking(num_frames)),
        usable=to_tensor(np.ones(num_frames, np.bool_)),
        frame_rate=common_pb2.Rational(num=rate, den=1),
    )


async def encoded(stub) -> ArtefactRef:
    return ref_from_proto((await stub.EncodeStyle(style_request())).style, "style")


async def stream(config: pb.PredictMotionRequest, features: SpeechFeatures, cut: int = 9) -> Requests:
    yield config
    for first in range(0, len(features), cut):
        yield pb.PredictMotionRequest(features=block_to_proto(FeatureBlock(first, features[first : first + cut])))


async def predicted(stub, config: pb.PredictMotionRequest, features: SpeechFeatures) -> Float32:
    parts = [motion_from_proto(reply) async for reply in stub.PredictMotion(stream(config, features))]
    return np.concatenate([part.mouth_landmarks for part in parts])


async def drained(replies: AsyncIterable[object]) -> None:
    async for _ in replies:
        pass


def head_request(num_frames: int = 100) -> pb.EncodeStyleRequest:
    request = style_request(num_frames)
    request.method = "headpose"
    request.head_poses.CopyFrom(to_tensor(head_poses(num_frames)))
    return request


async def encoded_head(stub, num_frames: int = 100) -> ArtefactRef:
    return ref_from_proto((await stub.EncodeStyle(head_request(num_frames))).style, "style")
