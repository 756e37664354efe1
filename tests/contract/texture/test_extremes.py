"""Requests of the texture stage at the ends of what it takes, and beyond."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubstage.client import to_image, to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.texture.v1 import texture_pb2 as pb
from services.common.face.crops import MAX_FRAME_PX, MAX_HEAD_PX, MAX_SCALE, MIN_SCALE, HeadPose, pose_vectors, to_frame
from services.common.face.landmarks import MOUTH_AREA
from services.common.face.mouth_bank import FORMAT, bank_arrays
from services.common.face.neural_texture import ACTOR_FORMAT, ARRAY_NAME, TEXTURE_SHAPE
from services.common.store.artefacts import ArtefactStore
from services.common.wire.convert import pose_to_proto, ref_to_proto
from services.texture.bank import build_bank
from services.texture.types import BankFrame
from tests.contract.finite import finite_or_refused
from tests.contract.texture.requests import bank_frame_to_proto, portrait_to_proto
from tests.refusals import rpc_refused
from tests.unit.texture.people import HEAD, LANDMARKS, POSE, a_person, a_portrait

MOUTH = np.ascontiguousarray(HEAD[list(MOUTH_AREA)])
PICTURE = np.random.default_rng(2).integers(0, 255, (160, 160, 3)).astype(np.uint8)
LARGEST = 3.4028235e38
FRAMES = [BankFrame(number, np.roll(PICTURE, number, 0), to_frame(HEAD + number * 0.1, POSE), POSE) for number in range(8)]
POINTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda points: points,
    "zeros": lambda points: points * 0,
    "one place": lambda points: points * 0 + 7,
    "one line": lambda points: points * np.array([1, 0, 0], np.float32),
    "one plane": lambda points: points * np.array([1, 1, 0], np.float32),
    "denormals": lambda points: points * np.float32(1e-44),
    "the largest that are taken": lambda points: np.sign(points) * np.float32(MAX_HEAD_PX),
    "one far out": lambda points: np.concatenate([points[:1] * 0 - np.float32(MAX_HEAD_PX), points[1:]]),
    "too large": lambda points: points * 0 - np.float32(1e30),
    "the largest float": lambda points: points * 0 + np.float32(LARGEST),
    "no numbers": lambda points: points * np.float32(np.nan),
}
POSES = {
    "as it is": pose_to_proto(POSE),
    "the smallest scale": pose_to_proto(replace(POSE, scale=MIN_SCALE)),
    "the largest scale": pose_to_proto(replace(POSE, scale=MAX_SCALE)),
    "the furthest place": pose_to_proto(replace(POSE, translation=np.full(3, -MAX_FRAME_PX))),
    "from behind": pose_to_proto(replace(POSE, rotation=np.diag([-1.0, 1.0, -1.0]))),
    "from above": pose_to_proto(replace(POSE, rotation=np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]))),
    "beyond": pose_to_proto(replace(POSE, translation=np.array([3e38, 0.0, 0.0]))),
    "no scale": pose_to_proto(replace(POSE, scale=1e-300)),
    "nothing": common_pb2.HeadPose(),
}


@dataclass
class Service:
    stub: Any
    store: ArtefactStore
    bank: common_pb2.ArtefactRef
    identity: common_pb2.ArtefactRef

    async def warped(self, requests: list[pb.RetrieveWarpRequest]) -> list[pb.RetrieveWarpResponse]:
        return [reply async for reply in self.stub.RetrieveWarp(requests, timeout=60)]

    async def turned(self, requests: list[pb.RotatePortraitRequest]) -> list[pb.RotatePortraitResponse]:
        return [reply async for reply in self.stub.RotatePortrait(requests, timeout=60)]

    async def built(self, requests: list[pb.BuildBankRequest]) -> list[pb.BuildBankResponse]:
        return [await self.stub.BuildBank(requests, timeout=60)]


@pytest.fixture
def service(stub, tmp_path: Path) -> Service:
    store, person = ArtefactStore(str(tmp_path)), a_person()
    bank = store.put_arrays(bank_arrays(build_bank(FRAMES)), {"format": FORMAT})
    identity = store.put_arrays(person.arrays(), person.metadata())
    return Service(stub, store, ref_to_proto(bank), ref_to_proto(identity))


def target(mouth: np.ndarray, pose: common_pb2.HeadPose, frame: int = 0) -> pb.RetrieveWarpRequest:
    asked = pb.RetrieveWarpRequest(frame=pb.TargetFrame(frame_index=frame, pose=pose))
    asked.frame.motion.mouth_landmarks.CopyFrom(to_tensor(mouth.astype(np.float32)))
    return asked


@pytest.mark.parametrize("mode", [number for name, number in pb.WarpMode.items()])
async def test_extreme_mouth_textures_finite(service: Service, mode: pb.WarpMode.ValueType) -> None:
    config = pb.RetrieveWarpRequest(config=pb.RetrieveWarpConfig(mode=mode, bank=service.bank, identity=service.identity))
    refused = {"too large", "the largest float", "no numbers", "beyond", "no scale", "nothing"}
    for name, change in POINTS.items():
        answered = await finite_or_refused(service.warped([config, target(change(MOUTH), POSES["as it is"])]))
        assert answered == (name not in refused), name
    for name, pose in POSES.items():
        answered = await finite_or_refused(service.warped([config, target(MOUTH, pose), target(MOUTH, POSES["as it is"], 1)]))
        assert answered == (name not in refused), name


async def test_extreme_mouth_features_finite(service: Service) -> None:
    texture = np.random.default_rng(3).integers(0, 256, TEXTURE_SHAPE).astype(np.uint8)
    actor = service.store.put_arrays({ARRAY_NAME: texture}, {"format": ACTOR_FORMAT})
    config = pb.SampleNeuralTextureConfig(texture=ref_to_proto(actor), identity=service.identity)

    async def sampled(mouth: np.ndarray, pose: common_pb2.HeadPose) -> list[pb.SampleNeuralTextureResponse]:
        asked = pb.SampleNeuralTextureRequest(target=target(mouth, pose).frame)
        requests = [pb.SampleNeuralTextureRequest(config=config), asked]
        return [reply async for reply in service.stub.SampleNeuralTexture(requests, timeout=60)]

    refused = {"too large", "the largest float", "no numbers", "beyond", "no scale", "nothing"}
    for name, change in POINTS.items():
        assert await finite_or_refused(sampled(change(MOUTH), POSES["as it is"])) == (name not in refused), name
    for name, pose in POSES.items():
        assert await finite_or_refused(sampled(MOUTH, pose)) == (name not in refused), name


async def test_unusable_numbers_refused(service: Service) -> None:
    """Numbers beyond float32, landmarks of another place or head, and a picture of another size than its bytes are refused."""
    config = pb.RetrieveWarpRequest(config=pb.RetrieveWarpConfig(bank=service.bank))
    wide = target(MOUTH, POSES["as it is"])
    wide.frame.motion.mouth_landmarks.CopyFrom(to_tensor(np.full((59, 3), 1e300)))
    assert not await finite_or_refused(service.warped([config, wide]))
    portrait = a_portrait()
    for points, pose in (
        (LANDMARKS + np.float32(5000.0), POSE),
        (LANDMARKS * np.float32(0.0), POSE),
        (LANDMARKS, replace(POSE, scale=POSE.scale * 100.0)),
        (LANDMARKS, replace(POSE, translation=POSE.translation + 9e5)),
    ):
        asked = portrait_to_proto(portrait, points.astype(np.float32), pose, service.identity)
        assert not await finite_or_refused(service.turned([asked]))
    large = bank_frame_to_proto(FRAMES[0])
    large.frame.box.CopyFrom(to_image(PICTURE))
    large.frame.box.width = 4294967295
    assert not await finite_or_refused(service.built([pb.BuildBankRequest(config=pb.BuildBankConfig()), large]))


async def test_banks_of_any_frames_are_finite(service: Service) -> None:
    taken = []
    for name, change in POINTS.items():
        frames = [bank_frame_to_proto(replace(frame, landmarks=change(frame.landmarks).astype(np.float32))) for frame in FRAMES]
        if await finite_or_refused(service.built([pb.BuildBankRequest(config=pb.BuildBankConfig()), *frames])):
            taken.append(name)
    for name, pose in POSES.items():
        asked = [bank_frame_to_proto(frame) for frame in FRAMES]
        asked[3].frame.pose.CopyFrom(pose)
        if await finite_or_refused(service.built([pb.BuildBankRequest(config=pb.BuildBankConfig()), *asked])):
            taken.append(name)
    assert taken == ["as they are", "one plane", "as it is", "from behind", "from above"]


@pytest.mark.parametrize("size", [(4000, 1), (1, 4000), (1, 1), (63, 64), (64, 8193)])
async def test_a_portrait_that_holds_no_face_is_refused(service: Service, size: tuple[int, int]) -> None:
    picture = np.zeros((*size, 3), np.uint8)
    asked = portrait_to_proto(picture, LANDMARKS, POSE, service.identity)
    turn = pb.RotatePortraitRequest(frame=pb.PortraitFrame(pose=POSES["as it is"], blink=1.0))
    with rpc_refused(match=r"config.portrait: .* a side has 64 to 8192"):
        await service.turned([asked, turn])


async def test_portraits_of_any_size_and_pose_are_turned(service: Service) -> None:
    turns = [
        pb.RotatePortraitRequest(frame=pb.PortraitFrame(frame_index=number, pose=POSES[name], blink=blink))
        for number, (name, blink) in enumerate(
            [
                ("as it is", 1.0),
                ("the smallest scale", 0.5),
                ("the largest scale", 0.0),
                ("the furthest place", 1.0),
                ("from behind", 0.3),
            ]
        )
    ]
    for height, width in ((64, 64), (64, 700), (700, 64)):
        # The head where it just fits.
        scale = min(height, width) / 300.0
        pose = HeadPose(scale, POSE.rotation, np.array([width / 2.0, height / 2.0, 0.0]))
        picture = np.zeros((height, width, 3), np.uint8)
        asked = portrait_to_proto(picture, to_frame(HEAD, pose), pose, service.identity)
        assert await finite_or_refused(service.turned([asked, *turns]))
    for name in ("beyond", "no scale", "nothing"):
        turn = pb.RotatePortraitRequest(frame=pb.PortraitFrame(pose=POSES[name]))
        asked = portrait_to_proto(a_portrait(), LANDMARKS, POSE, service.identity)
        assert not await finite_or_refused(service.turned([asked, turn]))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mouth", lambda array: array * np.float32(np.nan)),
        ("mouth", lambda array: array * np.float32(1e30)),
        ("mouth", lambda array: array.astype(np.int32)),
        ("rotation", lambda array: array * 2.0),
        ("frame_index", lambda array: array[::-1]),
        ("frame_index", lambda array: array[:0]),
        ("frame_index", lambda array: array[0]),
        ("boxes", lambda array: array[:, :1]),
        ("boxes", lambda array: array.astype(np.uint16)),
        ("anchors", lambda array: array[:3]),
        ("anchors", lambda array: array.astype(np.uint8)),
        ("jaw_envelope", None),
    ],
)
async def test_damaged_bank_refused(service: Service, name: str, change: Callable[[np.ndarray], np.ndarray] | None) -> None:
    arrays = bank_arrays(build_bank(FRAMES))
    if change is None:
        del arrays[name]
    else:
        arrays[name] = change(arrays[name])
    ref = ref_to_proto(service.store.put_arrays(arrays, {"format": FORMAT}))
    config = pb.RetrieveWarpRequest(config=pb.RetrieveWarpConfig(bank=ref))
    with rpc_refused(match=r"bank|no array", field="config.bank"):
        await service.warped([config, target(MOUTH, POSES["as it is"])])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("identity", lambda array: array + np.float32(np.inf)),
        ("offset", lambda array: array + np.float32(1e30)),
        ("light", lambda array: array[:3]),
        ("light", lambda array: array.astype(np.float16) * np.float16(np.nan)),
        ("texture", lambda array: array.astype(np.float32)),
        ("seen", lambda array: array.reshape(-1)),
        ("num_frames", lambda array: array.astype(np.float32)),
    ],
)
async def test_damaged_identity_refused(service: Service, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    person = a_person()
    arrays = {**person.arrays(), name: change(person.arrays()[name])}
    ref = ref_to_proto(service.store.put_arrays(arrays, person.metadata()))
    config = pb.RetrieveWarpRequest(config=pb.RetrieveWarpConfig(identity=ref, mode=pb.WARP_MODE_LOW_FREQUENCY_ALBEDO))
    with rpc_refused(match="identity's", field="config.identity"):
        await service.warped([config, target(MOUTH, POSES["as it is"])])


async def test_extreme_background_poses(service: Service) -> None:
    """Backgrounds of poses out of range are refused and those in range are found."""
    still = pose_vectors([POSE] * 60)
    for column, value, taken in (
        (3, 1e6, True),
        (3, 1e300, False),
        (5, 1e3, True),
        (5, 0.0, False),
        (0, 3.1, True),
        (0, 1e30, False),
    ):
        poses = still.copy()
        poses[30:, column] = value
        asked = pb.MatchBackgroundsRequest(
            footage_poses=to_tensor(poses), usable=to_tensor(np.ones(60, np.bool_)), predicted_poses=to_tensor(poses[::-1].copy())
        )

        async def found(asked: pb.MatchBackgroundsRequest = asked) -> list[pb.MatchBackgroundsResponse]:
            return [await service.stub.MatchBackgrounds(asked, timeout=60)]

        assert await finite_or_refused(found()) == taken
