"""Alignments against transformations that are known, and against the head pose of the crops."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from services.common.face.crops import fit_head_pose, head_template
from services.common.face.landmarks import STABLE
from services.common.geometry.alignment import fit_weak_perspective, similarity
from services.common.geometry.camera import WeakPerspective

RANDOM = np.random.default_rng(11)
HEAD = head_template().astype(np.float64)


def cameras(count=6):
    rotation = Rotation.from_rotvec(0.4 * RANDOM.normal(size=(count, 3))).as_matrix()
    return WeakPerspective(RANDOM.uniform(0.5, 3, count), rotation, RANDOM.uniform(-300, 300, (count, 3)))


def test_a_known_similarity_is_found_for_every_frame():
    true = cameras()
    found = similarity(HEAD, true.project(HEAD))
    assert found.scale == pytest.approx(true.scale)
    assert found.rotation == pytest.approx(true.rotation)
    assert found.apply(HEAD) == pytest.approx(true.project(HEAD), abs=1e-6)


def test_a_mirrored_head_gets_a_proper_rotation():
    assert np.linalg.det(similarity(HEAD, HEAD * [-1.0, 1.0, 1.0]).rotation) == pytest.approx(1.0)


def test_stable_points_give_head_pose():
    """The camera on stable points is the head pose."""
    noisy = cameras(1).project(HEAD)[0] + RANDOM.normal(size=(468, 3))
    pose = fit_head_pose(noisy)
    found = fit_weak_perspective(HEAD[list(STABLE)], noisy[None, list(STABLE)])
    assert found.scale[0] == pytest.approx(pose.scale)
    assert found.rotation[0] == pytest.approx(pose.rotation)
    assert found.translation[0] == pytest.approx(pose.translation)
