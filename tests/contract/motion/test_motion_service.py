"""The motion stage behind a real server."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio

from dubstage.common.v1alpha1 import common_pb2
from dubstage.motion.v1alpha1 import motion_pb2 as pb
from dubstage.motion.v1alpha1.motion_pb2_grpc import MotionServiceStub
from services.common.array_types import Float32
from services.common.chassis.settings import load_settings
from services.common.chassis.stage import server_of
from services.common.face.landmarks import mouth_opening
from services.common.store.artefacts import ArtefactRef
from services.common.wire.arrays import to_tensor
from services.common.wire.artefact_messages import ref_from_proto, ref_to_proto
from services.common.wire.timeline import Timeline
from services.motion.__main__ import compose
from services.motion.constraints import WHOLE
from services.motion.convert import FeatureBlock, PredictConfig, motion_to_proto
from services.motion.features import silence
from services.motion.models import MotionModels
from services.motion.predictors.everybody.grid import EverybodyGrid
from services.motion.predictors.headpose.grid import HeadposeGrid
from services.motion.predictors.headpose.style import encode_head_style
from services.motion.predictors.ugc.grid import UgcGrid
from services.motion.settings import MotionSettings
from services.motion.stream import MotionStream
from services.motion.style import encode_style
from services.motion.types import Footage, SpeechFeatures
from tests.contract.motion.requests import block_to_proto, config_to_proto, lag_from_proto, motion_from_proto
from tests.unit.motion.synthesised import head_poses, mouths, random_features, with_identity_removed

if TYPE_CHECKING:
    from dubstage.motion.v1alpha1.motion_pb2_grpc import MotionServiceAsyncStub

PAL = Timeline(rate=Fraction(25))
Requests = AsyncIterator[pb.PredictMotionRequest]


@pytest_asyncio.fixture
async def stub(tmp_path: Path) -> AsyncIterator[MotionServiceAsyncStub]:
    settings = load_settings(MotionSettings, port=0, artefacts_url=str(tmp_path / "artefacts"))
    async with (
        server_of("motion", settings, compose(settings)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        yield MotionServiceStub(channel)


def talking(num_frames: int = 100) -> Float32:
    return mouths((5.0 + 4.0 * np.sin(np.arange(num_frames) * 0.7)).astype(np.float32))


def style_request(num_frames: int = 100, rate: int = 25) -> pb.EncodeStyleRequest:
    return pb.EncodeStyleRequest(
        method="ugc",
        mouth_landmarks=to_tensor(talking(num_frames)),
        usable=to_tensor(np.ones(num_frames, np.bool_)),
        frame_rate=common_pb2.Rational(num=rate, den=1),
    )


async def encoded(stub: MotionServiceAsyncStub) -> ArtefactRef:
    return ref_from_proto((await stub.EncodeStyle(style_request())).style, "style")


async def stream(config: pb.PredictMotionRequest, features: SpeechFeatures, cut: int = 9) -> Requests:
    yield config
    for first in range(0, len(features), cut):
        yield pb.PredictMotionRequest(features=block_to_proto(FeatureBlock(first, features[first : first + cut])))


async def predicted(stub: MotionServiceAsyncStub, config: pb.PredictMotionRequest, features: SpeechFeatures) -> Float32:
    parts = [motion_from_proto(reply) async for reply in stub.PredictMotion(stream(config, features))]
    return np.concatenate([part.mouth_landmarks for part in parts])


async def drained(replies: AsyncIterable[object]) -> None:
    async for _ in replies:
        pass


async def refusal(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_motion_over_the_wire_is_the_motion_of_the_algorithm(stub: MotionServiceAsyncStub) -> None:
    features = random_features(30)
    config = PredictConfig("ugc", await encoded(stub), PAL, 0, without_style=False)
    models = MotionModels()
    local = MotionStream(UgcGrid(models, encode_style(talking(), np.ones(100, np.bool_), models.basis, models)), PAL)
    parts = [local.push(0, features)]
    while (part := local.drain()) is not None:
        parts.append(part)
    expected = np.concatenate([part.mouth_landmarks for part in parts])
    np.testing.assert_array_equal(await predicted(stub, config_to_proto(replace(config, method="ugc")), features), expected)


async def test_first_reply_comes_before_the_stream_is_closed(stub: MotionServiceAsyncStub) -> None:
    config = config_to_proto(PredictConfig("ugc", await encoded(stub), PAL, 0, without_style=False))
    call = stub.PredictMotion()
    await call.write(config)
    await call.write(pb.PredictMotionRequest(features=block_to_proto(FeatureBlock(0, random_features(3)))))
    reply = await call.read()
    assert isinstance(reply, pb.PredictMotionResponse)
    assert [frame.frame_index for frame in reply.frames] == [0]
    await call.done_writing()


async def test_everybody_over_the_wire_is_the_motion_of_the_algorithm(stub: MotionServiceAsyncStub) -> None:
    features = with_identity_removed(random_features(30))
    config = config_to_proto(PredictConfig("everybody", await encoded(stub), PAL, 0, without_style=False))
    models = MotionModels()
    local = MotionStream(EverybodyGrid(models, encode_style(talking(), np.ones(100, np.bool_), models.basis, models)), PAL)
    parts = [local.push(0, features)]
    while (part := local.drain()) is not None:
        parts.append(part)
    for cut in (9, 30):
        got = [motion_from_proto(reply) async for reply in stub.PredictMotion(stream(config, features, cut))]
        for name in ("mouth_landmarks", "expression"):
            expected = b"".join(getattr(part, name).tobytes() for part in parts)
            assert b"".join(getattr(part, name).tobytes() for part in got) == expected


async def test_everybody_without_its_features_is_refused_by_name(stub: MotionServiceAsyncStub) -> None:
    config = config_to_proto(PredictConfig("everybody", await encoded(stub), PAL, 0, without_style=False))
    code, says = await refusal(drained(stub.PredictMotion(stream(config, random_features(9)))))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "features.identity_removed" in says


async def test_every_method_has_the_same_style(stub: MotionServiceAsyncStub) -> None:
    request = style_request()
    request.method = "everybody"
    assert ref_from_proto((await stub.EncodeStyle(request)).style, "style") == await encoded(stub)


async def test_everybody_personalises_the_style_that_ugc_goes_on_using(stub: MotionServiceAsyncStub) -> None:
    features = with_identity_removed(random_features(60))
    request = pb.PersonalizeRequest(
        method="everybody",
        style=ref_to_proto(await encoded(stub)),
        features=block_to_proto(FeatureBlock(0, features)),
        mouth_landmarks=to_tensor(talking(60)),
        usable=to_tensor(np.ones(60, np.bool_)),
    )
    *_, last = [step async for step in stub.Personalize(request)]
    refined = PredictConfig("ugc", ref_from_proto(last.style, "style"), PAL, 5, without_style=False)
    plain = PredictConfig("ugc", await encoded(stub), PAL, 5, without_style=False)
    short = features[:5]
    same = [await predicted(stub, config_to_proto(replace(config, method="ugc")), short) for config in (refined, plain)]
    np.testing.assert_array_equal(*same)
    assert (await predicted(stub, config_to_proto(replace(refined, method="everybody")), short)).shape == (5, 59, 3)


def head_request(num_frames: int = 100) -> pb.EncodeStyleRequest:
    request = style_request(num_frames)
    request.method = "headpose"
    request.head_poses.CopyFrom(to_tensor(head_poses(num_frames)))
    return request


async def encoded_head(stub: MotionServiceAsyncStub, num_frames: int = 100) -> ArtefactRef:
    return ref_from_proto((await stub.EncodeStyle(head_request(num_frames))).style, "style")


@pytest.mark.parametrize("num_frames", [100, 1])
async def test_headpose_over_the_wire_is_the_motion_of_the_algorithm(stub: MotionServiceAsyncStub, num_frames: int) -> None:
    features = random_features(30)
    config = config_to_proto(PredictConfig("headpose", await encoded_head(stub, num_frames), PAL, 0, without_style=False))
    models = MotionModels()
    usable = np.ones(num_frames, np.bool_)
    style = encode_head_style(Footage(talking(num_frames), usable, head_poses(num_frames)), models)
    local = MotionStream(HeadposeGrid(models, style), PAL)
    parts = [local.push(0, features)]
    while (part := local.drain()) is not None:
        parts.append(part)
    expected = [reply.SerializeToString() for motion in parts for reply in motion_to_proto(motion)]
    frames = [frame for reply in expected for frame in pb.PredictMotionResponse.FromString(reply).frames]
    for cut in (9, 30):
        got = [frame async for reply in stub.PredictMotion(stream(config, features, cut)) for frame in reply.frames]
        assert [frame.SerializeToString(deterministic=True) for frame in got] == [
            frame.SerializeToString(deterministic=True) for frame in frames
        ]


async def test_headpose_answers_poses_and_blinks_that_can_be_read_back(stub: MotionServiceAsyncStub) -> None:
    config = config_to_proto(PredictConfig("headpose", await encoded_head(stub), PAL, 130, without_style=False))
    parts = [motion_from_proto(reply) async for reply in stub.PredictMotion(stream(config, random_features(30)))]
    poses = np.concatenate([part.poses for part in parts if part.poses is not None])
    blink = np.concatenate([part.blink for part in parts if part.blink is not None])
    assert poses.shape == (130, 6)
    own = head_poses(100)
    assert (np.abs(poses - own.mean(axis=0)) < 4.0 * own.std(axis=0)).all()
    assert blink.max() == 1.0
    assert blink.min() == 0.0


async def test_headpose_personalises_the_style_that_ugc_goes_on_using(stub: MotionServiceAsyncStub) -> None:
    request = pb.PersonalizeRequest(
        method="headpose",
        style=ref_to_proto(await encoded_head(stub, 60)),
        features=block_to_proto(FeatureBlock(0, random_features(60))),
        mouth_landmarks=to_tensor(talking(60)),
        usable=to_tensor(np.ones(60, np.bool_)),
        head_poses=to_tensor(head_poses(60)),
    )
    *_, last = [step async for step in stub.Personalize(request)]
    refined = PredictConfig("ugc", ref_from_proto(last.style, "style"), PAL, 5, without_style=False)
    short = random_features(5)
    for method in ("headpose", "ugc"):
        assert (await predicted(stub, config_to_proto(replace(refined, method=method)), short)).shape == (5, 59, 3)
    request.ClearField("head_poses")
    code, says = await refusal(drained(stub.Personalize(request)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "head_poses" in says


@pytest.mark.parametrize("broken", ["missing", "length", "width", "nan", "scale", "type"])
async def test_broken_head_poses_are_refused_by_name(stub: MotionServiceAsyncStub, broken: str) -> None:
    poses = head_poses(100)
    request = head_request()
    if broken == "missing":
        request.ClearField("head_poses")
    else:
        wrong = {
            "length": poses[:90],
            "width": poses[:, :5],
            "nan": np.where(np.arange(6) == 2, np.nan, poses),
            "scale": poses * np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0]),
            "type": poses.astype(np.float32),
        }[broken]
        request.head_poses.CopyFrom(to_tensor(wrong))
    code, says = await refusal(stub.EncodeStyle(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "head_poses" in says


async def test_head_poses_of_frames_without_a_face_may_be_zeros(stub: MotionServiceAsyncStub) -> None:
    request, usable = head_request(), np.arange(100) < 90
    request.usable.CopyFrom(to_tensor(usable))
    whole = (await stub.EncodeStyle(request)).style
    request.head_poses.CopyFrom(to_tensor(np.where(usable[:, None], head_poses(100), 0.0)))
    assert (await stub.EncodeStyle(request)).style == whole


async def test_head_poses_change_no_style_of_another_method(stub: MotionServiceAsyncStub) -> None:
    request = head_request()
    request.method = "ugc"
    assert ref_from_proto((await stub.EncodeStyle(request)).style, "style") == await encoded(stub)


async def test_headpose_with_a_style_of_another_method_is_refused(stub: MotionServiceAsyncStub) -> None:
    config = config_to_proto(PredictConfig("headpose", await encoded(stub), PAL, 0, without_style=False))
    code, says = await refusal(drained(stub.PredictMotion(stream(config, random_features(9)))))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "head_poses" in says


async def test_footage_of_headpose_at_another_rate_is_taken(stub: MotionServiceAsyncStub) -> None:
    request = head_request(200)
    request.frame_rate.num = 50
    assert (await stub.EncodeStyle(request)).style.sha256


async def test_without_style_is_another_motion(stub: MotionServiceAsyncStub) -> None:
    config = PredictConfig("ugc", await encoded(stub), PAL, 20, without_style=False)
    features = random_features(20)
    full = await predicted(stub, config_to_proto(replace(config, method="ugc")), features)
    plain = await predicted(stub, config_to_proto(replace(config, without_style=True)), features)
    assert full.shape == plain.shape == (20, 59, 3)
    assert not np.array_equal(full, plain)


async def test_in_speech_that_is_there_as_a_whole_the_mouth_opens_before_the_sound(stub: MotionServiceAsyncStub) -> None:
    live = PredictConfig("ugc", await encoded(stub), PAL, 40, without_style=False)
    features = SpeechFeatures.joined([silence(20), random_features(20)])
    as_it_comes, whole = [
        mouth_opening(await predicted(stub, config_to_proto(config), features))
        for config in (live, replace(live, whole_speech=True))
    ]
    shut = as_it_comes[0]
    assert len(whole) == len(as_it_comes) == 40
    np.testing.assert_allclose(as_it_comes[:18], shut, atol=1e-3)
    np.testing.assert_allclose(whole[: 19 - WHOLE.frames_ahead], shut, atol=1e-3)
    assert (whole[12:18] > shut + 0.05).all()


async def test_same_footage_gives_the_same_style_artefact(stub: MotionServiceAsyncStub) -> None:
    assert await encoded(stub) == await encoded(stub)


async def test_footage_at_another_rate_is_taken(stub: MotionServiceAsyncStub) -> None:
    assert (await stub.EncodeStyle(style_request(num_frames=200, rate=50))).style.sha256


async def test_lag_has_a_score_for_every_shift(stub: MotionServiceAsyncStub) -> None:
    request = pb.EstimateLagRequest(
        features=block_to_proto(FeatureBlock(0, random_features(60))),
        mouth_landmarks=to_tensor(talking(60)),
        usable=to_tensor(np.ones(60, np.bool_)),
    )
    estimate = lag_from_proto(await stub.EstimateLag(request))
    assert estimate.scores.shape == (31,)
    assert estimate.scores.argmax() - 15 == estimate.lag_frames
    assert estimate.confidence >= 0.0


async def test_personalise_ends_with_a_style_that_can_be_used(stub: MotionServiceAsyncStub) -> None:
    style = await encoded(stub)
    request = pb.PersonalizeRequest(
        method="ugc",
        style=ref_to_proto(style),
        features=block_to_proto(FeatureBlock(0, random_features(60))),
        mouth_landmarks=to_tensor(talking(60)),
        usable=to_tensor(np.ones(60, np.bool_)),
    )
    steps = [step async for step in stub.Personalize(request)]
    assert [bool(step.style.uri) for step in steps] == [False] * (len(steps) - 1) + [True]
    refined, features = ref_from_proto(steps[-1].style, "style"), random_features(5)
    own, plain, ablated, control = [
        await predicted(stub, config_to_proto(PredictConfig("ugc", ref, PAL, 5, without_style=without)), features)
        for without in (False, True)
        for ref in (refined, style)
    ]
    assert own.shape == (5, 59, 3)
    assert not np.array_equal(own, plain)
    np.testing.assert_array_equal(ablated, control)


@pytest.mark.parametrize(
    ("field", "value"),
    [("method", "unknown"), ("feature_rate", common_pb2.Rational(num=30, den=1)), ("num_frames", -1), ("style", None)],
)
async def test_a_config_that_cannot_be_used_names_its_field(stub: MotionServiceAsyncStub, field: str, value: object) -> None:
    request = config_to_proto(PredictConfig("ugc", await encoded(stub), PAL, 0, without_style=False))
    if field == "style":
        request.config.ClearField("style")
    elif field == "feature_rate":
        request.config.feature_rate.num = 30
    else:
        setattr(request.config, field, value)
    code, details = await refusal(drained(stub.PredictMotion(stream(request, random_features(3)))))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert field in details


async def test_a_missing_style_is_not_found(stub: MotionServiceAsyncStub) -> None:
    ref = await encoded(stub)
    lost = replace(ref, uri=ref.uri.replace(ref.sha256, "0" * 64).replace(f"/{ref.sha256[:2]}/", "/00/"), sha256="0" * 64)
    config = config_to_proto(PredictConfig("ugc", lost, PAL, 0, without_style=False))
    code, _ = await refusal(drained(stub.PredictMotion(stream(config, random_features(3)))))
    assert code == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("broken", ["nan", "shape", "missing", "range", "order"])
async def test_broken_features_are_refused(stub: MotionServiceAsyncStub, broken: str) -> None:
    config = config_to_proto(PredictConfig("ugc", await encoded(stub), PAL, 0, without_style=False))
    block = block_to_proto(FeatureBlock(5 if broken == "order" else 0, random_features(3)))
    if broken == "nan":
        block.mel.CopyFrom(to_tensor(np.full((3, 4, 80), np.nan, np.float32)))
    if broken == "shape":
        block.mel.CopyFrom(to_tensor(np.zeros((3, 4, 79), np.float32)))
    if broken == "missing":
        block.ClearField("posteriorgram")
    if broken == "range":
        block.speech_probability.CopyFrom(to_tensor(np.full(3, 1.5, np.float32)))

    async def requests() -> Requests:
        yield config
        yield pb.PredictMotionRequest(features=block)

    code, details = await refusal(drained(stub.PredictMotion(requests())))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "features" in details or "frame 5" in details


async def test_sound_and_picture_of_other_lengths_are_refused(stub: MotionServiceAsyncStub) -> None:
    request = pb.EstimateLagRequest(
        features=block_to_proto(FeatureBlock(0, random_features(60))),
        mouth_landmarks=to_tensor(talking(50)),
        usable=to_tensor(np.ones(50, np.bool_)),
    )
    code, details = await refusal(stub.EstimateLag(request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "60" in details
    assert "50" in details


async def test_footage_without_a_usable_face_is_a_failed_precondition(stub: MotionServiceAsyncStub) -> None:
    request = style_request()
    request.usable.CopyFrom(to_tensor(np.zeros(100, np.bool_)))
    code, details = await refusal(stub.EncodeStyle(request))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "25 usable frames" in details
