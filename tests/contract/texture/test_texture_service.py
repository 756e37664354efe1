"""The texture stage behind a real server."""

from dataclasses import replace
from pathlib import Path

import grpc.aio
import numpy as np
import pytest

from dubstage.client import to_tensor
from dubstage.common.v1 import bounds_pb2
from dubstage.texture.v1 import texture_pb2 as pb
from services.common.errors import InvalidRequestError
from services.common.face.crops import HeadPose, head_template, to_frame
from services.common.face.landmarks import MOUTH_AREA, NUM_LANDMARKS
from services.common.face.mouth_bank import MAX_BANK_FRAMES, bank_from_arrays
from services.common.store.artefacts import ArtefactStore
from services.common.wire.convert import from_tensor, pose_from_proto, pose_to_proto, ref_from_proto
from services.texture.bank import build_bank
from services.texture.convert import bank_frame_from_proto, target_from_proto
from services.texture.inside_path import InsideCosts, InsidePath, InsideSource
from services.texture.retrieve_warp import WarpStream
from services.texture.temporal_warp import TemporalWarpModel
from services.texture.types import ALBEDO_MODES, BankFrame, TargetFrame, WarpedFrame, WarpMode
from tests.contract.texture.requests import bank_frame_to_proto, target_to_proto, warp_config_to_proto, warped_from_proto
from tests.refusals import raised, rpc_refused

HEAD = np.concatenate([head_template(), np.zeros((NUM_LANDMARKS - 468, 3), np.float32)])
POSE = HeadPose(1.3, np.eye(3), np.array([320.0, 240.0, 0.0]))
PICTURE = np.random.default_rng(2).integers(0, 255, (160, 160, 3)).astype(np.uint8)
LOWER_LIP = [index for index in MOUTH_AREA if HEAD[index, 1] > 0]


def head(frame: int) -> np.ndarray:
    opened = HEAD.copy()
    opened[LOWER_LIP, 1] += 5 + 5 * np.sin(0.8 * frame)
    return opened


def footage(count: int) -> list[BankFrame]:
    return [BankFrame(number, np.roll(PICTURE, number, 0), to_frame(head(number), POSE), POSE) for number in range(count)]


def targets(count: int) -> list[TargetFrame]:
    return [TargetFrame(number, head(number + 40)[list(MOUTH_AREA)], POSE) for number in range(count)]


def test_declared_bank_size() -> None:
    """The contract declares as many frames as a bank keeps."""
    declared = pb.BuildBankConfig.DESCRIPTOR.fields_by_name["max_frames"].GetOptions().Extensions[bounds_pb2.bounds]
    assert declared.max == MAX_BANK_FRAMES


async def built(stub, frames: list[BankFrame], max_frames: int = 0) -> pb.BuildBankResponse:
    config = pb.BuildBankRequest(config=pb.BuildBankConfig(max_frames=max_frames))
    return await stub.BuildBank([config, *map(bank_frame_to_proto, frames)])


async def test_the_wire_gives_the_bytes_of_the_function(stub) -> None:
    response = await built(stub, footage(20))
    bank = build_bank(footage(20))
    assert response.num_frames == 20
    shapes = {"mean_mouth": 59, "closed_mouth": 59, "jaw_envelope": 19, "anchors": 15}
    for name, count in shapes.items():
        got = from_tensor(getattr(response.geometry, name), name, dtype=np.float32, shape=(count, 3))
        np.testing.assert_array_equal(got, getattr(bank.geometry, name))
    for mode in set(WarpMode) - ALBEDO_MODES:
        requests = [warp_config_to_proto(response.bank, mode), *map(target_to_proto, targets(8))]
        replies = [warped_from_proto(reply) async for reply in stub.RetrieveWarp(requests)]
        stream = WarpStream(InsideCosts(bank), mode, TemporalWarpModel())
        expected = [stream.push(frame) for frame in targets(8)]
        assert len(replies) == 8
        for reply, answer in zip(replies, expected, strict=True):
            assert isinstance(answer, WarpedFrame)
            assert reply.texture.tobytes() == answer.texture.tobytes()
            assert reply.box_landmarks.tobytes() == answer.box_landmarks.tobytes()
            assert (reply.frame_index, reply.bank_frame_index) == (answer.frame_index, answer.bank_frame_index)


