"""Drawn faces, backgrounds of moved heads and turned portraits behind a real server of the texture stage."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.texture.v1 import texture_pb2 as pb
from services.common.face.crops import HeadPose, pose_vectors
from services.common.face.drawing import IdentityDrawing
from services.common.face.landmarks import MOUTH_AREA
from services.common.store.artefacts import ArtefactStore
from services.common.wire.convert import from_image, from_tensor, ref_to_proto
from services.texture.backgrounds import match_backgrounds
from services.texture.portrait import PortraitRotation
from services.texture.retrieve_warp import IdentityStream
from services.texture.types import PortraitFrame, TargetFrame, WarpedFrame, WarpMode
from tests.contract.texture.requests import face_stream, portrait_stream, portrait_to_proto, warped_from_proto
from tests.refusals import rpc_refused
from tests.unit.texture.people import HEAD, LANDMARKS, MODEL, POSE, a_person, a_portrait, turned

PORTRAIT = a_portrait()


@dataclass
class Service:
    stub: Any
    store: ArtefactStore

    def kept(self, **changes: object) -> common_pb2.ArtefactRef:
        """An identity in the store."""
        person = a_person(**changes)
        return ref_to_proto(self.store.put_arrays(person.arrays(), person.metadata()))


@pytest.fixture
def service(stub, tmp_path: Path) -> Service:
    return Service(stub, ArtefactStore(str(tmp_path)))


def targets(count: int) -> list[TargetFrame]:
    mouth = HEAD[list(MOUTH_AREA)]
    opened = [mouth + np.array([0.0, 0.5 * frame, 0.0], np.float32) * (mouth[:, 1:2] > 0) for frame in range(count)]
    return [TargetFrame(frame, opened[frame], HeadPose(1.2, turned(yaw=3.0 * frame), POSE.translation)) for frame in range(count)]


def poses() -> list[HeadPose]:
    return [HeadPose(POSE.scale, turned(yaw=4.0 * step), POSE.translation) for step in (-2, 0, 1)]


def wandering(count: int, seed: int) -> np.ndarray:
    steps = np.cumsum(np.random.default_rng(seed).standard_normal((count, 3)), axis=0)
    return pose_vectors([HeadPose(1.0, turned(*(0.3 * step)), np.array([300.0, 200.0, 0.0])) for step in steps])


@pytest.mark.parametrize("mode", [WarpMode.LOW_FREQUENCY_ALBEDO, WarpMode.DETAILED_ALBEDO])
async def test_drawn_faces_wire_equals_function(service: Service, mode: WarpMode) -> None:
    call = service.stub.RetrieveWarp(face_stream(mode, service.kept(), targets(3)))
    replies = [warped_from_proto(reply) async for reply in call]
    stream = IdentityStream(IdentityDrawing(a_person(), MODEL), mode)
    assert len(replies) == 3
    for reply, frame in zip(replies, targets(3), strict=True):
        expected = stream.push(frame)
        assert isinstance(expected, WarpedFrame)
        assert reply.texture.tobytes() == expected.texture.tobytes()
        assert reply.box_landmarks.tobytes() == expected.box_landmarks.tobytes()
        assert (reply.frame_index, reply.bank_frame_index) == (frame.frame_index, -1)


async def test_the_wire_gives_the_backgrounds_of_the_function(service: Service) -> None:
    footage, wanted = wandering(300, 1), wandering(90, 2)
    usable = np.arange(300) > 20
    request = pb.MatchBackgroundsRequest(
        footage_poses=to_tensor(footage), usable=to_tensor(usable), shot_cuts=[150], predicted_poses=to_tensor(wanted)
    )
    answer = await service.stub.MatchBackgrounds(request)
    expected = match_backgrounds(footage, usable, np.array([150]), wanted)
    assert list(answer.frame_indices) == expected.frame_indices.tolist()
    assert list(answer.keyframes) == expected.keyframes.tolist()


async def test_turned_portrait_wire_equals_function(service: Service) -> None:
    frames = [PortraitFrame(number, pose, 0.25 * number) for number, pose in enumerate(poses())]
    call = service.stub.RotatePortrait(portrait_stream(PORTRAIT, LANDMARKS, POSE, service.kept(), frames))
    replies = [reply async for reply in call]
    rotation = PortraitRotation(PORTRAIT, LANDMARKS, POSE, a_person(), MODEL)
    assert [reply.frame_index for reply in replies] == [0, 1, 2]
    for reply, frame in zip(replies, frames, strict=True):
        expected = rotation.turn(frame.pose, frame.blink)
        assert from_image(reply.picture, "picture", channels=3).tobytes() == expected.picture.tobytes()
        landmarks = from_tensor(reply.landmarks, "landmarks", dtype=np.float32, shape=(478, 3))
        assert landmarks.tobytes() == expected.landmarks.tobytes()


async def drained(replies: AsyncIterator[object]) -> None:
    async for _ in replies:
        pass


@pytest.mark.parametrize(
    ("mode", "field"),
    [
        (WarpMode.LOW_FREQUENCY_ALBEDO, "config.identity"),
        (WarpMode.DETAILED_ALBEDO, "config.identity"),
        (WarpMode.TEMPORAL_WARP_NETWORK, "config.bank"),
        (WarpMode.MEAN_MOUTH, "config.bank"),
    ],
)
async def test_what_a_mode_needs_is_named(service: Service, mode: WarpMode, field: str) -> None:
    with rpc_refused(field):
        await drained(service.stub.RetrieveWarp(face_stream(mode, None)))


async def test_wrong_identity_is_refused(service: Service) -> None:
    """An artefact that is no identity is refused, and an identity of a model that is not here is not found."""
    other = ref_to_proto(service.store.put_arrays({"boxes": np.zeros(3, np.float32)}, {"format": "another"}))
    for call in (
        service.stub.RetrieveWarp(face_stream(WarpMode.DETAILED_ALBEDO, other)),
        service.stub.RotatePortrait(portrait_stream(PORTRAIT, LANDMARKS, POSE, other)),
    ):
        with rpc_refused("no face identity"):
            await drained(call)
    asked = face_stream(WarpMode.DETAILED_ALBEDO, service.kept(model="somebodys_own"))
    with rpc_refused(code="NOT_FOUND"):
        await drained(service.stub.RetrieveWarp(asked))


def portrait_config(**changes: object) -> pb.RotatePortraitRequest:
    request = portrait_to_proto(PORTRAIT, LANDMARKS, POSE, common_pb2.ArtefactRef(uri="file:///nowhere", sha256="0" * 64))
    request.config.MergeFrom(pb.RotatePortraitConfig(**changes))  # type: ignore[arg-type]
    return request


@pytest.mark.parametrize(
    ("field", "request_message"),
    [
        ("config", pb.RotatePortraitRequest()),
        ("config.portrait", portrait_config(portrait=common_pb2.Image(width=7))),
        ("config.landmarks", portrait_config(landmarks=to_tensor(np.zeros((68, 3), np.float32)))),
        ("config.landmarks", portrait_config(landmarks=to_tensor(np.full((478, 3), np.nan, np.float32)))),
        ("config.pose", portrait_config(pose=common_pb2.HeadPose(rotation=[1.0]))),
        ("config.identity", portrait_to_proto(PORTRAIT, LANDMARKS, POSE, common_pb2.ArtefactRef())),
    ],
    ids=["no config", "size", "68 points", "not finite", "pose", "no identity"],
)
async def test_a_wrong_portrait_is_named(service: Service, field: str, request_message: pb.RotatePortraitRequest) -> None:
    with rpc_refused(field):
        await drained(service.stub.RotatePortrait([request_message]))


@pytest.mark.parametrize("second", [7, 6])
async def test_repeated_pose_refused(service: Service, second: int) -> None:
    """A pose that does not come after the pose before is refused."""
    frames = [PortraitFrame(number, POSE, 0.0) for number in (7, second)]
    with rpc_refused(f"{second} came after 7"):
        await drained(service.stub.RotatePortrait(portrait_stream(PORTRAIT, LANDMARKS, POSE, service.kept(), frames)))


@pytest.mark.parametrize("blink", [-0.1, 1.5, float("nan")])
async def test_a_wrong_blink_is_named(service: Service, blink: float) -> None:
    asked = portrait_stream(PORTRAIT, LANDMARKS, POSE, service.kept(), [PortraitFrame(0, POSE, blink)])
    with rpc_refused("frame.blink"):
        await drained(service.stub.RotatePortrait(asked))


@pytest.mark.parametrize(
    ("field", "array"),
    [
        ("footage_poses", np.zeros((60, 5))),
        ("footage_poses", np.full((60, 6), np.nan)),
        ("usable", np.ones(59, bool)),
        ("predicted_poses", np.zeros((20, 6), np.float32)),
        ("predicted_poses", np.full((20, 6), np.inf)),
    ],
)
async def test_a_wrong_array_is_named(field: str, array: np.ndarray, service: Service) -> None:
    arrays = {"footage_poses": wandering(60, 1), "usable": np.ones(60, bool), "predicted_poses": wandering(20, 2), field: array}
    request = pb.MatchBackgroundsRequest(**{name: to_tensor(value) for name, value in arrays.items()})
    with rpc_refused(field):
        await service.stub.MatchBackgrounds(request)


async def test_unusable_footage_fails_precondition(service: Service) -> None:
    request = pb.MatchBackgroundsRequest(
        footage_poses=to_tensor(wandering(60, 1)),
        usable=to_tensor(np.arange(60) % 20 > 0),
        predicted_poses=to_tensor(wandering(20, 2)),
    )
    with rpc_refused(code="FAILED_PRECONDITION"):
        await service.stub.MatchBackgrounds(request)
