"""The losses of Eq. 2."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from services.motion.predictors.headpose.network import NUM_HEARD
from services.motion.predictors.headpose.train.config import LossWeights
from services.motion.predictors.headpose.train.data import HeadposeBatch
from services.motion.predictors.headpose.train.losses import headpose_loss


def truth(frames: int = 6) -> HeadposeBatch[Tensor]:
    expression, pose = torch.randn(2, frames, 24), torch.randn(2, frames, 6)
    return HeadposeBatch(torch.zeros(2, frames, 4, NUM_HEARD), expression, pose, torch.ones(2, frames))


def test_the_losses_are_those_of_equation_2_with_its_weights() -> None:
    batch = truth()
    losses = headpose_loss(batch.expression + 1.0, batch.pose + 2.0, batch, LossWeights())
    assert float(losses.expression) == pytest.approx(1.0, rel=1e-5)
    assert float(losses.pose) == pytest.approx(4.0, rel=1e-5)
    assert float(losses.pose_step) == pytest.approx(float((batch.pose.diff(dim=1) ** 2).mean()), rel=1e-4)
    assert float(losses.expression_step) == pytest.approx(float((batch.expression.diff(dim=1) ** 2).mean()), rel=1e-4)
    expected = 1.0 + 0.2 * 4.0 + 0.01 * float(losses.pose_step) + 0.0001 * float(losses.expression_step)
    assert float(losses.total) == pytest.approx(expected, rel=1e-5)


def test_frames_without_a_face_cost_nothing() -> None:
    batch = truth()
    masked = batch._replace(usable=torch.tensor([[1.0, 1.0, 0.0, 1.0, 1.0, 1.0]]).expand(2, -1))
    first, second = (
        float(headpose_loss(batch.expression + error, batch.pose + error, masked, LossWeights()).total)
        for error in (torch.ones(6, 1), torch.tensor([[1.0], [1.0], [99.0], [1.0], [1.0], [1.0]]))
    )
    assert first == pytest.approx(second, rel=1e-5)
