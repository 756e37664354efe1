"""SampleNeuralTexture behind a real server of the texture stage."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest

from dubstage.client import texture as texture_client
from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2
from dubstage.texture.v1 import texture_pb2 as pb
from services.common.face.crops import HeadPose
from services.common.face.landmarks import MOUTH_AREA
from services.common.face.neural_texture import ACTOR_FORMAT, ARRAY_NAME, TEXTURE_SHAPE, NeuralSurface, sample
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from services.common.wire.convert import from_tensor, pose_to_proto, ref_to_proto
from tests.refusals import rpc_refused
from tests.unit.texture.people import HEAD, MODEL, POSE, a_person, turned

TEXTURE = np.random.default_rng(4).integers(0, 256, TEXTURE_SHAPE).astype(np.uint8)
UV = np.random.default_rng(5).uniform(-0.3, 1.0, (48, 64, 2)).astype(np.float32)
Frame = texture_client.Target | tuple[int, np.ndarray]


def mouth(number: int) -> np.ndarray:
    points = HEAD[list(MOUTH_AREA)].copy()
    points[points[:, 1] > 0, 1] += 2.0 * number
    return points


def pose(number: int) -> HeadPose:
    return HeadPose(1.2, turned(yaw=4.0 * number), POSE.translation)


def target(number: int, *, context_only: bool = False) -> texture_client.Target:
    motion = motion_pb2.MotionFrame(frame_index=number, mouth_landmarks=to_tensor(mouth(number)))
    return texture_client.Target(number, motion, pose_to_proto(pose(number)), context_only=context_only)


@dataclass
class Service:
    stub: Any
    store: ArtefactStore
    kept: ArtefactRef

    def identity(self, **changes: object) -> common_pb2.ArtefactRef:
        person = a_person(**changes)
        return ref_to_proto(self.store.put_arrays(person.arrays(), person.metadata()))

    def actor(self, arrays: dict[str, np.ndarray], form: str = ACTOR_FORMAT) -> common_pb2.ArtefactRef:
        return ref_to_proto(self.store.put_arrays(arrays, {"format": form}))

    async def sampled(
        self, frames: list[Frame], texture: common_pb2.ArtefactRef | None = None, identity: common_pb2.ArtefactRef | None = None
    ) -> list[pb.SampleNeuralTextureResponse]:
        made = texture_client.sample_neural_texture.requests(texture=texture or ref_to_proto(self.kept), identity=identity)
        requests = [made.config, *(made.item(frame) for frame in frames)]
        return [reply async for reply in self.stub.SampleNeuralTexture(requests, timeout=60)]


@pytest.fixture
def service(stub, tmp_path: Path) -> Service:
    store = ArtefactStore(str(tmp_path))
    arrays = {"actor_state": np.zeros(4, np.float32), ARRAY_NAME: TEXTURE}
    return Service(stub, store, store.put_arrays(arrays, {"format": ACTOR_FORMAT}))


def features(reply: pb.SampleNeuralTextureResponse) -> np.ndarray:
    return from_tensor(reply.features, "features", dtype=np.float32, shape=(None, None, 16))


async def test_the_wire_gives_the_features_of_the_function(service: Service) -> None:
    frames: list[Frame] = [target(0), (1, UV), target(2, context_only=True), target(3)]
    replies = await service.sampled(frames, identity=service.identity())
    assert [reply.frame_index for reply in replies] == [0, 1, 3]
    surface = NeuralSurface(a_person(), MODEL)
    for number, reply in ((0, replies[0]), (3, replies[2])):
        uv = surface.uv_of(surface.expression_of(mouth(number)), pose(number))
        assert features(reply).tobytes() == sample(TEXTURE, uv).tobytes()
    assert features(replies[1]).tobytes() == sample(TEXTURE, UV).tobytes()


async def test_reply_before_next_frame(service: Service) -> None:
    made = texture_client.sample_neural_texture.requests(texture=ref_to_proto(service.kept), identity=service.identity())
    call = service.stub.SampleNeuralTexture()
    await call.write(made.config)
    for number in range(2):
        await call.write(made.item(target(number)))
        reply = await call.read()
        assert isinstance(reply, pb.SampleNeuralTextureResponse)
        assert reply.frame_index == number
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_unusable_requests_are_named(service: Service) -> None:
    """A texture, an identity and a target that cannot be used are named."""
    without = service.actor({"actor_state": np.zeros(4, np.float32)})
    another = service.actor({ARRAY_NAME: TEXTURE}, "dubstage.mouth_bank/1")
    small = service.actor({ARRAY_NAME: TEXTURE[..., :3]})
    for texture, says in ((without, "no neural texture"), (another, "not a renderer's actor"), (small, "damaged")):
        with rpc_refused("config.texture", says):
            await service.sampled([(0, UV)], texture)
    with rpc_refused("fitted on another", field="config.identity"):
        await service.sampled([target(0)], identity=service.identity(model_digest="0" * 64))
    with rpc_refused(code="NOT_FOUND"):
        await service.sampled([target(0)], identity=service.identity(model="somebodys_own"))
    with rpc_refused("no face identity", field="config.identity"):
        await service.sampled([target(0)], identity=ref_to_proto(service.kept))
    frames: list[tuple[list[Frame], str]] = [
        ([target(0)], "config.identity"),
        ([(0, UV * np.float32(np.nan))], "uv.uv"),
        ([(0, UV + 0.5)], "uv.uv"),
        ([(4, UV), (4, UV)], "frame_index must increase"),
    ]
    for wrong, says in frames:
        with rpc_refused(says):
            await service.sampled(wrong)


async def test_an_erased_texture_is_not_served_from_memory(service: Service) -> None:
    assert len(await service.sampled([(0, UV)])) == 1
    assert service.store.delete(service.kept)
    with rpc_refused(code="NOT_FOUND"):
        await service.sampled([(0, UV)])
