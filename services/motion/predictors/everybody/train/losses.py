"""Losses of the network of `everybody`.

    L = L_exp + L_shape (Eq. 3) + w_velocity L_velocity

L_exp is the squared error of the coefficients. L_shape is the squared error of the mouth landmarks that the coefficients move.
L_velocity is the squared error of the landmarks' change from frame to frame (not in the paper).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from services.motion.basis import LandmarkBasis, point_weights
from services.motion.predictors.everybody.train.config import LossWeights
from services.motion.predictors.everybody.train.data import EverybodyWindows

CPU: Final = torch.device("cpu")


class EverybodyLosses(NamedTuple):
    """Parts of the loss, scalars."""

    total: Tensor
    expression: Tensor
    shape: Tensor
    velocity: Tensor


class EverybodyLoss:
    """L_exp + L_shape (Eq. 3), and the squared error of the change from frame to frame.

    The paper's projection is a linear map here: head space is the face's own, so pose and identity drop out of the difference of
    landmarks. Lips count twice as much as the jaw.

    Args:
        expression: expression basis.
        weights: weights of the parts.
        device: device of the tensors.
    """

    def __init__(self, expression: LandmarkBasis, weights: LossWeights, device: torch.device = CPU) -> None:
        root = np.sqrt(point_weights() / point_weights().mean())
        root[:, 2] = 0.0  # only the picture plane counts
        self._components = torch.tensor((expression.components * root).astype(np.float32), device=device)
        self._typical = float(np.linalg.norm(expression.components * expression.typical_spread[:, None, None]))
        self._weights = weights

    def __call__(self, predicted: Tensor, batch: EverybodyWindows[Tensor]) -> EverybodyLosses:
        """Return the loss of predicted coefficients [N, 2, E] in units of the person's spread."""
        error = predicted - batch.expression
        moved = torch.einsum("nfe,epd->nfpd", error * batch.spread[:, None], self._components)
        size = torch.linalg.vector_norm(batch.spread, dim=1)[:, None, None, None] * self._typical
        size = size / torch.linalg.vector_norm(batch.spread, dim=1).mean()
        relative = moved / size
        expression = (error**2).mean()
        shape = (relative**2).sum(dim=(2, 3)).mean()
        velocity = ((relative[:, 1] - relative[:, 0]) ** 2).sum(dim=(1, 2)).mean()
        total = expression + self._weights.shape * shape + self._weights.velocity * velocity
        return EverybodyLosses(total, expression, shape, velocity)
