"""Fine detail at the footage's own resolution, over the wire."""

from dataclasses import replace

import numpy as np
import pytest

from dubstage.client import to_image
from dubstage.texture.v1 import texture_pb2 as pb
from services.common.face.crops import HeadPose, head_template, to_frame
from services.common.face.landmarks import MOUTH_AREA, NUM_LANDMARKS
from services.common.face.native_pictures import encoded
from services.common.wire.convert import from_image
from services.texture.bank import build_bank
from services.texture.inside_path import InsideCosts
from services.texture.retrieve_warp import WarpStream
from services.texture.temporal_warp import TemporalWarpModel
from services.texture.types import BankFrame, TargetFrame, WarpMode
from tests.contract.texture.requests import bank_frame_to_proto, target_to_proto, warp_config_to_proto
from tests.refusals import rpc_refused

HEAD = np.concatenate([head_template(), np.zeros((NUM_LANDMARKS - 468, 3), np.float32)])
POSE = HeadPose(2.0, np.eye(3), np.array([320.0, 240.0, 0.0]))
LOWER_LIP = [index for index in MOUTH_AREA if HEAD[index, 1] > 0]


def head(number: int) -> np.ndarray:
    opened = HEAD.copy()
    opened[LOWER_LIP, 1] += 5 + 5 * np.sin(0.8 * number)
    return opened


def native(number: int, side: int = 320) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (side, side)).astype(np.uint8)


def footage(count: int) -> list[BankFrame]:
    box = np.full((160, 160, 3), 120, np.uint8)
    return [BankFrame(number, box, to_frame(head(number), POSE), POSE) for number in range(count)]


def message(frame: BankFrame, picture: np.ndarray) -> pb.BuildBankRequest:
    request = bank_frame_to_proto(frame)
    request.frame.native.CopyFrom(to_image(picture))
    return request


async def built(stub, frames: list[pb.BuildBankRequest]) -> pb.BuildBankResponse:
    return await stub.BuildBank([pb.BuildBankRequest(config=pb.BuildBankConfig()), *frames])


async def test_the_wire_gives_the_detail_of_the_function(stub) -> None:
    frames = footage(12)
    response = await built(stub, [message(frame, native(frame.frame_index)) for frame in frames])
    bank = build_bank([replace(frame, native=encoded(native(frame.frame_index))) for frame in frames])
    wanted = [TargetFrame(number, head(number + 40)[list(MOUTH_AREA)], POSE) for number in range(3)]
    config = warp_config_to_proto(response.bank, WarpMode.TEMPORAL_WARP_NETWORK)
    config.config.detail_scale = 2
    replies = [reply async for reply in stub.RetrieveWarp([config, *map(target_to_proto, wanted)])]
    stream = WarpStream(InsideCosts(bank), WarpMode.TEMPORAL_WARP_NETWORK, TemporalWarpModel(), 2)
    for reply, frame in zip(replies, wanted, strict=True):
        answer = stream.push(frame)
        assert answer.detail is not None
        np.testing.assert_array_equal(from_image(reply.detail, "detail", channels=1, size=(320, 320)), answer.detail)


@pytest.mark.parametrize("shape", [(160, 160), (321, 321), (800, 800), (320, 480)])
async def test_a_native_picture_of_another_size_is_refused(stub, shape: tuple[int, int]) -> None:
    request = message(footage(1)[0], np.zeros(shape, np.uint8))
    with rpc_refused("frame.native"):
        await built(stub, [request])


@pytest.mark.parametrize(
    ("mode", "scale"), [(WarpMode.RETRIEVAL_ONLY, 2), (WarpMode.DETAILED_ALBEDO, 1), (WarpMode.THIN_PLATE_SPLINE, 5)]
)
async def test_detail_that_cannot_be_given_is_refused(stub, mode: WarpMode, scale: int) -> None:
    response = await built(stub, list(map(bank_frame_to_proto, footage(8))))
    config = warp_config_to_proto(response.bank, mode, response.bank)
    config.config.detail_scale = scale
    with rpc_refused("config.detail_scale"):
        _ = [reply async for reply in stub.RetrieveWarp([config])]
