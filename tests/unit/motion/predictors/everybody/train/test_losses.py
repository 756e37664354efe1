"""The losses."""

from __future__ import annotations

import pytest
import torch

from services.motion.models import MotionModels
from services.motion.predictors.everybody.model import EverybodyModel
from services.motion.predictors.everybody.train.config import LossWeights
from services.motion.predictors.everybody.train.data import EverybodyWindows
from services.motion.predictors.everybody.train.losses import EverybodyLoss


def test_the_loss_is_zero_for_the_truth_and_grows_with_the_mouth_that_moves(models: MotionModels) -> None:
    basis = EverybodyModel.of(models).basis
    size = len(basis.typical_spread)
    loss = EverybodyLoss(basis, LossWeights())
    truth = torch.randn(3, 2, size)
    batch = EverybodyWindows(torch.zeros(3, 2, 1), truth, torch.from_numpy(basis.typical_spread.copy()).expand(3, -1))
    assert float(loss(truth, batch).total) == pytest.approx(0.0, abs=1e-6)
    largest, smallest = truth.clone(), truth.clone()
    largest[..., 0] += 1.0
    smallest[..., size - 1] += 1.0
    first, last = loss(largest, batch), loss(smallest, batch)
    assert float(first.expression) == pytest.approx(float(last.expression), rel=1e-4)
    assert float(first.shape) > 10.0 * float(last.shape)
