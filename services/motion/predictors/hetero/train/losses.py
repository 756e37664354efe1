"""Losses of the landmark generator: of landmarks, the same on what the teacher names, and the names of the phones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from services.motion.basis import LandmarkBasis, point_weights
from services.motion.predictors.hetero.network import Generated
from services.motion.predictors.hetero.train.batches import Batch
from services.motion.train.landmark_losses import LandmarkLoss
from services.motion.train.landmark_losses import LossWeights as LandmarkWeights


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights(LandmarkWeights):
    """Weights of the parts of the loss. The paper's is L1 of landmarks (Eq. 2)."""

    taught: float = 0.2
    phones: float = 0.3


class GeneratorLoss:
    """Loss of the generator.

    Distances are relative to the person's amplitude, so that a small mouth counts as much as a large mouth.

    Args:
        basis: landmark basis of the style.
        weights: weights of the parts.
        device: device of the tensors.
    """

    def __init__(self, basis: LandmarkBasis, weights: LossWeights, device: torch.device) -> None:
        self._landmarks = LandmarkLoss(basis, weights, device)
        self._components = torch.tensor(basis.components, device=device)
        self._point_weights = torch.tensor(point_weights() / point_weights().mean(), device=device)
        self._typical = torch.tensor(basis.typical_spread, device=device)
        self._weights = weights

    def __call__(self, generated: Generated, batch: Batch[Tensor]) -> dict[str, Tensor]:
        """Return the parts of the loss, scalars, with their weighted sum as `total`."""
        parts = self._landmarks(generated.coefficients, batch)._asdict()
        size = torch.linalg.vector_norm(batch.spread, dim=1) / torch.linalg.vector_norm(self._typical)
        missed = (generated.coefficients - batch.taught) * batch.spread[:, None]
        apart = torch.einsum("ntk,kpd->ntpd", missed, self._components) / size[:, None, None, None]
        frames = (apart.abs() * self._point_weights).mean(dim=(2, 3))
        taught = (frames * batch.inside).sum() / batch.inside.sum().clamp(min=1.0)
        phones = -(batch.phones * functional.log_softmax(generated.phones, dim=-1)).sum(-1).mean()
        total = parts["total"] + self._weights.taught * taught + self._weights.phones * phones
        return {**parts, "total": total, "taught": taught, "phones": phones}
