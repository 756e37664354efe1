"""EncodeStyle with landmarks of the upper face."""

import numpy as np
import pytest

from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2 as pb
from services.common.face.landmarks import NUM_UPPER
from tests.refusals import rpc_refused
from tests.unit.motion.synthesised import mouths

FRAMES = 60
UPPER = np.random.default_rng(0).normal(0.0, 40.0, (FRAMES, NUM_UPPER, 3)).astype(np.float32)


def request(method: str, upper: np.ndarray | None, rate: int = 25) -> pb.EncodeStyleRequest:
    opening = 5.0 + 4.0 * np.sin(np.arange(FRAMES) * 0.7)
    return pb.EncodeStyleRequest(
        method=method,
        mouth_landmarks=to_tensor(mouths(opening.astype(np.float32))),
        usable=to_tensor(np.ones(FRAMES, np.bool_)),
        frame_rate=common_pb2.Rational(num=rate, den=1),
        pose_landmarks=None if upper is None else to_tensor(upper),
    )


async def style(stub, method: str, upper: np.ndarray | None, rate: int = 25) -> str:
    return (await stub.EncodeStyle(request(method, upper, rate))).style.sha256


async def test_pose_landmarks_change_style(stub) -> None:
    """A predictor that knows pose landmarks makes another style of them."""
    assert await style(stub, "hetero", UPPER) != await style(stub, "hetero", None)
    assert await style(stub, "hetero", UPPER, rate=50)


async def test_a_predictor_without_use_for_them_ignores_them(stub) -> None:
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
