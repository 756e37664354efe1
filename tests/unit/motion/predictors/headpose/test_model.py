"""The committed network."""

from __future__ import annotations

import numpy as np

from services.common.geometry.default_model import default_model
from services.motion.expression import expression_basis
from services.motion.models import MotionModels
from services.motion.predictors.headpose.model import HeadposeModel


def test_the_committed_network_speaks_of_the_committed_face_model(models: MotionModels) -> None:
    face = default_model()
    assert HeadposeModel.of(models).face_model == face.digest
    assert HeadposeModel.of(models).num_expression == face.num_expression
    expected = expression_basis(face, models.basis, len(HeadposeModel.of(models).basis.typical_spread))
    np.testing.assert_allclose(HeadposeModel.of(models).basis.dual, expected.dual, atol=1e-6)


def test_the_lstm_is_no_larger_than_serving_can_bear(models: MotionModels) -> None:
    assert HeadposeModel.of(models).hidden <= 256