async def test_select_insides(stub) -> None:
    """SelectInsides answers as the function does, and RetrieveWarp takes the answers."""
    ref = (await built(stub, footage(20))).bank
    config = pb.SelectInsidesRequest(config=pb.SelectInsidesConfig(bank=ref))
    frames = [pb.SelectInsidesRequest(frame=target_to_proto(frame).frame) for frame in targets(8)]
    replies = [InsideSource(reply.frame_index, reply.bank_frame_index) async for reply in stub.SelectInsides([config, *frames])]
    path = InsidePath(InsideCosts(build_bank(footage(20))))
    assert replies == [source for frame in targets(8) for source in path.push(frame)] + path.finish()
    shown_inside = zip(targets(8), replies, strict=True)
    frames = [replace(frame, inside_frame_index=source.bank_frame_index) for frame, source in shown_inside]
    named = map(target_to_proto, frames)
    requests = [warp_config_to_proto(ref, WarpMode.TEMPORAL_WARP_NETWORK), *named]
    shown = [reply.inside_frame_index async for reply in stub.RetrieveWarp(requests)]
    assert shown == [source.bank_frame_index for source in replies]


@pytest.mark.parametrize("first", ["frame", "config"])
async def test_select_insides_names_the_missing_field(stub, first: str) -> None:
    request = pb.SelectInsidesRequest(**{first: {"frame": pb.TargetFrame(), "config": pb.SelectInsidesConfig()}[first]})
    with rpc_refused(match="config"):
        _ = [reply async for reply in stub.SelectInsides([request])]


async def test_the_same_footage_gives_the_same_artefact(stub) -> None:
    first, second = await built(stub, footage(12)), await built(stub, footage(12))
    assert first.bank == second.bank
    assert (await built(stub, footage(12), max_frames=6)).num_frames == 6


def spoken(frame: BankFrame) -> BankFrame:
    """The frame with speech, expression and a spoken mouth."""
    random = np.random.default_rng(frame.frame_index)
    return replace(
        frame,
        speech=random.random((20, 40), np.float32),
        expression=random.standard_normal(64, np.float32),
        spoken_mouth=random.standard_normal((59, 3), np.float32),
    )


async def test_a_bank_keeps_speech_and_expression(stub, tmp_path: Path) -> None:
    frames = [spoken(frame) for frame in footage(8)]
    response = await built(stub, frames)
    bank = bank_from_arrays(ArtefactStore(str(tmp_path)).get_arrays(ref_from_proto(response.bank, "bank")))
    for name in ("speech", "expression", "spoken_mouth"):
        np.testing.assert_array_equal(getattr(bank, name), np.stack([getattr(frame, name) for frame in frames]))


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("frame.speech", {"speech": np.zeros((20, 39), np.float32)}),
        ("frame.speech", {"speech": np.full((20, 40), 2.0, np.float32)}),
        ("frame.speech", {"speech": None}),
        ("frame.expression", {"expression": np.zeros(0, np.float32)}),
        ("frame.expression", {"expression": np.zeros(513, np.float32)}),
        ("frame.expression", {"expression": np.full(64, np.nan, np.float32)}),
        ("frame.expression", {"expression": np.zeros(63, np.float32)}),
        ("frame.expression", {"expression": None}),
        ("frame.spoken_mouth", {"spoken_mouth": np.zeros((58, 3), np.float32)}),
        ("frame.spoken_mouth", {"spoken_mouth": np.full((59, 3), 1e9, np.float32)}),
        ("frame.spoken_mouth", {"spoken_mouth": None}),
    ],
    ids=[
        *("shape", "no probability", "missing once", "empty", "too many", "nan", "another number", "missing once"),
        *("shape", "too far away", "missing once"),
    ],
)
async def test_wrong_speech_and_expression_are_named(stub, field, changed) -> None:
    first, *others = [spoken(frame) for frame in footage(6)]
    with rpc_refused(field):
        await built(stub, [first, replace(others[0], **changed), *others[1:]])


