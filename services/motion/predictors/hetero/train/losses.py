"""Losses of the landmark generator: L1 of landmarks (Eq. 2), the same on what the teacher names, and the names of the phones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from services.motion.basis import LandmarkBasis, point_weights
from services.motion.predictors.hetero.network import Generated
from services.motion.predictors.hetero.train.batches import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """Weights of the parts of the loss. The first part is the paper's."""

    landmarks: float = 1.0
    velocity: float = 0.5
    taught: float = 1.0
    phones: float = 1.0


class GeneratorLoss:
    """Loss of the generator.

    Distances are relative to the person's amplitude, so that a small mouth counts as much as a large mouth.

    Args:
        basis: landmark basis of the style.
        weights: weights of the parts.
        device: device of the tensors.
    """

    def __init__(self, basis: LandmarkBasis, weights: LossWeights, device: torch.device) -> None:
        self._components = torch.tensor(basis.components, device=device)
        self._point_weights = torch.tensor(point_weights() / point_weights().mean(), device=device)
        self._typical = torch.tensor(basis.typical_spread, device=device)
        self._weights = weights

    def __call__(self, generated: Generated, batch: Batch[Tensor]) -> dict[str, Tensor]:
        """Return the parts of the loss, scalars, with their weighted sum as `total`."""
        size = torch.linalg.vector_norm(batch.spread, dim=1) / torch.linalg.vector_norm(self._typical)
        own = self._offsets(generated.coefficients + batch.alone, batch.spread)
        error = (own - batch.offsets) / size[:, None, None, None]
        landmarks = self._mean(error.abs(), batch.valid)
        velocity = self._mean((error[:, 1:] - error[:, :-1]).abs(), batch.valid[:, 1:] * batch.valid[:, :-1])
        apart = self._offsets(generated.coefficients - batch.taught, batch.spread) / size[:, None, None, None]
        taught = self._mean(apart.abs(), batch.inside)
        phones = -(batch.phones * functional.log_softmax(generated.phones, dim=-1)).sum(-1).mean()
        weights = self._weights
        total = weights.landmarks * landmarks + weights.velocity * velocity + weights.taught * taught + weights.phones * phones
        return {"total": total, "landmarks": landmarks, "velocity": velocity, "taught": taught, "phones": phones}

    def _offsets(self, coefficients: Tensor, spread: Tensor) -> Tensor:
        """Return offsets in crop pixels: coefficients [N, T, K] in units of the spread [N, K] -> [N, T, 59, 3]."""
        return torch.einsum("ntk,kpd->ntpd", coefficients * spread[:, None], self._components)

    def _mean(self, distance: Tensor, counted: Tensor) -> Tensor:
        """Return the mean weighted distance [N, T, 59, 3] over the frames that count [N, T]."""
        frames = (distance * self._point_weights).mean(dim=(2, 3))
        return (frames * counted).sum() / counted.sum().clamp(min=1.0)
