"""Losses of the network of `ugc`, all on landmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from services.common.face.landmarks import INNER_LOWER_MIDDLE, INNER_UPPER_MIDDLE, LIP_CORNERS, mouth_area_positions
from services.motion.basis import LandmarkBasis, point_weights
from services.motion.predictors.ugc.train.batches import Batch

CPU: Final = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """Weights of the parts of the loss. The first part is the paper's (Eq. 3)."""

    landmarks: float = 1.0
    velocity: float = 1.0
    opening: float = 1.0
    correlation: float = 0.5
    closure: float = 0.5


class Losses(NamedTuple):
    """Parts of the loss, scalars."""

    total: Tensor
    landmarks: Tensor
    velocity: Tensor
    opening: Tensor
    correlation: Tensor
    closure: Tensor


class UgcLoss:
    """L1 of landmarks (Eq. 3), of the landmarks' velocity and of the opening; correlation of the opening; closure on p, b, m.

    Distances are relative to the person's amplitude, so that a small mouth counts as much as a large mouth.

    Args:
        basis: landmark basis of the style.
        weights: weights of the parts.
        device: device of the tensors.
    """

    def __init__(self, basis: LandmarkBasis, weights: LossWeights, device: torch.device = CPU) -> None:
        self._components = torch.tensor(basis.components, device=device)
        self._point_weights = torch.tensor(point_weights() / point_weights().mean(), device=device)
        self._typical = torch.tensor(basis.typical_spread, device=device)
        self._weights = weights
        self._upper = torch.tensor(mouth_area_positions(INNER_UPPER_MIDDLE), device=device)
        self._lower = torch.tensor(mouth_area_positions(INNER_LOWER_MIDDLE), device=device)
        self._corners = torch.tensor(mouth_area_positions(LIP_CORNERS), device=device)

    def opening(self, mouths: Tensor) -> Tensor:
        """Return the opening of mouths, see landmarks.mouth_opening: [..., 59, 3] -> [...]."""
        gap = mouths[..., self._lower, :2] - mouths[..., self._upper, :2]
        return torch.sqrt((gap * gap).sum(-1) + 1e-4).mean(-1)

    def width(self, mouths: Tensor) -> Tensor:
        """Return the distance of the lip corners: [..., 59, 3] -> [...]."""
        gap = mouths[..., self._corners[1], :2] - mouths[..., self._corners[0], :2]
        return torch.sqrt((gap * gap).sum(-1) + 1e-4)

    def __call__(self, coefficients: Tensor, batch: Batch[Tensor]) -> Losses:
        """Return the loss of coefficients [N, W, K] in units of the person's spread."""
        scaled = (coefficients + batch.alone) * batch.spread[:, None]
        offsets = torch.einsum("nwk,kpd->nwpd", scaled, self._components)
        size = torch.linalg.vector_norm(batch.spread, dim=1) / torch.linalg.vector_norm(self._typical)
        error = (offsets - batch.offsets) / size[:, None, None, None]
        valid, count = batch.valid, batch.valid.sum().clamp(min=1.0)
        landmarks = ((error.abs() * self._point_weights).mean(dim=(2, 3)) * valid).sum() / count
        both = valid[:, 1:] * valid[:, :-1]
        step = (error[:, 1:] - error[:, :-1]).abs() * self._point_weights
        velocity = (step.mean(dim=(2, 3)) * both).sum() / both.sum().clamp(min=1.0)
        predicted, truth = batch.rest[:, None] + offsets, batch.rest[:, None] + batch.offsets
        gap_predicted, gap_truth = self.opening(predicted), self.opening(truth)
        opening = ((gap_predicted - gap_truth).abs() / size[:, None] * valid).sum() / count
        correlation = 1.0 - 0.6 * _correlation(gap_predicted, gap_truth, valid)
        correlation = correlation - 0.4 * _correlation(self.width(predicted), self.width(truth), valid)
        shut = batch.closed * valid
        excess = torch.relu(gap_predicted - batch.closed_opening[:, None] - 0.5) / size[:, None]
        closure = (excess * shut).sum() / shut.sum().clamp(min=1.0)
        weights = self._weights
        total = (
            weights.landmarks * landmarks
            + weights.velocity * velocity
            + weights.opening * opening
            + weights.correlation * correlation
            + weights.closure * closure
        )
        return Losses(total, landmarks, velocity, opening, correlation, closure)


def _correlation(a: Tensor, b: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over windows of the correlation over valid frames."""
    count = valid.sum(dim=1, keepdim=True).clamp(min=1.0)
    a = (a - (a * valid).sum(1, keepdim=True) / count) * valid
    b = (b - (b * valid).sum(1, keepdim=True) / count) * valid
    return ((a * b).sum(1) / torch.sqrt((a * a).sum(1) * (b * b).sum(1) + 1e-2 * count[:, 0])).mean()
