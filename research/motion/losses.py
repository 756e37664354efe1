"""Losses of networks that predict coefficients of a basis of landmarks, all on the landmarks.

The first part is Eq. 3 of Song et al. 2022. Velocity and contact of the lips on bilabials are losses of Imitator (Thambiraja et
al. 2023) too. The opening of the mouth and the correlations are added here: viewers judge the opening first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import torch
from torch import Tensor

from research.motion.basis import point_weights
from services.common.face.landmarks import INNER_LOWER_MIDDLE, INNER_UPPER_MIDDLE, LIP_CORNERS, mouth_area_positions
from services.motion.basis import LandmarkBasis

CPU: Final = torch.device("cpu")
_CONTACT_PX: Final = 0.5
"""Opening beyond the shut mouth, in crop pixels, that still counts as contact of the lips."""
_OPENING_SHARE: Final = 0.6
_WIDTH_SHARE: Final = 0.4
"""Shares of the opening and of the width of the lips in the part `correlation`."""


class FrameSpans(Protocol):
    """N stretches of W frames of speech with their mouths, float32."""

    @property
    def offsets(self) -> Tensor:
        """[N, W, 59, 3], offsets from the person's rest mouth, crop pixels."""

    @property
    def rest(self) -> Tensor:
        """[N, 59, 3], the rest mouth."""

    @property
    def valid(self) -> Tensor:
        """[N, W], 1 if the frame counts, otherwise 0."""

    @property
    def spread(self) -> Tensor:
        """[N, K], size of each coefficient of the person."""

    @property
    def closed(self) -> Tensor:
        """[N, W], 1 if a bilabial sounds and the true lips are shut, otherwise 0."""

    @property
    def closed_opening(self) -> Tensor:
        """[N], opening of the shut mouth, crop pixels."""

    @property
    def alone(self) -> Tensor:
        """[N, W, K], coefficients that hold in the clip's narrow corpus alone; the network answers the rest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LandmarkLossWeights:
    """Weights of the parts of the loss."""

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


class LandmarkLoss:
    """L1 of landmarks, of their velocity and of the opening; correlation of opening and of width; contact of the lips on p, b, m.

    Distances are relative to the person's amplitude, so that a small mouth counts as much as a large mouth.

    Args:
        basis: basis of the coefficients.
        weights: weights of the parts.
        device: device of the tensors.
    """

    def __init__(self, basis: LandmarkBasis, weights: LandmarkLossWeights, device: torch.device = CPU) -> None:
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

    def __call__(self, coefficients: Tensor, batch: FrameSpans) -> Losses:
        """Return the loss of coefficients [N, W, K] in units of the person's spread."""
        scaled = (coefficients + batch.alone) * batch.spread[:, None]
        offsets = torch.einsum("nwk,kpd->nwpd", scaled, self._components)
        size = torch.linalg.vector_norm(batch.spread, dim=1) / torch.linalg.vector_norm(self._typical)
        error = (offsets - batch.offsets) / size[:, None, None, None]
        valid = batch.valid
        landmarks = _mean((error.abs() * self._point_weights).mean(dim=(2, 3)), valid)
        step = (error[:, 1:] - error[:, :-1]).abs() * self._point_weights
        velocity = _mean(step.mean(dim=(2, 3)), valid[:, 1:] * valid[:, :-1])
        predicted, truth = batch.rest[:, None] + offsets, batch.rest[:, None] + batch.offsets
        gap, true_gap = self.opening(predicted), self.opening(truth)
        opening = _mean((gap - true_gap).abs() / size[:, None], valid)
        correlation = 1.0 - _OPENING_SHARE * _correlation(gap, true_gap, valid)
        correlation = correlation - _WIDTH_SHARE * _correlation(self.width(predicted), self.width(truth), valid)
        apart = torch.relu(gap - batch.closed_opening[:, None] - _CONTACT_PX) / size[:, None]
        closure = _mean(apart, batch.closed * valid)
        weights = self._weights
        total = (
            weights.landmarks * landmarks
            + weights.velocity * velocity
            + weights.opening * opening
            + weights.correlation * correlation
            + weights.closure * closure
        )
        return Losses(total, landmarks, velocity, opening, correlation, closure)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of values where `counted` is 1; 0 if no value counts."""
    return (values * counted).sum() / counted.sum().clamp(min=1.0)


def _correlation(a: Tensor, b: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over windows of the correlation over valid frames."""
    count = valid.sum(dim=1, keepdim=True).clamp(min=1.0)
    a = (a - (a * valid).sum(1, keepdim=True) / count) * valid
    b = (b - (b * valid).sum(1, keepdim=True) / count) * valid
    return ((a * b).sum(1) / torch.sqrt((a * a).sum(1) * (b * b).sum(1) + 1e-2 * count[:, 0])).mean()
