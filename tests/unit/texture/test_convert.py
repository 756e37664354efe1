"""Which messages of SampleNeuralTexture are taken."""

from __future__ import annotations

import numpy as np
import pytest

from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2
from dubstage.texture.v1 import texture_pb2 as pb
from services.common.errors import InvalidRequestError
from services.common.wire.convert import pose_to_proto
from services.texture.convert import MAX_UV_SIDE, texture_config_from_proto, texture_frame_from_proto
from services.texture.types import TargetFrame, UvFrame
from tests.refusals import raised
from tests.unit.texture.people import POSE

REF = common_pb2.ArtefactRef(uri="file:///somewhere/ab", sha256="ab" * 32, size_bytes=9)
MOUTH = np.zeros((59, 3), np.float32)


def uv_request(uv: np.ndarray) -> pb.SampleNeuralTextureRequest:
    return pb.SampleNeuralTextureRequest(uv=pb.UvMap(frame_index=4, uv=to_tensor(uv)))


def target_request(mouth: np.ndarray | None = MOUTH, pose: common_pb2.HeadPose | None = None) -> pb.SampleNeuralTextureRequest:
    motion = motion_pb2.MotionFrame(mouth_landmarks=None if mouth is None else to_tensor(mouth))
    frame = pb.TargetFrame(frame_index=5, motion=motion, pose=pose or pose_to_proto(POSE), context_only=True)
    return pb.SampleNeuralTextureRequest(target=frame)


def of(value: float, shape: tuple[int, ...] = (6, 8, 2)) -> np.ndarray:
    return np.full(shape, value, np.float32)


def test_uv_map_and_target_differ() -> None:
    """A UV map and a target are told apart."""
    uv = texture_frame_from_proto(uv_request(of(1.0)))
    assert isinstance(uv, UvFrame)
    assert (uv.frame_index, uv.uv.shape) == (4, (6, 8, 2))
    target = texture_frame_from_proto(target_request())
    assert isinstance(target, TargetFrame)
    assert (target.frame_index, target.context_only) == (5, True)


def test_identity_optional_texture_required() -> None:
    """The identity is optional and the texture is not."""
    config = texture_config_from_proto(pb.SampleNeuralTextureRequest(config=pb.SampleNeuralTextureConfig(texture=REF)))
    assert config.identity is None
    assert config.texture.sha256 == REF.sha256
    with raised(InvalidRequestError, field="config.texture"):
        texture_config_from_proto(pb.SampleNeuralTextureRequest(config=pb.SampleNeuralTextureConfig(identity=REF)))
    with pytest.raises(InvalidRequestError, match="first message"):
        texture_config_from_proto(uv_request(of(0.0)))


@pytest.mark.parametrize(
    "uv",
    [
        of(np.nan),
        of(np.inf),
        of(1.01),
        of(-1.5),
        of(0.5, (6, 8)),
        of(0.5, (6, 8, 3)),
        of(0.5).astype(np.float64),
        of(0.5, (MAX_UV_SIDE + 1, 1, 2)),
        of(0.5, (1, MAX_UV_SIDE + 1, 2)),
        of(0.5, (0, 8, 2)),
        of(0.5, (8, 0, 2)),
    ],
    ids=["nan", "inf", "above 1", "below -1", "flat", "three", "float64", "too high", "too wide", "no rows", "no columns"],
)
def test_a_wrong_uv_map_is_named(uv: np.ndarray) -> None:
    with raised(InvalidRequestError, field="uv.uv"):
        texture_frame_from_proto(uv_request(uv))


def test_the_largest_uv_map_is_taken() -> None:
    assert isinstance(texture_frame_from_proto(uv_request(of(0.5, (MAX_UV_SIDE, MAX_UV_SIDE, 2)))), UvFrame)


@pytest.mark.parametrize(
    ("request_message", "field"),
    [
        (target_request(mouth=None), "target.motion.mouth_landmarks"),
        (target_request(mouth=MOUTH[:40]), "target.motion.mouth_landmarks"),
        (target_request(mouth=MOUTH + np.float32(np.nan)), "target.motion.mouth_landmarks"),
        (target_request(pose=common_pb2.HeadPose(rotation=[1.0])), "target.pose"),
        (pb.SampleNeuralTextureRequest(), "uv"),
        (pb.SampleNeuralTextureRequest(config=pb.SampleNeuralTextureConfig(texture=REF)), "uv"),
    ],
    ids=["no mouth", "forty points", "nan", "pose", "empty", "a second config"],
)
def test_a_wrong_frame_is_named(request_message: pb.SampleNeuralTextureRequest, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        texture_frame_from_proto(request_message)
    assert (caught.value.field or "").startswith(field)
