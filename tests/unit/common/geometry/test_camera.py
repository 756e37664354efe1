"""Cameras: agreement with HeadPose, pixel centres, and the way between weak perspective and pinhole."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from services.common.face.crops import HeadPose, head_poses_of, head_template, to_frame, to_head_space, weak_perspective_of
from services.common.geometry.camera import (
    Perspective,
    WeakPerspective,
    perspective_from_weak,
)

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


def test_pinhole_centre_and_depth():
    """A pinhole puts the optical axis on its centre and keeps depth."""
    camera = Perspective(np.array(800.0), np.array([319.5, 239.5]), np.eye(3), np.array([0.0, 0.0, 1000.0]))
    image = camera.project(np.array([[0.0, 0.0, 0.0], [100.0, -50.0, 0.0], [100.0, -50.0, -200.0]]))
    assert image == pytest.approx(np.array([[319.5, 239.5, 1000.0], [399.5, 199.5, 1000.0], [419.5, 189.5, 800.0]]))


def test_a_pinhole_unprojects_what_it_projects():
    weak = weak_perspective_of(POSES)
    camera = perspective_from_weak(weak, 900.0, (320.0, 240.0))
    points = head_template().astype(np.float64)
    assert camera.unproject(camera.project(points)) == pytest.approx(np.broadcast_to(points, (4, 468, 3)), abs=1e-6)


def test_cameras_agree_near_origin():
    """Both cameras agree at the origin and weakly around it."""
    weak = weak_perspective_of(POSES)
    pinhole = perspective_from_weak(weak, 5000.0, (320.0, 240.0))
    near = np.array([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0], [0.0, 10.0, 0.0], [0.0, 0.0, 10.0]])
    assert pinhole.project(near)[:, 0, :2] == pytest.approx(weak.project(near)[:, 0, :2])
    assert pinhole.project(near)[..., :2] == pytest.approx(weak.project(near)[..., :2], abs=0.1)


def test_pinhole_compensates_viewing_direction():
    """A head beside the optical axis shows the same side through a pinhole."""
    # Far to the image's right, a short lens: without the slant the nose would swing by more than a tenth of the face.
    weak = WeakPerspective(np.array([1.0]), np.eye(3)[None], np.array([[700.0, 0.0, 0.0]]))
    pinhole = perspective_from_weak(weak, 900.0, (0.0, 0.0))
    nose = np.array([[0.0, 0.0, -40.0]])
    assert pinhole.project(nose)[0, 0, 0] - 700.0 == pytest.approx(0.0, abs=1e-9)


def test_torch_cameras_project_the_same_and_have_gradients():
    weak = weak_perspective_of(POSES)
    tensors = WeakPerspective(*(torch.from_numpy(part) for part in (weak.scale, weak.rotation, weak.translation)))
    points = torch.from_numpy(head_template().astype(np.float64)).requires_grad_()
    for ours, theirs in (
        (weak, tensors),
        (perspective_from_weak(weak, 900.0, (3.0, 4.0)), perspective_from_weak(tensors, 900.0, (3.0, 4.0))),
    ):
        image = theirs.project(points)
        assert image.detach().numpy() == pytest.approx(ours.project(points.detach().numpy()))
        assert torch.autograd.grad(image.sum(), points)[0].isfinite().all()
