"""Tests of head poses and of the view that the crop shows."""

from __future__ import annotations

import numpy as np
import pytest

from services.common.face.crops import HeadPose, without_tilt
from services.common.geometry.rotations import matrix_from_euler

NO_TURN = np.zeros(3)


def tilted(degrees: float) -> np.ndarray:
    return np.asarray(matrix_from_euler(np.array([0.0, 0.0, np.radians(degrees)])))


@pytest.mark.parametrize(("pitch", "yaw"), [(0.0, 0.0), (20.0, 0.0), (0.0, -53.0), (-15.0, 40.0)])
@pytest.mark.parametrize("tilt", [0.0, 30.0, -45.0, 90.0, 170.0])
def test_angles_of_tilted_heads(pitch: float, yaw: float, tilt: float) -> None:
    """A head that is tilted in the picture, or lies, is turned and nodded as the same head is upright."""
    upright = np.asarray(matrix_from_euler(np.radians([pitch, yaw, 0.0])))
    pose = HeadPose(1.0, tilted(tilt) @ upright, NO_TURN)
    assert (pose.pitch_degrees, pose.yaw_degrees, pose.roll_degrees) == pytest.approx((pitch, yaw, tilt), abs=1e-9)
    assert without_tilt(pose.rotation) == pytest.approx(upright)


def test_profile_shows_no_tilt() -> None:
    profile = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert HeadPose(1.0, profile, NO_TURN).yaw_degrees == pytest.approx(90.0)
    assert without_tilt(np.stack([profile, np.eye(3)])) == pytest.approx(np.stack([profile, np.eye(3)]))
