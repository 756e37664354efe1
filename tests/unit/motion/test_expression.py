"""The expression basis of a morphable model."""

from __future__ import annotations

import numpy as np
import pytest

from research.motion.basis import expression_basis
from services.common.geometry.morphable_model import default_model
from services.motion.expression import expression_spread
from services.motion.head_network import HeadModel
from services.motion.models import MotionModels
from services.motion.predictors.everybody.predictor import EverybodyModel
from services.motion.predictors.everyone.predictor import EveryoneModel


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
