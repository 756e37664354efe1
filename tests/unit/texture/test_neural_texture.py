"""Features for a stream of UV maps or target mouths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.common.errors import InvalidRequestError
from services.common.face.crops import HeadPose
from services.common.face.landmarks import MOUTH_AREA
from services.common.face.neural_texture import TEXTURE_SHAPE, NeuralSurface, sample
from services.texture.neural_texture import TextureStream
from services.texture.types import SampledFrame, TargetFrame, UvFrame
from tests.refusals import raised
from tests.unit.texture.people import HEAD, MODEL, POSE, a_person, turned

TEXTURE = np.random.default_rng(4).integers(0, 256, TEXTURE_SHAPE).astype(np.uint8)
SURFACE = NeuralSurface(a_person(), MODEL)


def target(number: int) -> TargetFrame:
    mouth = HEAD[list(MOUTH_AREA)].copy()
    mouth[mouth[:, 1] > 0, 1] += 3.0 * number
    return TargetFrame(number, mouth, HeadPose(1.2, turned(yaw=3.0 * number), POSE.translation))


def features(frame: UvFrame | TargetFrame) -> np.ndarray:
    """The frame's answer in a stream of its own."""
    found = TextureStream(TEXTURE, SURFACE).push(frame)
    assert isinstance(found, SampledFrame)
    return found.features


def test_target_answered_with_uv_map() -> None:
    """A target is answered with its own UV map."""
    frame = target(2)
    uv = SURFACE.uv_of(SURFACE.expression_of(frame.mouth), frame.pose)
    np.testing.assert_array_equal(features(frame), sample(TEXTURE, uv))
    np.testing.assert_array_equal(features(frame), features(UvFrame(9, uv)))
    assert features(frame).any(-1).mean() > 0.4


def test_frame_independent_of_neighbours() -> None:
    """A frame does not depend on the frames around."""
    stream = TextureStream(TEXTURE, SURFACE)
    for number in (0, 1, 5):
        found = stream.push(target(number))
        assert isinstance(found, SampledFrame)
        assert found.frame_index == number
        np.testing.assert_array_equal(found.features, features(target(number)))


def test_a_context_frame_has_no_answer() -> None:
    stream = TextureStream(TEXTURE, SURFACE)
    assert stream.push(replace(target(0), context_only=True)) is None
    assert stream.push(target(1)) is not None


@pytest.mark.parametrize(
    ("last", "field"), [(target(3), "target.frame_index"), (UvFrame(2, np.zeros((4, 4, 2), np.float32)), "uv.frame_index")]
)
def test_frames_come_in_order_of_either_kind(last: UvFrame | TargetFrame, field: str) -> None:
    stream = TextureStream(TEXTURE, SURFACE)
    stream.push(target(3))
    with raised(InvalidRequestError, match="frame_index must increase", field=field):
        stream.push(last)


def test_no_identity_only_uv_maps() -> None:
    """A stream without an identity takes UV maps only."""
    stream = TextureStream(TEXTURE, None)
    found = stream.push(UvFrame(0, np.full((3, 5, 2), 0.5, np.float32)))
    assert isinstance(found, SampledFrame)
    assert found.features.shape == (3, 5, 16)
    with pytest.raises(InvalidRequestError, match=r"config\.identity is missing"):
        stream.push(target(1))
