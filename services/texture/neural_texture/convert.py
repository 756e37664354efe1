"""Messages of SampleNeuralTexture to and from the stage's own types, with validation."""

from __future__ import annotations

from typing import Final

import numpy as np

from dubstage.texture.v1alpha1 import texture_pb2 as pb
from services.common.array_types import Float32
from services.common.errors import InvalidRequest
from services.common.face.crops import BOX_SIZE
from services.common.wire.arrays import from_tensor, to_tensor
from services.common.wire.artefact_messages import ref_from_proto
from services.texture.targets.convert import wanted_mouth_from_proto
from services.texture.types import SampledFrame, TargetFrame, TextureConfig, UvFrame

MAX_UV_SIDE: Final = 3 * BOX_SIZE
"""Largest side of a UV map, pixels. An answer of this size takes 15 MB."""


def texture_config_from_proto(request: pb.SampleNeuralTextureRequest) -> TextureConfig:
    """Return the wish of a SampleNeuralTexture stream's first message.

    Raises:
        InvalidRequest: the message is no config, or a reference is missing or malformed.
    """
    if not request.HasField("config"):
        raise InvalidRequest("the first message of the stream must be the config", field="config")
    config = request.config
    return TextureConfig(
        texture=ref_from_proto(config.texture, "config.texture"),
        identity=ref_from_proto(config.identity, "config.identity") if config.HasField("identity") else None,
    )


def texture_frame_from_proto(request: pb.SampleNeuralTextureRequest) -> UvFrame | TargetFrame:
    """Return a frame.

    Raises:
        InvalidRequest: the message is no frame; or the UV map has another type or shape, is too large, or has a number outside
            -1..1; or the landmarks or the pose of the target cannot be used.
    """
    if request.HasField("target"):
        return wanted_mouth_from_proto(request.target, "target")
    if not request.HasField("uv"):
        raise InvalidRequest("after the config every message must be a UV map or a target frame", field="uv")
    uv: Float32 = from_tensor(request.uv.uv, "uv.uv", dtype=np.float32, shape=(None, None, 2), limit=1.0)
    height, width = uv.shape[:2]
    if not (1 <= height <= MAX_UV_SIDE and 1 <= width <= MAX_UV_SIDE):
        raise InvalidRequest(f"uv.uv: {width} x {height} pixels; a side has 1 to {MAX_UV_SIDE}", field="uv.uv")
    return UvFrame(request.uv.frame_index, uv)


def sampled_to_proto(sampled: SampledFrame) -> pb.SampleNeuralTextureResponse:
    """Return the answer for one frame."""
    return pb.SampleNeuralTextureResponse(frame_index=sampled.frame_index, features=to_tensor(sampled.features))
