"""Feature matching against a discriminator (Wang et al. 2018, pix2pixHD, Eq. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from services.render.networks.discriminators import PatchDiscriminator


class Judged(NamedTuple):
    """What a discriminator says of pictures.

    Attributes:
        scores: float [B, 1, h, w], see PatchDiscriminator.
        features: outputs of the layers before the last, float [B, C, h, w] each.
    """

    scores: Tensor
    features: Sequence[Tensor]


def judged(judge: PatchDiscriminator, pictures: Tensor) -> Judged:
    """Return scores and features of pictures, float [B, in_channels, H, W] in [0, 1]."""
    features: list[Tensor] = []

    def keep(_layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        features.append(output)

    hooks = [layer.register_forward_hook(keep) for layer in judge.layers if isinstance(layer, nn.LeakyReLU)]
    try:
        scores: Tensor = judge(pictures)
    finally:
        for hook in hooks:
            hook.remove()
    return Judged(scores, features)


def feature_matching_loss(made: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Return the mean over layers of the mean absolute difference of features, in units of the real features' mean magnitude.

    Args:
        made: features of drawn pictures.
        real: features of footage, without gradient.
    """
    pairs = zip(made, real, strict=True)
    return torch.stack([(got - want).abs().mean() / want.abs().mean().clamp_min(1e-3) for got, want in pairs]).mean()
