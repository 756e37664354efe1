"""Losses of the renderers that training alone uses (services/render/losses.py has those that personalisation shares)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from services.render.losses import ComposedPictures, RenderLossWeights, reconstruction_loss, total_variation_loss


def reconstruction_terms(composed: ComposedPictures, weights: RenderLossWeights) -> dict[str, Tensor]:
    """Return the weighted losses that need no other network: reconstruction and total variation."""
    return {
        "reconstruction": weights.reconstruction * reconstruction_loss(composed),
        "total_variation": weights.total_variation * total_variation_loss(composed),
    }


def detail_loss(composed: ComposedPictures) -> Tensor:
    """Return the mean absolute difference of the strength of fine detail inside the mask. Eq. 10 has no such term.

    The strength is the root mean square of the Laplacian over 9 x 9 px. The loss asks for as much detail as the footage has, even
    if the detail lies a pixel beside the footage's. L1 alone would prefer no detail.
    """
    got, target = (F.avg_pool2d(_laplacian(part).square(), 9, 4).add(1e-6).sqrt() for part in (composed.pictures, composed.target))
    weight = F.avg_pool2d(composed.mask[..., 1:-1, 1:-1], 9, 4)
    return ((got - target).abs() * weight).sum() / (3.0 * weight.sum())


def _laplacian(pictures: Tensor) -> Tensor:
    middle = pictures[..., 1:-1, 1:-1]
    beside = pictures[..., 1:-1, :-2] + pictures[..., 1:-1, 2:] + pictures[..., :-2, 1:-1] + pictures[..., 2:, 1:-1]
    return beside - 4.0 * middle


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor, drawn: Tensor, shares: Tensor) -> Tensor:
    """Return L_gp (Gulrajani et al. 2017): mean (|gradient of the score at a mixture| - 1)^2.

    Args:
        discriminator: the discriminator. The scores of one picture are added up.
        real: float [B, C, H, W], footage.
        drawn: float [B, C, H, W], drawn, without gradient.
        shares: float [B, 1, 1, 1] in [0, 1], share of the real picture in each mixture.
    """
    mixed = (drawn + shares * (real - drawn)).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(mixed).sum(), mixed, create_graph=True)
    length: Tensor = gradient.square().flatten(1).sum(dim=1).add(1e-12).sqrt()
    return (length - 1.0).square().mean()
