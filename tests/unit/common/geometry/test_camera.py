"""The camera: agreement with HeadPose."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from services.common.face.crops import HeadPose, head_poses_of, head_template, to_frame, to_head_space, weak_perspective_of

RANDOM = np.random.default_rng(5)
POSES = [
    HeadPose(1.3 + 0.1 * t, Rotation.from_euler("yx", [0.1 * t, 0.2]).as_matrix(), np.array([300.0 + t, 200.0, 5.0]))
    for t in range(4)
]


def test_weak_perspective_equals_head_pose():
    """Weak perspective projects and unprojects as head poses do."""
    camera = weak_perspective_of(POSES)
    image = camera.project(head_template().astype(np.float64))
    for t, pose in enumerate(POSES):
        assert image[t] == pytest.approx(to_frame(head_template(), pose), abs=1e-3)
        assert camera.unproject(image)[t] == pytest.approx(to_head_space(image[t], pose), abs=1e-3)


def test_head_poses_come_back_from_the_camera():
    back = head_poses_of(weak_perspective_of(POSES))
    assert [pose.scale for pose in back] == [pose.scale for pose in POSES]
    assert all(np.array_equal(a.rotation, b.rotation) for a, b in zip(back, POSES, strict=True))
