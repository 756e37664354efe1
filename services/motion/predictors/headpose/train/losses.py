"""Losses of headpose Eq. 2, over usable frames.

L = mean (beta - beta~)^2 + .2 mean (p - p~)^2 + .01 mean (p~(t+1) - p~(t))^2 + .0001 mean (beta~(t+1) - beta~(t))^2
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from services.motion.predictors.headpose.train.config import LossWeights
from services.motion.predictors.headpose.train.data import HeadposeBatch


class HeadposeLosses(NamedTuple):
    """Parts of the loss, scalars."""

    total: Tensor
    expression: Tensor
    pose: Tensor
    pose_step: Tensor
    expression_step: Tensor


def headpose_loss(expression: Tensor, pose: Tensor, batch: HeadposeBatch[Tensor], weights: LossWeights) -> HeadposeLosses:
    """Return the loss of Eq. 2: squared errors, and squared changes of the prediction from frame to frame, over usable frames.

    Args:
        expression: [N, T, E], predicted expression in units of the person's spread.
        pose: [N, T, 6], predicted pose in units of the person's spread.
        batch: the truth.
        weights: weights of the parts.
    """
    one, both = batch.usable[..., None], (batch.usable[:, 1:] * batch.usable[:, :-1])[..., None]

    def mean(values: Tensor, weight: Tensor) -> Tensor:
        return (values * weight).sum() / (weight.sum() * values.shape[-1]).clamp(min=1.0)

    expression_error = mean((expression - batch.expression) ** 2, one)
    pose_error = mean((pose - batch.pose) ** 2, one)
    pose_step = mean(pose.diff(dim=1) ** 2, both)
    expression_step = mean(expression.diff(dim=1) ** 2, both)
    total = expression_error + weights.pose * pose_error + weights.pose_step * pose_step + weights.expression_step * expression_step
    return HeadposeLosses(total, expression_error, pose_error, pose_step, expression_step)
