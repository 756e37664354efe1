"""The five losses of the renderer (paper `ugc`, Sec. III-B.3, Eq. 10-12), shared by the prior's training and personalisation.

    L_r = b1 L_rec + b2 L_frame + b3 L_seq + b4 L_vgg + b5 L_tv,        b = 10, 1, 0.1, 1, 1

The paper does not say in which units its terms are, so the weights alone mean little. Ours:

* pictures lie in [0, 1]; L_rec and L_tv are mean absolute values over the mask, L_rec with three times the weight on and near
  the lips;
* L_frame and L_seq are least-squares adversarial losses (Mao et al. 2017) in place of the logarithms of Eq. 11 and 12: with
  a few thousand steps on a few people the discriminators soon win, and there the logarithm of a saturated score gives the
  renderer no gradient, while the square still does;
* L_vgg is the mean absolute difference of features, each stage's divided by its mean absolute value over the training pictures.

Measured so, the gradients of L_rec, L_vgg and (once its discriminator has learned) L_frame at the picture are of the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Features = Callable[[Tensor], Sequence[Tensor]]
"""Pictures [B, 3, H, W] in [0, 1] to features of several scales."""

CRITIC_ROWS: Final = slice(24, 136)
CRITIC_COLUMNS: Final = slice(16, 144)
"""The part of the box, 128 x 112 px round mouth and chin, that discriminators and perceptual features look at."""

_LIPS_CHANNEL: Final = 7
_MASK_CHANNEL: Final = 6
_LIP_WEIGHT: Final = 2.0
_LIP_SPREAD_PX: Final = 13


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """b1 to b5 of Eq. 10."""

    reconstruction: float = 10.0
    frame: float = 1.0
    sequence: float = 0.1
    perceptual: float = 1.0
    total_variation: float = 1.0


class Made(NamedTuple):
    """What came of a batch.

    Attributes:
        pictures: float [B, 3, H, W] in [0, 1]: new face inside the mask, footage outside, blended by the soft mask.
        target: float [B, 3, H, W], the footage.
        mask: float [B, 1, H, W].
        weights: float [B, 1, H, W], how much each pixel counts in L_rec.
    """

    pictures: Tensor
    target: Tensor
    mask: Tensor
    weights: Tensor


def compose(inputs: Tensor, residual: Tensor, target: Tensor) -> Made:
    """Add the network's residual to the texture and blend it into the footage.

    Args:
        inputs: float [B, 9, H, W] in [0, 1], the network's input.
        residual: float [B, 3, H, W], its output.
        target: float [B, 3, H, W] in [0, 1].
    """
    mask = inputs[:, _MASK_CHANNEL : _MASK_CHANNEL + 1]
    lips = inputs[:, _LIPS_CHANNEL : _LIPS_CHANNEL + 1]
    drawn = inputs[:, 3:6] + residual
    near_lips = F.avg_pool2d(F.max_pool2d(lips, _LIP_SPREAD_PX, 1, _LIP_SPREAD_PX // 2), _LIP_SPREAD_PX, 1, _LIP_SPREAD_PX // 2)
    pictures = target + mask * (drawn - target)
    return Made(pictures, target, mask, mask * (1.0 + _LIP_WEIGHT * near_lips))


def reconstruction_loss(made: Made) -> Tensor:
    """L_rec: weighted mean absolute error inside the mask."""
    error = (made.pictures - made.target).abs() * made.weights
    return error.sum() / (3.0 * made.weights.sum())


def total_variation_loss(made: Made) -> Tensor:
    """L_tv: mean absolute difference of neighbouring pixels inside the mask."""
    pictures, mask = made.pictures, made.mask
    across = ((pictures[..., 1:] - pictures[..., :-1]).abs() * mask[..., 1:]).sum()
    down = ((pictures[..., 1:, :] - pictures[..., :-1, :]).abs() * mask[..., 1:, :]).sum()
    return (across + down) / (6.0 * mask.sum())


def detail_loss(made: Made) -> Tensor:
    """Mean absolute difference of fine detail's strength: root mean square of the Laplacian over 9 x 9 px, inside the mask.

    No term of Eq. 10. It asks for as much detail as the footage has, a pixel here or there, where L1 would rather have none.
    """
    got, wanted = (F.avg_pool2d(_laplacian(part).square(), 9, 4).add(1e-6).sqrt() for part in (made.pictures, made.target))
    weight = F.avg_pool2d(made.mask[..., 1:-1, 1:-1], 9, 4)
    return ((got - wanted).abs() * weight).sum() / (3.0 * weight.sum())


def _laplacian(pictures: Tensor) -> Tensor:
    middle = pictures[..., 1:-1, 1:-1]
    beside = pictures[..., 1:-1, :-2] + pictures[..., 1:-1, 2:] + pictures[..., :-2, 1:-1] + pictures[..., 2:, 1:-1]
    return beside - 4.0 * middle


def perceptual_loss(features: Features, pictures: Tensor, target: Tensor) -> Tensor:
    """L_vgg: mean over scales of the mean absolute difference of features.

    Args:
        features: of a network trained in this repository, or of the user's VGG (networks/vgg.py).
        pictures: float [B, 3, h, w] in [0, 1].
        target: likewise.
    """
    with torch.no_grad():
        wanted = features(target)
    pairs = zip(features(pictures), wanted, strict=True)
    terms = [(got - want).abs().mean() for got, want in pairs]
    return torch.stack(terms).mean()


def adversarial_loss(scores: Tensor) -> Tensor:
    """The renderer's part of L_frame or L_seq: mean (D(made) - 1)^2."""
    return (scores - 1.0).square().mean()


def discriminator_loss(real: Tensor, made: Tensor) -> Tensor:
    """The discriminator's part: half of mean (D(real) - 1)^2 + mean D(made)^2."""
    return 0.5 * ((real - 1.0).square().mean() + made.square().mean())


def gradient_penalty(judge: Callable[[Tensor], Tensor], real: Tensor, made: Tensor, shares: Tensor) -> Tensor:
    """L_gp (Gulrajani et al. 2017; paper `everybody`, Eq. 4): mean (|gradient of the score at a mixture| - 1)^2.

    Args:
        judge: the discriminator; its scores are added up.
        real: float [B, C, H, W].
        made: likewise, without gradient.
        shares: float [B, 1, 1, 1] in [0, 1], of the real picture in each mixture.
    """
    mixed = (made + shares * (real - made)).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(judge(mixed).sum(), mixed, create_graph=True)
    length: Tensor = gradient.square().flatten(1).sum(dim=1).add(1e-12).sqrt()
    return (length - 1.0).square().mean()


def critic_view(pictures: Tensor) -> Tensor:
    """The part that discriminators and perceptual features look at: [B, C, 112, 128]."""
    return pictures[..., CRITIC_ROWS, CRITIC_COLUMNS]
