"""RPCs of the texture stage."""

from __future__ import annotations

from typing import Final

from dubstage.client.rpcs.kinds import Stream, Unary, Upload
from dubstage.texture.v1alpha1 import texture_pb2 as pb

_SERVICE: Final = "dubstage.texture.v1alpha1.TextureService"

BUILD_BANK: Final = Upload(_SERVICE, "BuildBank", pb.BuildBankRequest, pb.BuildBankResponse)
RETRIEVE_WARP: Final = Stream(_SERVICE, "RetrieveWarp", pb.RetrieveWarpRequest, pb.RetrieveWarpResponse)
SELECT_INSIDES: Final = Stream(_SERVICE, "SelectInsides", pb.SelectInsidesRequest, pb.SelectInsidesResponse)
SELECT_FRAMES: Final = Unary(_SERVICE, "SelectFrames", pb.SelectFramesRequest, pb.SelectFramesResponse)
MATCH_BACKGROUNDS: Final = Unary(_SERVICE, "MatchBackgrounds", pb.MatchBackgroundsRequest, pb.MatchBackgroundsResponse)
ROTATE_PORTRAIT: Final = Stream(_SERVICE, "RotatePortrait", pb.RotatePortraitRequest, pb.RotatePortraitResponse)
SAMPLE_NEURAL_TEXTURE: Final = Stream(
    _SERVICE, "SampleNeuralTexture", pb.SampleNeuralTextureRequest, pb.SampleNeuralTextureResponse
)
