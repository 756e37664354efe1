"""Head poses that a request may have."""

from __future__ import annotations

import numpy as np
import pytest

from dubstage.common.v1alpha1 import common_pb2
from services.common.errors import InvalidRequest
from services.common.face.crops import MAX_FRAME_PX, HeadPose, face_shape_problem, head_template
from services.common.face.head_pose_vectors import check_pose_vectors, pose_vectors
from services.common.geometry.rotations import matrix_from_euler
from services.common.wire.pose_messages import pose_from_proto, pose_to_proto

POSE = HeadPose(1.5, np.asarray(matrix_from_euler(np.array([0.1, -0.2, 0.05]))), np.array([320.0, 200.0, -4.0]))
LARGEST = 3.4e38


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
    [(changed(scale=value), "pose.scale") for value in (0.0, -1.0, 1e-300, 1e-4, 1e4, LARGEST, 1.7e308, float("nan"), float("inf"))]
    + [(changed(translation=[0.0, value, 0.0]), "pose.translation") for value in (LARGEST, -1e7, float("nan"), float("-inf"))]
    + [(changed(rotation=[value] * 9), "pose.rotation") for value in (0.0, 1.0, LARGEST, 1e300, float("nan"))]
    + [(changed(rotation=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0]), "pose.rotation")]
    + [(changed(rotation=[1.0]), "pose"), (changed(translation=[]), "pose"), (common_pb2.HeadPose(), "pose")],
)
def test_a_pose_that_no_head_has_is_refused_with_its_field(message: common_pb2.HeadPose, field: str) -> None:
    with np.errstate(all="raise"), pytest.raises(InvalidRequest) as caught:
        pose_from_proto(message, "pose")
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("column", "value"), [(0, 11.0), (1, np.nan), (2, np.inf), (3, 1e7), (4, -3e38), (5, 0.0), (5, -1.0), (5, 1e4)]
)
def test_a_pose_vector_out_of_range_is_named(column: int, value: float) -> None:
    vectors = pose_vectors([POSE] * 3)
    check_pose_vectors(vectors, "head_poses")
    vectors[1, column] = value
    with pytest.raises(InvalidRequest, match=r"head_poses: .* of frame 1 is"):
        check_pose_vectors(vectors, "head_poses")


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