async def test_reply_before_next_frame(stub) -> None:
    bank = (await built(stub, footage(10))).bank
    call = stub.RetrieveWarp()
    await call.write(warp_config_to_proto(bank, WarpMode.TEMPORAL_WARP_NETWORK))
    for frame in targets(3):
        await call.write(target_to_proto(frame))
        reply = await call.read()
        assert isinstance(reply, pb.RetrieveWarpResponse)
        assert reply.frame_index == frame.frame_index
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (lambda request: request.frame.pose.ClearField("rotation"), "frame.pose"),
        (lambda request: request.frame.pose.rotation.__setitem__(0, -1.0), "frame.pose.rotation"),
        (lambda request: setattr(request.frame.box, "width", 80), "frame.box"),
        (lambda request: request.Clear(), "frame"),
    ],
    ids=["no rotation", "mirror", "small box", "empty"],
)
async def test_wrong_frames_are_refused_by_name(stub, spoil, field) -> None:
    request_message = bank_frame_to_proto(footage(1)[0])
    spoil(request_message)
    with raised(InvalidRequestError, field=field):
        bank_frame_from_proto(request_message)
    config = pb.BuildBankRequest(config=pb.BuildBankConfig())
    with rpc_refused():
        await stub.BuildBank([config, request_message])


async def test_missing_bank_and_frames(stub) -> None:
    """A bank that is not there is not found, and no frames are no footage."""
    bank = (await built(stub, footage(6))).bank
    missing = bank.sha256[:2] + "0" * 62
    bank.uri, bank.sha256 = bank.uri.replace(bank.sha256, missing), missing
    with rpc_refused(code="NOT_FOUND"):
        _ = [reply async for reply in stub.RetrieveWarp([warp_config_to_proto(bank, WarpMode.MEAN_MOUTH)])]
    with rpc_refused(code="FAILED_PRECONDITION"):
        await built(stub, [])


async def test_footage_is_retimed_to_speech(stub) -> None:
    motion = np.repeat([0.0, 1.0, 0.0], 20).astype(np.float32)
    silent = np.repeat([True, False, True], [10, 20, 10])
    request = pb.SelectFramesRequest(head_motion=to_tensor(motion), blink=to_tensor(np.zeros(60, bool)), silent=to_tensor(silent))
    chosen = (await stub.SelectFrames(request)).frame_indices
    assert len(chosen) == 40
    assert motion[chosen][10:30].mean() > 0.85


@pytest.mark.parametrize(
    ("field", "array"),
    [
        ("head_motion", np.full(60, 2, np.float32)),
        ("head_motion", np.full(60, np.nan, np.float32)),
        ("blink", np.zeros(59, bool)),
        ("silent", np.zeros(40, np.float32)),
    ],
)
async def test_a_wrong_array_is_named(field: str, array: np.ndarray, stub) -> None:
    arrays = {"head_motion": np.zeros(60, np.float32), "blink": np.zeros(60, bool), "silent": np.zeros(40, bool), field: array}
    request = pb.SelectFramesRequest(**{name: to_tensor(value) for name, value in arrays.items()})
    with rpc_refused(field):
        await stub.SelectFrames(request)


def test_targets_and_poses_survive_wire() -> None:
    """Targets and poses survive the wire, and a target without landmarks is refused."""
    (frame,) = targets(1)
    again = target_from_proto(target_to_proto(frame))
    np.testing.assert_array_equal(again.mouth, frame.mouth)
    pose = pose_from_proto(pose_to_proto(POSE), "pose")
    assert pose.scale == POSE.scale
    np.testing.assert_array_equal(pose.rotation, POSE.rotation)
    np.testing.assert_array_equal(pose.translation, POSE.translation)
    request = target_to_proto(targets(1)[0])
    request.frame.motion.ClearField("mouth_landmarks")
    with raised(InvalidRequestError, field="frame.motion.mouth_landmarks"):
        target_from_proto(request)
