"""The committed network."""

from __future__ import annotations

import numpy as np

from services.common.geometry.default_model import default_model
from services.motion.expression import expression_basis
from services.motion.models import MotionModels
from services.motion.predictors.everyone.model import EveryoneModel


def test_the_committed_network_speaks_of_the_committed_face_model(models: MotionModels) -> None:
    face, model = default_model(), EveryoneModel.of(models)
    assert model.face_model == face.digest
    assert model.num_expression == face.num_expression
    expected = expression_basis(face, models.basis, len(model.basis.typical_spread))
    np.testing.assert_allclose(model.basis.components, expected.components)
    np.testing.assert_allclose(model.basis.dual, expected.dual, atol=1e-6)
