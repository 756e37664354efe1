"""The committed network."""

from __future__ import annotations

import numpy as np

from services.common.geometry.default_model import default_model
from services.motion.expression import expression_basis
from services.motion.models import MotionModels
from services.motion.predictors.everybody.model import EverybodyModel


def test_the_committed_network_speaks_of_the_committed_face_model(models: MotionModels) -> None:
    face = default_model()
    assert EverybodyModel.of(models).face_model == face.digest
    assert EverybodyModel.of(models).num_expression == face.num_expression
    expected = expression_basis(face, models.basis, len(EverybodyModel.of(models).basis.typical_spread))
    np.testing.assert_allclose(EverybodyModel.of(models).basis.components, expected.components)
    np.testing.assert_allclose(EverybodyModel.of(models).basis.dual, expected.dual, atol=1e-6)
