"""Features of the perceptual network and their Gram matrices: both losses of Johnson et al. (2016), L_VGG of Sec. 3.4."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from services.render.losses import Features


def with_style(features: Features) -> Features:
    """Return a function that returns features and, behind them, their Gram matrices, float [B, C, C] each.

    So the mean of services.render.losses.perceptual_loss has the feature loss and the style loss, with equal weights.

    Args:
        features: returns features of several scales.
    """

    def both(pictures: Tensor) -> Sequence[Tensor]:
        found = features(pictures)
        return [*found, *(_gram(one) for one in found)]

    return both


def _gram(features: Tensor) -> Tensor:
    flat = features.flatten(2).float()
    return torch.bmm(flat, flat.transpose(1, 2)) / flat.shape[2]
