"""The losses and the filter as a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from services.motion.models import MotionModels
from services.motion.predictors.everybody.model import EverybodyModel
from services.motion.predictors.everybody.train.data import EverybodyWindows, fit_filter, windows_of
from services.motion.predictors.everybody.train.run import EverybodyLoss, EverybodyTraining
from services.motion.predictors.everybody.train.torch_predictor import filter_of
from tests.unit.motion.predictors.everybody.made import clip, predicted


def test_the_filter_as_a_network_is_the_filter() -> None:
    linear = fit_filter([clip("a", 0)], {"a": 1.0}, 0.1)
    other = clip("b", 1)
    with torch.inference_mode():
        found = filter_of(linear)(torch.from_numpy(windows_of(other.rows).copy())).numpy()
    np.testing.assert_allclose(found, predicted(linear, other), rtol=1e-4, atol=1e-4)


def test_the_loss_is_zero_for_the_truth_and_grows_with_the_mouth_that_moves(models: MotionModels) -> None:
    basis = EverybodyModel.of(models).basis
    size = len(basis.typical_spread)
    loss = EverybodyLoss(basis, EverybodyTraining())
    truth = torch.randn(3, 2, size)
    batch = EverybodyWindows(torch.zeros(3, 2, 1), truth, torch.from_numpy(basis.typical_spread.copy()).expand(3, -1))
    assert float(loss(truth, batch).total) == pytest.approx(0.0, abs=1e-6)
    largest, smallest = truth.clone(), truth.clone()
    largest[..., 0] += 1.0
    smallest[..., size - 1] += 1.0
    first, last = loss(largest, batch), loss(smallest, batch)
    assert float(first.expression) == pytest.approx(float(last.expression), rel=1e-4)
    assert float(first.shape) > 10.0 * float(last.shape)
