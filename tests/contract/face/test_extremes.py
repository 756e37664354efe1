"""Requests of the face stage at the ends of what it takes, and beyond."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
from skimage.data import astronaut

from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2 as pb
from dubstage.face.v1.face_pb2_grpc import FaceServiceStub
from services.common.server.process import server_of
from services.common.server.settings import load_settings
from services.common.wire.convert import from_tensor
from services.face.__main__ import compose
from services.face.settings import FaceSettings
from tests.contract.face.requests import picture_to_proto
from tests.contract.finite import finite_or_refused
from tests.refusals import rpc_refused

PHOTOGRAPH = np.ascontiguousarray(astronaut()[:320:2, 60:400:2])
CONFIG = pb.TrackRequest(config=pb.TrackConfig(max_faces=1, smoothing_half_width=0))
LARGEST = 3.4028235e38
Change = Callable[[np.ndarray], np.ndarray]
NO_FACES: dict[str, Change] = {
    "zeros": lambda points: points * 0,
    "one place": lambda points: points * 0 + np.float32(80.0),
    "one line": lambda points: points * np.array([1, 0, 0], np.float32),
    "denormals": lambda points: points * np.float32(1e-44),
    "too large": lambda points: points * np.float32(5e3),
    "beyond": lambda points: points * 0 - np.float32(1e30),
    "the largest float": lambda points: points * 0 + np.float32(LARGEST),
    "no numbers": lambda points: points * np.float32(np.nan),
}
ODD_FACES: dict[str, Change] = {
    "one far out": lambda points: np.concatenate([points[:1] * 0 - np.float32(1e6), points[1:]]),
    "tiny": lambda points: points * np.float32(0.01),
    "noise": lambda points: np.random.default_rng(1).normal(0.0, 500.0, points.shape),
}


@dataclass
class Service:
    stub: Any
    face: pb.FaceTrack

    async def tracked(self, requests: list[pb.TrackRequest]) -> list[pb.TrackResponse]:
        return [reply async for reply in self.stub.Track(requests, timeout=60)]

    async def fitted(self, *faces: pb.FaceTrack) -> list[pb.FitIdentityResponse]:
        image = picture_to_proto(0, PHOTOGRAPH).frame.image
        frames = [pb.FitIdentityRequest(frame=pb.FitIdentityFrame(image=image, face=face)) for face in faces]
        config = pb.FitIdentityRequest(config=pb.FitIdentityConfig())
        return [await self.stub.FitIdentity([config, *frames], timeout=120)]

    def with_points(self, change: Change) -> pb.FaceTrack:
        face = pb.FaceTrack()
        face.CopyFrom(self.face)
        points = from_tensor(face.landmarks, "landmarks", dtype=np.float32, shape=(478, 3))
        face.landmarks.CopyFrom(to_tensor(change(points).astype(np.float32)))
        return face


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    settings = load_settings(FaceSettings, port=0, artefacts_url=str(tmp_path))
    async with server_of("face", settings, compose(settings)) as server, grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = FaceServiceStub(channel)
        seen = [reply async for reply in stub.Track([CONFIG, picture_to_proto(0, PHOTOGRAPH)])]
        yield Service(stub, seen[0].frames[0].faces[0])


async def test_pictures_of_every_size(service: Service) -> None:
    """Pictures of every size are answered with finite numbers, but for those with too long a side."""
    for height, width in ((1, 1), (1, 16_384), (16_384, 1), (2, 3), (16, 16), (3000, 17), (1000, 1500)):
        noise = np.random.default_rng(height).integers(0, 255, (height, width, 3)).astype(np.uint8)
        requests = [CONFIG, picture_to_proto(0, noise), picture_to_proto(1, noise[::-1])]
        assert await finite_or_refused(service.tracked(requests)), (height, width)
    for size in ((1, 100_000), (100_000, 1), (1, 16_385)):
        with pytest.raises(grpc.aio.AioRpcError, match=r"frame.image") as caught:
            await service.tracked([CONFIG, picture_to_proto(0, np.zeros((*size, 3), np.uint8))])
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, size
    for crop in (PHOTOGRAPH[:, 60:110], PHOTOGRAPH[40:60], PHOTOGRAPH[30:90, 60:120]):
        config = pb.TrackRequest(config=pb.TrackConfig(max_faces=8, morphable_model="mediapipe_468"))
        requests = [config, *(picture_to_proto(index, np.ascontiguousarray(crop)) for index in range(3))]
        assert await finite_or_refused(service.tracked(requests))


async def test_points_of_odd_faces(service: Service) -> None:
    """Points that are no face are refused with their field, and an identity of odd points is finite or refused."""
    for name, change in NO_FACES.items():
        with np.errstate(all="ignore"):
            face = service.with_points(change)
        with pytest.raises(grpc.aio.AioRpcError, match=r"face.landmarks") as caught:
            await service.fitted(face)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, name
    for change in ODD_FACES.values():
        await finite_or_refused(service.fitted(service.with_points(change)))


async def test_a_pose_that_no_head_has_is_refused(service: Service) -> None:
    changes: list[tuple[str, Any]] = [
        ("scale", 0.0),
        ("scale", 1e300),
        ("rotation", [1.0] * 9),
        ("translation", [3e38, 0.0, 0.0]),
        ("translation", []),
    ]
    for name, value in changes:
        face = pb.FaceTrack()
        face.CopyFrom(service.face)
        face.pose.ClearField(name)  # type: ignore[arg-type]
        if isinstance(value, list):
            getattr(face.pose, name).extend(value)
        else:
            setattr(face.pose, name, value)
        with pytest.raises(grpc.aio.AioRpcError, match=r"face.pose") as caught:
            await service.fitted(face)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, (name, value)


async def test_a_timeline_that_there_is_not_is_refused(service: Service) -> None:
    config = pb.TrackRequest(config=pb.TrackConfig(max_faces=1))
    config.config.timeline.frame_rate.CopyFrom(common_pb2.Rational(num=4611686018427387904, den=1))
    with rpc_refused(match=r"config\.timeline"):
        await service.tracked([config])
