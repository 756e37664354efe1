"""Losses of the network of `everyone`, all on the landmarks that the expression moves.

Imitator (Thambiraja et al. 2023) learns from the reconstruction, from the velocity, and from the contact of the lips on
bilabials. The opening of the mouth and the correlations are added here: viewers judge the opening first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from services.common.face.landmarks import INNER_LOWER_MIDDLE, INNER_UPPER_MIDDLE, LIP_CORNERS, mouth_area_positions
from services.motion.basis import LandmarkBasis, point_weights
from services.motion.predictors.everyone.train.batches import Batch

CPU: Final = torch.device("cpu")
_CONTACT_PX: Final = 0.5
"""Opening beyond the shut mouth, in crop pixels, that still counts as contact of the lips."""
_OPENING_SHARE: Final = 0.6
"""Share of the opening in the part `correlation`. The rest is the width of the lips."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """Weights of the parts of the loss."""

    reconstruction: float = 1.0
    velocity: float = 1.0
    contact: float = 0.5
    opening: float = 1.0
    correlation: float = 0.5


class Losses(NamedTuple):
    """Parts of the loss, scalars."""

    total: Tensor
    reconstruction: Tensor
    velocity: Tensor
    contact: Tensor
    opening: Tensor
    correlation: Tensor


class EveryoneLoss:
    """L1 of landmarks, of their velocity and of the opening; contact of the lips; correlation of opening and of width.

    Distances are relative to the person's amplitude, so that a small mouth counts as much as a large mouth.

    Args:
        expression: expression basis.
        weights: weights of the parts.
        device: device of the tensors.
    """

    def __init__(self, expression: LandmarkBasis, weights: LossWeights, device: torch.device = CPU) -> None:
        self._components = torch.tensor(expression.components, device=device)
        self._point_weights = torch.tensor(point_weights() / point_weights().mean(), device=device)
        self._typical = torch.tensor(expression.typical_spread, device=device)
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
        """Return the loss of coefficients [N, W, E] in units of the person's spread."""
        moved = (coefficients + batch.alone) * batch.spread[:, None]
        offsets = torch.einsum("nwe,epd->nwpd", moved, self._components)
        size = torch.linalg.vector_norm(batch.spread, dim=1) / torch.linalg.vector_norm(self._typical)
        error = (offsets - batch.offsets) / size[:, None, None, None]
        reconstruction = _mean((error.abs() * self._point_weights).mean(dim=(2, 3)), batch.valid)
        change = ((error[:, 1:] - error[:, :-1]).abs() * self._point_weights).mean(dim=(2, 3))
        velocity = _mean(change, batch.valid[:, 1:] * batch.valid[:, :-1])
        predicted, truth = batch.rest[:, None] + offsets, batch.rest[:, None] + batch.offsets
        gap, true_gap = self.opening(predicted), self.opening(truth)
        opening = _mean((gap - true_gap).abs() / size[:, None], batch.valid)
        correlation = 1.0 - _OPENING_SHARE * _correlation(gap, true_gap, batch.valid)
        correlation = correlation - (1.0 - _OPENING_SHARE) * _correlation(self.width(predicted), self.width(truth), batch.valid)
        apart = torch.relu(gap - batch.closed_opening[:, None] - _CONTACT_PX) / size[:, None]
        contact = _mean(apart, batch.closed * batch.valid)
        weights = self._weights
        total = (
            weights.reconstruction * reconstruction
            + weights.velocity * velocity
            + weights.contact * contact
            + weights.opening * opening
            + weights.correlation * correlation
        )
        return Losses(total, reconstruction, velocity, contact, opening, correlation)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of values where `counted` is 1; 0 if no value counts."""
    return (values * counted).sum() / counted.sum().clamp(min=1.0)


def _correlation(a: Tensor, b: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over stretches of the correlation over valid frames: a, b, valid [N, W] -> scalar."""
    count = valid.sum(dim=1, keepdim=True).clamp(min=1.0)
    a = (a - (a * valid).sum(1, keepdim=True) / count) * valid
    b = (b - (b * valid).sum(1, keepdim=True) / count) * valid
    return ((a * b).sum(1) / torch.sqrt((a * a).sum(1) * (b * b).sum(1) + 1e-2 * count[:, 0])).mean()
