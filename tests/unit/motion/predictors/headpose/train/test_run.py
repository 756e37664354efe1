"""The losses of Eq. 2."""

from __future__ import annotations

import pytest
import torch

from services.motion.predictors.headpose.network import NUM_HEARD, HeadposeOutput
from services.motion.predictors.headpose.train.data import HeadposeBatch
from services.motion.predictors.headpose.train.run import HeadposeTraining, headpose_loss
from tests.unit.motion.predictors.headpose.tiny import zeros


def truth(frames: int = 6) -> HeadposeBatch:
    expression, pose = torch.randn(2, frames, 24), torch.randn(2, frames, 6)
    return HeadposeBatch(torch.zeros(2, frames, 4, NUM_HEARD), expression, pose, torch.ones(2, frames))


def test_the_losses_are_those_of_equation_2_with_its_weights() -> None:
    batch, config = truth(), HeadposeTraining()
    predicted = HeadposeOutput(batch.expression + 1.0, batch.pose + 2.0, zeros(2), zeros(2))
    losses = headpose_loss(predicted, batch, config)
    assert float(losses.expression) == pytest.approx(1.0, rel=1e-5)
    assert float(losses.pose) == pytest.approx(4.0, rel=1e-5)
    assert float(losses.pose_step) == pytest.approx(float((batch.pose.diff(dim=1) ** 2).mean()), rel=1e-4)
    assert float(losses.expression_step) == pytest.approx(float((batch.expression.diff(dim=1) ** 2).mean()), rel=1e-4)
    expected = 1.0 + 0.2 * 4.0 + 0.01 * float(losses.pose_step) + 0.0001 * float(losses.expression_step)
    assert float(losses.total) == pytest.approx(expected, rel=1e-5)


def test_frames_without_a_face_cost_nothing() -> None:
    batch, config = truth(), HeadposeTraining()
    usable = torch.tensor([[1.0, 1.0, 0.0, 1.0, 1.0, 1.0]]).expand(2, -1)
    masked = batch._replace(usable=usable)
    first, second = (
        HeadposeOutput(batch.expression + e, batch.pose + e, zeros(2), zeros(2))
        for e in (torch.ones(6, 1), torch.tensor([[1.0], [1.0], [99.0], [1.0], [1.0], [1.0]]))
    )
    assert float(headpose_loss(first, masked, config).total) == pytest.approx(
        float(headpose_loss(second, masked, config).total), rel=1e-5
    )
