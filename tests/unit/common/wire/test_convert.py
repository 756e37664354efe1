"""Tests of messages: ranges of rates, times and head poses, and Tensor and Image messages with wrong contents."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from dubstage.client import to_image, to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.common.v1 import common_pb2 as pb
from services.common.errors import InvalidRequestError
from services.common.face.crops import MAX_FRAME_PX, HeadPose, check_pose_vectors, face_shape_problem, head_template, pose_vectors
from services.common.geometry.rotations import matrix_from_euler
from services.common.wire.convert import (
    from_image,
    from_tensor,
    num_frames_from_proto,
    pose_from_proto,
    pose_to_proto,
    rate_from_proto,
    timeline_from_proto,
    timeline_to_proto,
)
from services.common.wire.timeline import MAX_FRAMES, Timeline
from tests.refusals import raised

POINTS = np.arange(6, dtype=np.float32).reshape(2, 3)
POSE = HeadPose(1.5, np.asarray(matrix_from_euler(np.array([0.1, -0.2, 0.05]))), np.array([320.0, 200.0, -4.0]))
LARGEST_FLOAT = 3.4e38
LARGEST = 2**63 - 1


def refused(message: pb.Tensor, says: str, **wanted: object) -> None:
    with raised(InvalidRequestError, match=says, field="points"):
        from_tensor(message, "points", **{"dtype": np.float32, "shape": (None, 3), **wanted})  # type: ignore[arg-type]


def test_a_tensor_makes_a_round_trip() -> None:
    np.testing.assert_array_equal(from_tensor(to_tensor(POINTS), "points", dtype=np.float32, shape=(None, 3), limit=5.0), POINTS)


def test_overflowing_shape_refused() -> None:
    """A shape whose size wraps round in 64 bits is refused."""
    refused(pb.Tensor(data_type=pb.DATA_TYPE_FLOAT32, shape=[1 << 62, 3]), "needs 55340232221128654848 bytes")
    rows = (1 << 64) // 4 // 4
    refused(pb.Tensor(data_type=pb.DATA_TYPE_FLOAT32, shape=[rows, 4]), "needs", shape=(None, 4))


@pytest.mark.parametrize("shape", [[0, 3], [0, 1 << 40], [1 << 62, 0]])
def test_empty_array_or_named_error(shape: list[int]) -> None:
    """No elements at all are an array or a named error."""
    message = pb.Tensor(data_type=pb.DATA_TYPE_FLOAT32, shape=shape)
    if shape == [0, 3]:
        assert from_tensor(message, "points", dtype=np.float32, shape=(None, None)).shape == (0, 3)
    else:
        refused(message, "points: shape", shape=(None, None))


@pytest.mark.parametrize(
    ("value", "says"),
    [(np.nan, r"\[1, 2\] is not a finite number \(nan\)"), (np.inf, "inf"), (-7.5, r"is -7.5; numbers from -6 to 6")],
)
def test_number_out_of_range_names_place(value: float, says: str) -> None:
    """A number out of range is named with its place."""
    points = POINTS.copy()
    points[1, 2] = value
    refused(to_tensor(points), says, limit=6.0)


def test_invalid_bool_refused() -> None:
    """A bool that is neither 0 nor 1 is refused."""
    message = pb.Tensor(data_type=pb.DATA_TYPE_BOOL, shape=[3], data=b"\0\1\2")
    refused(message, "a byte 0 or 1", dtype=np.bool_, shape=(3,))


@pytest.mark.parametrize("encoding", [0, 2, 77])
def test_an_unknown_encoding_is_named(encoding: int) -> None:
    image = to_image(np.zeros((4, 4), np.uint8))
    image.encoding = encoding  # type: ignore[assignment]
    with raised(InvalidRequestError, match=r"expected IMAGE_ENCODING_GRAY8, got \w+", field="mask"):
        from_image(image, "mask", channels=1)


def changed(**fields: object) -> common_pb2.HeadPose:
    message = pose_to_proto(POSE)
    for name, value in fields.items():
        message.ClearField(name)  # type: ignore[arg-type]
        if isinstance(value, list):
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    return message


def test_a_pose_makes_a_round_trip() -> None:
    back = pose_from_proto(pose_to_proto(POSE), "pose")
    assert back.scale == POSE.scale
    np.testing.assert_array_equal(back.rotation, POSE.rotation)
    np.testing.assert_array_equal(back.translation, POSE.translation)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (changed(scale=value), "pose.scale")
        for value in (0.0, -1.0, 1e-300, 1e-4, 1e4, LARGEST_FLOAT, 1.7e308, float("nan"), float("inf"))
    ]
    + [(changed(translation=[0.0, value, 0.0]), "pose.translation") for value in (LARGEST_FLOAT, -1e7, float("nan"), float("-inf"))]
    + [(changed(rotation=[value] * 9), "pose.rotation") for value in (0.0, 1.0, LARGEST_FLOAT, 1e300, float("nan"))]
    + [(changed(rotation=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0]), "pose.rotation")]
    + [(changed(rotation=[1.0]), "pose"), (changed(translation=[]), "pose"), (common_pb2.HeadPose(), "pose")],
)
def test_impossible_pose_names_field(message: common_pb2.HeadPose, field: str) -> None:
    """A pose that no head has is refused with its field."""
    with np.errstate(all="raise"), pytest.raises(InvalidRequestError) as caught:
        pose_from_proto(message, "pose")
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        (0, 11.0, "pitch of frame 1 is 11, not -10 to 10"),
        (1, np.nan, "yaw of frame 1 is nan"),
        (2, np.inf, "roll of frame 1 is inf"),
        (3, 1e7, "x of frame 1 is 1e+07, not -1e+06 to 1e+06"),
        (4, -3e38, "y of frame 1 is -3e+38"),
        (5, 0.0, "scale of frame 1 is 0, not 0.001 to 1000"),
        (5, -1.0, "scale of frame 1 is -1"),
        (5, 1e4, "scale of frame 1 is 10000"),
    ],
)
def test_a_pose_vector_out_of_range_is_named(column: int, value: float, said: str) -> None:
    vectors = pose_vectors([POSE] * 3)
    check_pose_vectors(vectors, "head_poses")
    vectors[1, column] = value
    with pytest.raises(InvalidRequestError) as caught:
        check_pose_vectors(vectors, "head_poses")
    assert caught.value.message.startswith(f"head_poses: {said}")


@pytest.mark.parametrize(
    ("points", "problem"),
    [
        (head_template() * 0.0, "one place"),
        (head_template() * 0.0 + 5.0, "one place"),
        (head_template() * np.float32(1e-40), "one place"),
        (head_template() * np.array([1.0, 0.0, 0.0], np.float32), "one line"),
        (np.clip(head_template() * np.float32(1e5), -MAX_FRAME_PX, MAX_FRAME_PX), "times as large"),
        (head_template() * np.array([-1.0, -1.0, -1.0], np.float32), ""),
        (head_template() * np.array([1.0, 1.0, 0.0], np.float32), ""),
        (head_template() * 0.24 + 900.0, ""),
    ],
)
def test_points_that_are_no_face_are_told_apart(points: np.ndarray, problem: str) -> None:
    found = face_shape_problem(points)
    assert problem in found
    assert bool(problem) == bool(found)


def rational(num: int, den: int) -> common_pb2.Rational:
    return common_pb2.Rational(num=num, den=den)


def explicit(pts: list[int], num: int = 1, den: int = 1000) -> common_pb2.Timeline:
    return common_pb2.Timeline(explicit=common_pb2.FrameTimes(time_base=rational(num, den), pts=pts))


@pytest.mark.parametrize(("num", "den"), [(25, 1), (30000, 1001), (24000, 1001), (1, 3600), (1000, 1), (15, 2), (90000, 3003)])
def test_rates_of_real_footage_are_taken_exactly(num: int, den: int) -> None:
    assert rate_from_proto(rational(num, den), "rate") == Fraction(num, den)


@pytest.mark.parametrize(
    ("num", "den"),
    [
        (4611686018427387904, 1),
        (LARGEST, 1),
        (1, LARGEST),
        (25, 4611686018427387904),
        (0, 1),
        (25, 0),
        (-25, 1),
        (25, -1),
        (1001, 1),
    ],
)
def test_impossible_rate_names_field(num: int, den: int) -> None:
    """A rate that no footage has is refused with its field and value."""
    with raised(InvalidRequestError, match=f"{num}/{den}", field="frame_rate"):
        rate_from_proto(rational(num, den), "frame_rate")


@pytest.mark.parametrize(
    ("times", "says"),
    [
        (explicit([0, 40, 40]), "strictly increasing.*frame 2"),
        (explicit([0, -LARGEST]), "from time zero"),
        (explicit([0, LARGEST]), "frame 1 is shown 120 h"),
        (explicit([-LARGEST - 1, LARGEST]), "from time zero"),
        (explicit([0, 25_000_000_000_000]), "from time zero"),
        (explicit(list(range(2000)), 1, 1_000_000), "more than 1000 frames per second from frame 0"),
        (explicit([0, *range(3_000_000, 3_001_500)], 1, 1_000_000), "per second from frame 1 on"),
        (explicit([0, 1], 1, LARGEST), "time_base"),
        (explicit([0, 1], LARGEST, 1), "time_base"),
        (explicit([0, 1], 1, 0), "time_base"),
        (common_pb2.Timeline(), "give frame_rate or explicit times"),
    ],
)
def test_times_that_no_footage_has_are_refused(times: common_pb2.Timeline, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says) as caught:
        timeline_from_proto(times, "config.timeline")
    assert caught.value.field.startswith("config.timeline")


@pytest.mark.parametrize(
    ("pts", "den"),
    [
        ([-3, 0, 9], 90000),
        ([0, 1, 2, 40_000], 1000),
        (list(range(0, 90_000, 90)), 90000),
        ([5], 1),
        ([], 25),
        (list(range(1000)), 1000),
    ],
)
def test_times_of_real_footage_make_a_round_trip(pts: list[int], den: int) -> None:
    timeline = timeline_from_proto(timeline_to_proto(Timeline(pts=np.array(pts, np.int64), time_base=Fraction(1, den))), "t")
    assert timeline.pts is not None
    assert timeline.pts.tolist() == pts
    assert timeline.time_base == Fraction(1, den)


@pytest.mark.parametrize(
    ("num_frames", "timeline", "says"),
    [
        (-1, Timeline(rate=Fraction(25)), "not between 0 and"),
        (MAX_FRAMES + 1, Timeline(rate=Fraction(25)), "not between 0 and"),
        (4611686018427387904, Timeline(rate=Fraction(25)), "not between 0 and"),
        (MAX_FRAMES, Timeline(rate=Fraction(1, 3600)), "more than 120 h"),
        (4, Timeline(pts=np.arange(3)), "more than the timeline's 3 frames"),
    ],
)
def test_too_many_frames_refused(num_frames: int, timeline: Timeline, says: str) -> None:
    """More frames than a stream may have are refused."""
    with raised(InvalidRequestError, match=says, field="config.num_frames"):
        num_frames_from_proto(num_frames, timeline, "config.num_frames")


def test_maximum_frames_accepted() -> None:
    """As many frames as a stream may have are taken."""
    assert num_frames_from_proto(MAX_FRAMES, Timeline(rate=Fraction(25)), "n") == MAX_FRAMES
    assert num_frames_from_proto(0, Timeline(rate=Fraction(1, 3600)), "n") == 0
