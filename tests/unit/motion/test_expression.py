"""The expression basis of a morphable model."""

from __future__ import annotations

import numpy as np
import pytest

from services.common.geometry.camera import WeakPerspective
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.common.geometry.morphable_model import default_model
from services.motion.expression import expression_basis, expression_spread
from services.motion.head_network import HeadModel
from services.motion.models import MotionModels
from services.motion.predictors.everybody.predictor import EverybodyModel
from services.motion.predictors.everyone.predictor import EveryoneModel


def test_basis_fits_face_model(models: MotionModels) -> None:
    """The basis is the fit of the face model with the rest mouth as neutral."""
    face = default_model().truncated(expression=24)
    rng = np.random.default_rng(0)
    mean = face.landmark_set("mouth_area").of(face.mean_shape)
    moved = mean + 3.0 * rng.standard_normal((2, 59, 3)).astype(np.float32)
    frontal = WeakPerspective(np.ones(2), np.tile(np.eye(3), (2, 1, 1)), np.zeros((2, 3)))
    no_identity = np.zeros(face.num_identity)
    fitted = coefficients_from_landmarks(face, moved, frontal, landmarks="mouth_area", identity=no_identity)
    found = expression_basis(face, models.basis).project((moved - mean).astype(np.float32))
    np.testing.assert_allclose(found, fitted.expression, atol=1e-3)


def test_a_style_says_how_large_every_expression_is(models: MotionModels) -> None:
    basis = EverybodyModel.of(models).basis
    spread = expression_spread(models.basis.typical_spread, models.basis, basis)
    np.testing.assert_allclose(spread, basis.typical_spread, rtol=1e-5)
    np.testing.assert_allclose(expression_spread(2 * models.basis.typical_spread, models.basis, basis), 2 * spread, rtol=1e-5)


@pytest.mark.parametrize("kind", [EverybodyModel, EveryoneModel, HeadModel])
def test_committed_network_matches_face_model(models: MotionModels, kind: type[EverybodyModel | EveryoneModel | HeadModel]) -> None:
    """A committed network speaks of the committed face model."""
    face, model = default_model(), kind.of(models)
    assert (model.face_model, model.num_expression) == (face.digest, face.num_expression)
    expected = expression_basis(face, models.basis, len(model.basis.typical_spread))
    np.testing.assert_allclose(model.basis.components, expected.components)
    np.testing.assert_allclose(model.basis.dual, expected.dual, atol=1e-6)
