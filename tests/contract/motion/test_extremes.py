"""Requests of the motion stage at the ends of what it takes, and beyond."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
from google.protobuf.message import Message

from dubstage.audio.v1 import audio_pb2
from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2 as pb
from dubstage.motion.v1.motion_pb2_grpc import MotionServiceStub
from services.common.methods import PREDICTORS
from services.common.server.process import server_of
from services.common.server.settings import load_settings
from services.common.store.artefacts import ArtefactStore
from services.common.wire.convert import ref_from_proto, ref_to_proto
from services.motion.__main__ import compose
from services.motion.convert import FeatureBlock
from services.motion.settings import MotionSettings
from services.motion.types import EXTRA_FEATURES
from tests.contract.finite import finite_or_refused, idle_within
from tests.contract.motion.calls import seen, talking
from tests.contract.motion.requests import block_to_proto
from tests.refusals import rpc_refused
from tests.unit.motion.synthesised import head_poses, random_features, with_identity_removed, with_states

FRAMES = 60
HUGE = 4611686018427387904
METHODS = ("dubstage", "dubstage_live", "portrait", "ugc", "everybody", "headpose")
PAL = common_pb2.Timeline(frame_rate=common_pb2.Rational(num=25, den=1))
MOUTHS = talking(FRAMES)
LARGEST = 3.4028235e38
MANY_POINTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda points: points,
    "zeros": lambda points: points * 0,
    "one place": lambda points: points * 0 + np.float32(5.0),
    "still": lambda points: np.broadcast_to(points[:1], points.shape),
    "the largest that are taken": lambda points: np.where(points > points.mean(), 1e4, -1e4),
    "denormals": lambda points: points * np.float32(1e-44),
    "one far out": lambda points: np.concatenate([points[:1] * 0 - np.float32(1e4), points[1:]]),
    "beyond": lambda points: points * 0 - np.float32(1e30),
    "the largest float": lambda points: points * 0 + np.float32(LARGEST),
    "no numbers": lambda points: points * np.float32(np.nan),
}
REFUSED = {"beyond", "the largest float", "no numbers"}
SHUT = {"zeros", "one place", "denormals"}
"""Points of a mouth that never opens, which has no lag."""


@dataclass
class Service:
    stub: Any
    store: ArtefactStore

    async def style(self, method: str, points: np.ndarray = MOUTHS, poses: np.ndarray | None = None) -> list[Any]:
        heads = to_tensor(head_poses(len(points)) if poses is None else poses)
        mouths = seen(points.astype(np.float32))
        request = pb.EncodeStyleRequest(method=method, frame_rate=PAL.frame_rate, head_poses=heads, **mouths)
        return [await self.stub.EncodeStyle(request, timeout=60)]

    async def motion(self, config: pb.PredictMotionConfig, block: audio_pb2.AudioFeatureBlock) -> list[pb.PredictMotionResponse]:
        requests = [pb.PredictMotionRequest(config=config), pb.PredictMotionRequest(features=block)]
        return [reply async for reply in self.stub.PredictMotion(requests, timeout=60)]

    async def refined(self, request: pb.PersonalizeRequest) -> list[pb.PersonalizeResponse]:
        return [reply async for reply in self.stub.Personalize(request, timeout=60)]


async def one(answer: Any) -> list[Message]:
    return [await answer]


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    settings = load_settings(MotionSettings, port=0, artefacts_url=str(tmp_path))
    async with server_of("motion", settings, compose(settings)) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield Service(MotionServiceStub(channel), ArtefactStore(str(tmp_path)))


def block(frames: int = 6, **changes: Callable[[np.ndarray], np.ndarray]) -> audio_pb2.AudioFeatureBlock:
    features = with_states(with_identity_removed(random_features(frames)), "speech_states", "speech_states_live")
    message = block_to_proto(FeatureBlock(0, features))
    for name, change in changes.items():
        given = features.extra[name] if name in features.extra else getattr(features, name)
        getattr(message, name).CopyFrom(to_tensor(change(given).astype(np.float32)))
    return message


def asked(method: str, style: common_pb2.ArtefactRef, **fields: object) -> pb.PredictMotionConfig:
    given = {"method": method, "style": style, "feature_rate": PAL.frame_rate, "output_timeline": PAL, **fields}
    return pb.PredictMotionConfig(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
async def test_styles_and_motion_of_any_mouths_are_finite(service: Service, method: str) -> None:
    for name, change in MANY_POINTS.items():
        answer = service.style(method, change(MOUTHS))
        if name in REFUSED:
            assert not await finite_or_refused(answer), name
            continue
        (made,) = await answer
        assert await finite_or_refused(service.motion(asked(method, made.style), block())), name


async def test_extreme_head_styles(service: Service) -> None:
    """Head styles of any poses are finite or refused."""
    poses = head_poses(FRAMES)
    for column, value, taken in (
        (0, 9.9, True),
        (1, 1e30, False),
        (3, -1e6, True),
        (4, 3e38, False),
        (5, 1e3, True),
        (5, 0.0, False),
    ):
        changed = poses.copy()
        changed[10:, column] = value
        answer = service.style("headpose", MOUTHS, changed)
        if not taken:
            assert not await finite_or_refused(answer)
            continue
        (made,) = await answer
        assert await finite_or_refused(service.motion(asked("headpose", made.style), block()))


@pytest.mark.parametrize("method", METHODS)
async def test_motion_of_any_features_is_finite(service: Service, method: str) -> None:
    (made,) = await service.style(method)
    heard = {"mel", "posteriorgram", "speech_probability", *PREDICTORS[method].tensors}
    for name in ("mel", "posteriorgram", "speech_probability", *EXTRA_FEATURES.keys() - {"mfcc"}):
        for value, taken in (
            (0.0, True),
            (1.0, True),
            (1e-44, True),
            (1e3, "prob" not in name and name != "posteriorgram"),
            (1e4, False),
        ):
            changed = block(**{name: lambda array, value=value: array * 0 + np.float32(value)})
            unused = name not in heard
            answered = await finite_or_refused(service.motion(asked(method, made.style), changed))
            assert answered == (taken or unused), (name, value)


@pytest.mark.parametrize(("num", "den"), [(25, HUGE), (HUGE, 1), (1, 2 * HUGE - 1), (25, 0), (-25, 1)])
async def test_invalid_frame_rate_refused(service: Service, num: int, den: int) -> None:
    request = pb.EncodeStyleRequest(method="ugc", frame_rate=common_pb2.Rational(num=num, den=den), **seen(MOUTHS))
    with rpc_refused(match="frame_rate"):
        await service.stub.EncodeStyle(request, timeout=60)
    request.frame_rate.num, request.frame_rate.den = 1, 3600
    with pytest.raises(grpc.aio.AioRpcError, match="last 216000 s; at most 3600 s"):
        await service.stub.EncodeStyle(request, timeout=60)


async def test_lags_of_any_clip_are_finite(service: Service) -> None:
    for name, change in MANY_POINTS.items():
        request = pb.EstimateLagRequest(features=block(FRAMES), **seen(change(MOUTHS).astype(np.float32)))
        assert await finite_or_refused(one(service.stub.EstimateLag(request, timeout=60))) == (name not in REFUSED | SHUT), name
    for feature in ("mel", "speech_states"):
        for value in (0.0, 1e3, -1e3):
            flat = block(FRAMES, **{feature: lambda array, value=value: array * 0 + np.float32(value)})
            request = pb.EstimateLagRequest(features=flat, **seen(MOUTHS))
            assert await finite_or_refused(one(service.stub.EstimateLag(request, timeout=60)))


@pytest.mark.parametrize("method", METHODS)
async def test_personalisations_of_any_mouths_are_finite(service: Service, method: str) -> None:
    (made,) = await service.style(method)
    for name in ("the largest that are taken", "still", "beyond"):
        poses, mouths = to_tensor(head_poses(FRAMES)), seen(MANY_POINTS[name](MOUTHS).astype(np.float32))
        request = pb.PersonalizeRequest(method=method, style=made.style, features=block(FRAMES), head_poses=poses, **mouths)
        assert await finite_or_refused(service.refined(request)) == (name not in REFUSED), name


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mean_mouth", lambda array: array + np.float32(np.nan)),
        ("rest_mouth", lambda array: array + np.float32(1e30)),
        ("closed_mouth", lambda array: array[:3]),
        ("spread", lambda array: array * 0),
        ("spread", lambda array: array.astype(np.int32)),
        ("modulation", lambda array: array + np.float32(LARGEST)),
        ("pose_reference", lambda array: array * 0),
        ("pose_quantiles", lambda array: array[:, ::-1]),
        ("pose_quantiles", lambda array: array * np.float32(1e5)),
        ("pose_mixing", lambda array: array * 0),
        ("pose_steps", lambda array: array + np.float32(np.inf)),
    ],
)
async def test_a_damaged_style_is_refused(service: Service, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    (made,) = await service.style("headpose")
    kept = service.store.get_arrays(ref_from_proto(made.style, "style"))
    damaged = service.store.put_arrays({**kept.arrays, name: change(kept[name])}, kept.metadata)
    with rpc_refused(match="style", field="config.style"):
        await service.motion(asked("headpose", ref_to_proto(damaged)), block())


async def test_references_that_are_none_are_refused(service: Service) -> None:
    (made,) = await service.style("ugc")
    for changes in (
        {"uri": "file://[x"},
        {"uri": "x" * 10_000},
        {"uri": "file:///a\0b"},
        {"sha256": "no digest"},
        {"sha256": "0" * 64},
        {"size_bytes": -1},
        {"size_bytes": 7},
        {"size_bytes": HUGE},
    ):
        ref = common_pb2.ArtefactRef()
        ref.CopyFrom(made.style)
        for name, value in changes.items():
            setattr(ref, name, value)
        with rpc_refused(field=f"config.style.{next(iter(changes))}"):
            await service.motion(asked("ugc", ref), block())


async def test_many_frames_do_not_pile_up(service: Service) -> None:
    (made,) = await service.style("ugc")
    fast = common_pb2.Timeline(frame_rate=common_pb2.Rational(num=1000, den=1))
    replies = await service.motion(asked("ugc", made.style, output_timeline=fast), block(50))
    assert sum(len(reply.frames) for reply in replies) == 2000
    assert [frame.frame_index for reply in replies for frame in reply.frames] == list(range(2000))


async def test_a_gap_of_hours_ends_with_its_call(service: Service) -> None:
    (made,) = await service.style("ugc")
    times = common_pb2.FrameTimes(time_base=common_pb2.Rational(num=1, den=1), pts=[0, 100 * 3600])
    config = asked("ugc", made.style, output_timeline=common_pb2.Timeline(explicit=times), num_frames=2)
    requests = [pb.PredictMotionRequest(config=config), pb.PredictMotionRequest(features=block())]
    call = service.stub.PredictMotion(requests, timeout=600)
    await call.read()
    await asyncio.sleep(0.5)
    call.cancel()
    assert await idle_within(60.0), "the work for a call that is over goes on"
