"""Bases of mouths and of expression."""

from __future__ import annotations

import numpy as np

from research.motion.basis import committed_basis, expression_basis, fit_basis, point_weights
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.common.geometry.morphable_model import default_model
from tests.unit.motion.test_basis import offsets_of


def test_two_kinds_of_motion_need_two_coefficients() -> None:
    offsets = offsets_of(0)
    basis = fit_basis([offsets], 2)
    np.testing.assert_allclose(basis.reconstruct(basis.project(offsets)), offsets, atol=1e-3)


def test_speakers_weigh_equally() -> None:
    """A speaker counts the same whatever the number of frames."""
    one, other = offsets_of(0), offsets_of(1)
    many = fit_basis([np.concatenate([one] * 5), other], 1)
    few = fit_basis([one, other], 1)
    for basis in (many, few):
        assert basis.components.shape == (1, 59, 3)
    kept_many, kept_few = (basis.reconstruct(basis.project(one)) for basis in (many, few))
    np.testing.assert_allclose(kept_many, kept_few, atol=1e-3)


def test_lips_and_plane_weigh_more() -> None:
    """Lips weigh more than jaw and picture plane more than depth."""
    weights = point_weights()
    assert weights[0, 0] > weights[-1, 0] > weights[-1, 2] > 0


def test_basis_fits_face_model() -> None:
    """The basis is the fit of the face model with the rest mouth as neutral."""
    face = default_model().truncated(expression=24)
    rng = np.random.default_rng(0)
    mean = face.landmark_set("mouth_area").of(face.mean_shape)
    moved = mean + 3.0 * rng.standard_normal((2, 59, 3)).astype(np.float32)
    frontal = WeakPerspective(np.ones(2), np.tile(np.eye(3), (2, 1, 1)), np.zeros((2, 3)))
    no_identity = np.zeros(face.num_identity)
    fitted = coefficients_from_landmarks(face, moved, frontal, landmarks="mouth_area", identity=no_identity)
    found = expression_basis(face, committed_basis()).project((moved - mean).astype(np.float32))
    np.testing.assert_allclose(found, fitted.expression, atol=1e-3)
