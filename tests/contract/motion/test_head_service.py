"""The motion stage over the wire: heads that move with the speech, and styles from poses and pose landmarks."""

from dataclasses import replace

import numpy as np
import pytest

from dubstage.client import to_tensor
from dubstage.motion.v1 import motion_pb2 as pb
from services.common.face.landmarks import NUM_UPPER
from services.common.wire.convert import ref_from_proto, ref_to_proto
from services.motion.convert import PredictConfig, motion_to_proto
from services.motion.head_network import encode_head_style
from services.motion.models import MotionModels
from services.motion.predictors.headpose.predictor import HeadposePredictor
from services.motion.predictors.portrait.predictor import PortraitPredictor
from services.motion.types import Footage
from tests.contract.motion.calls import (
    PAL,
    drained,
    encoded,
    encoded_head,
    head_request,
    heard,
    predicted,
    seen,
    stream,
    streamed,
    style_request,
    talking,
)
from tests.contract.motion.requests import config_to_proto, motion_from_proto
from tests.refusals import rpc_refused
from tests.unit.motion.synthesised import head_poses, random_features, with_states


@pytest.mark.parametrize("num_frames", [100, 1])
@pytest.mark.parametrize(("name", "predictor"), [("headpose", HeadposePredictor), ("portrait", PortraitPredictor)])
async def test_head_wire_equals_algorithm(stub, name, predictor, num_frames) -> None:
    """Mouth and head over the wire are the motion of the algorithm."""
    features = with_states(random_features(30), "speech_states")
    config = config_to_proto(PredictConfig(name, await encoded_head(stub, num_frames), PAL, 0))
    models = MotionModels()
    usable = np.ones(num_frames, np.bool_)
    style = encode_head_style(Footage(talking(num_frames), usable, head_poses(num_frames)), models)
    parts = streamed(predictor(models, style), features)
    expected = [reply.SerializeToString() for motion in parts for reply in motion_to_proto(motion)]
    frames = [frame for reply in expected for frame in pb.PredictMotionResponse.FromString(reply).frames]
    for cut in (9, 30):
        assert [frame async for reply in stub.PredictMotion(stream(config, features, cut)) for frame in reply.frames] == frames


@pytest.mark.parametrize(("num", "den"), [(50, 1), (30000, 1001), (12, 1), (1, 1)])
async def test_picture_style_ignores_rate(stub, num: int, den: int) -> None:
    """A picture has one style whatever rate it is said to have."""
    request = head_request(1)
    request.frame_rate.num, request.frame_rate.den = num, den
    assert (await stub.EncodeStyle(request)).style == (await stub.EncodeStyle(head_request(1))).style


async def test_headpose_poses_and_blinks_readable(stub) -> None:
    """Headpose answers poses and blinks that can be read back."""
    config = config_to_proto(PredictConfig("headpose", await encoded_head(stub), PAL, 130))
    requests = stream(config, with_states(random_features(30), "speech_states"))
    parts = [motion_from_proto(reply) async for reply in stub.PredictMotion(requests)]
    poses = np.concatenate([part.poses for part in parts if part.poses is not None])
    blink = np.concatenate([part.blink for part in parts if part.blink is not None])
    assert poses.shape == (130, 6)
    own = head_poses(100)
    assert (np.abs(poses - own.mean(axis=0)) < 4.0 * own.std(axis=0)).all()
    assert blink.max() == 1.0
    assert blink.min() == 0.0


async def test_headpose_personalises_style_for_ugc(stub) -> None:
    style, sound = ref_to_proto(await encoded_head(stub, 60)), heard(with_states(random_features(60), "speech_states"))
    poses = to_tensor(head_poses(60))
    request = pb.PersonalizeRequest(method="headpose", style=style, features=sound, head_poses=poses, **seen(talking(60)))
    *_, last = [step async for step in stub.Personalize(request)]
    refined = PredictConfig("ugc", ref_from_proto(last.style, "style"), PAL, 5)
    short = with_states(random_features(5), "speech_states")
    for method in ("headpose", "ugc"):
        assert (await predicted(stub, config_to_proto(replace(refined, method=method)), short)).shape == (5, 59, 3)
    request.ClearField("head_poses")
    with rpc_refused("head_poses"):
        await drained(stub.Personalize(request))


@pytest.mark.parametrize("broken", ["missing", "length", "width", "nan", "scale", "type"])
async def test_broken_head_poses_are_refused_by_name(stub, broken: str) -> None:
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
    with rpc_refused("head_poses"):
        await stub.EncodeStyle(request)


async def test_head_poses_of_footage(stub) -> None:
    """Footage may have another rate, and zeros for frames without a face; a method without use for poses ignores them."""
    request, usable = head_request(), np.arange(100) < 90
    request.usable.CopyFrom(to_tensor(usable))
    whole = (await stub.EncodeStyle(request)).style
    request.head_poses.CopyFrom(to_tensor(np.where(usable[:, None], head_poses(100), 0.0)))
    assert (await stub.EncodeStyle(request)).style == whole
    request = head_request()
    request.method = "ugc"
    assert ref_from_proto((await stub.EncodeStyle(request)).style, "style") == await encoded(stub)
    request = head_request(200)
    request.frame_rate.num = 50
    assert (await stub.EncodeStyle(request)).style.sha256


async def test_headpose_refuses_foreign_style(stub) -> None:
    config = config_to_proto(PredictConfig("headpose", await encoded(stub), PAL, 0))
    with rpc_refused("head_poses"):
        await drained(stub.PredictMotion(stream(config, with_states(random_features(9), "speech_states"))))


FRAMES = 60
UPPER = np.random.default_rng(0).normal(0.0, 40.0, (FRAMES, NUM_UPPER, 3)).astype(np.float32)


def request(method: str, upper: np.ndarray | None, rate: int = 25) -> pb.EncodeStyleRequest:
    asked = style_request(FRAMES, rate, method)
    if upper is not None:
        asked.pose_landmarks.CopyFrom(to_tensor(upper))
    return asked


async def style(stub, method: str, upper: np.ndarray | None, rate: int = 25) -> str:
    return (await stub.EncodeStyle(request(method, upper, rate))).style.sha256


async def test_pose_landmarks_change_style(stub) -> None:
    """A predictor that knows pose landmarks makes another style of them; another predictor ignores them."""
    assert await style(stub, "hetero", UPPER) != await style(stub, "hetero", None)
    assert await style(stub, "hetero", UPPER, rate=50)
    assert await style(stub, "ugc", UPPER) == await style(stub, "ugc", None)


@pytest.mark.parametrize(
    "upper",
    [
        pytest.param(UPPER[:-1], id="other frames than the mouths"),
        pytest.param(UPPER[:, :-1], id="a point too few"),
        pytest.param(UPPER.astype(np.float64), id="another type"),
        pytest.param(np.full_like(UPPER, np.nan), id="not finite"),
        pytest.param(np.full_like(UPPER, 1e9), id="out of range"),
    ],
)
async def test_bad_pose_landmarks_are_refused_by_name(stub, upper: np.ndarray) -> None:
    with rpc_refused("pose_landmarks"):
        await stub.EncodeStyle(request("hetero", upper))
