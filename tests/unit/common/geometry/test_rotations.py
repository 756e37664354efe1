"""Rotations against scipy."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from services.common.face.crops import HeadPose
from services.common.geometry import rotations

RANDOM = np.random.default_rng(3)
VECTORS = np.concatenate(
    [
        RANDOM.normal(size=(50, 3)),
        1e-6 * RANDOM.normal(size=(5, 3)),
        np.zeros((1, 3)),
        [[np.pi, 0, 0], [0, 0, 3.1415], [0, -3.14159, 0]],
    ]
)
MATRICES = Rotation.from_rotvec(VECTORS).as_matrix()


def test_axis_angle_gives_scipys_matrices():
    assert rotations.matrix_from_axis_angle(VECTORS) == pytest.approx(MATRICES, abs=1e-12)


def test_euler_angles_match_docstring():
    """Euler angles are the composition that the docstring gives."""
    pitch, yaw, roll = 0.3, -0.5, 0.2
    x, y, z = (Rotation.from_euler(axis, angle).as_matrix() for axis, angle in zip("xyz", (pitch, -yaw, roll), strict=True))
    matrix = rotations.matrix_from_euler(np.array([pitch, yaw, roll]))
    assert matrix == pytest.approx(y @ x @ z)
    assert rotations.euler_from_matrix(matrix) == pytest.approx([pitch, yaw, roll])


def test_euler_angles_of_upright_heads():
    for angles in ([0.2, 0.4, 0.0], [-0.3, 0.0, 0.0], [0.0, -0.6, 0.0]):
        pose = HeadPose(1.0, rotations.matrix_from_euler(np.array(angles)), np.zeros(3))
        assert np.radians([pose.pitch_degrees, pose.yaw_degrees, pose.roll_degrees]) == pytest.approx(angles)
    tilted = HeadPose(1.0, rotations.matrix_from_euler(np.array([0.0, 0.0, 0.5])), np.zeros(3))
    assert np.radians(tilted.roll_degrees) == pytest.approx(0.5)


def test_nearest_rotation_equals_scipy():
    """The nearest rotation is SciPy's and proper even for a reflection."""
    noisy = MATRICES + 0.1 * RANDOM.normal(size=MATRICES.shape)
    assert rotations.nearest_rotation(noisy) == pytest.approx(Rotation.from_matrix(noisy).as_matrix(), abs=1e-6)
    assert np.linalg.det(rotations.nearest_rotation(-MATRICES)) == pytest.approx(np.ones(len(MATRICES)))


def test_geodesic_angle_extremes():
    """The geodesic angle is exact for tiny and for half turns."""
    angles = np.array([0.0, 1e-9, 1e-4, 1.0, np.pi / 2, np.pi])
    turned = Rotation.from_rotvec(angles[:, None] * np.array([0.6, 0.0, 0.8])).as_matrix() @ MATRICES[0]
    assert rotations.geodesic_angle(turned, np.broadcast_to(MATRICES[0], turned.shape)) == pytest.approx(
        angles, rel=1e-6, abs=1e-12
    )
