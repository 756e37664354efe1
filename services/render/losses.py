"""Losses of the renderers (Song et al. 2023, Sec. III-B.3, Eq. 10-12) and the patch discriminator. Training and
personalisation share them.

    L_r = b1 L_rec + b2 L_frame + b3 L_seq + b4 L_vgg + b5 L_tv,        b = 10, 1, 0.1, 1, 1

The paper does not say in which units its terms are, so the weights alone mean little. The units here:

* Pictures lie in [0, 1]. L_rec and L_tv are mean absolute values over the mask. In L_rec, pixels on and near the lips have three
  times the weight.
* L_frame and L_seq are least-squares adversarial losses (Mao et al. 2017) in place of the logarithms of Eq. 11 and 12. With a few
  thousand steps on a few people the discriminators soon win. Then the logarithm of a saturated score gives the renderer no
  gradient, while the square still does.
* L_vgg is the mean absolute difference of features. The features of each stage are divided by their mean absolute value over the
  training pictures.

In these units, the gradients of L_rec, L_vgg and (once the discriminator has learned) L_frame at the picture have the same size.

The patch discriminator judges frames or sequences of frames (Isola et al. 2017).

Beside a picture the discriminator sees the picture's fine detail, amplified (as in Denton et al. 2015). A drawn picture differs
from footage in sharpness first, by a few grey levels. A picture in the range [-1, 1] all but hides such a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from services.render.networks.weights import load_network
from services.render.pairs import BASE, LIPS, MASK

_WIDTHS: Final = (32, 64, 96, 128)
_SLOPE: Final = 0.2
_DETAIL_PX: Final = 5
_DETAIL_GAIN: Final = 8.0
Features = Callable[[Tensor], Sequence[Tensor]]
"""Returns features of several scales for pictures, float [B, 3, H, W] in [0, 1]."""
DISCRIMINATOR_ROWS: Final = slice(24, 136)
DISCRIMINATOR_COLUMNS: Final = slice(16, 144)
"""Rows and columns of the part of the box that discriminators and perceptual features see: 128 x 112 px round mouth and chin."""
_LIP_WEIGHT: Final = 2.0
_LIP_SPREAD_PX: Final = 13


class PatchDiscriminator(nn.Module):
    """Discriminator that says "real" or "made" with a score for each patch of 62 x 62 px, whose detail depends on 66 x 66 px.

    Args:
        in_channels: 3 for a frame, 3 T for T frames that are stacked along the channels.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(2 * in_channels, _WIDTHS[0], 4, 2, 1), nn.LeakyReLU(_SLOPE)]
        for before, after in pairwise(_WIDTHS):
            stride = 2 if after < _WIDTHS[-1] else 1
            layers += [nn.Conv2d(before, after, 4, stride, 1), nn.LeakyReLU(_SLOPE)]
        layers.append(nn.Conv2d(_WIDTHS[-1], 1, 3, 1, 1))
        self.layers = nn.Sequential(*layers)
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, pictures: Tensor) -> Tensor:
        """Return scores, float [B, 1, h, w], of pictures [B, in_channels, H, W] in [0, 1]; near 1 = real, near 0 = made."""
        detail = pictures - F.avg_pool2d(pictures, _DETAIL_PX, 1, _DETAIL_PX // 2, count_include_pad=False)
        out: Tensor = self.layers(torch.cat([pictures * 2.0 - 1.0, detail * _DETAIL_GAIN], dim=1))
        return out


def load_discriminator(path: Path) -> PatchDiscriminator:
    """Return the discriminator of a weights file, ready to be trained on.

    Raises:
        ModelNotFoundError: the file is missing or holds another network.
    """
    return load_network(path, lambda config: PatchDiscriminator(int(config["in_channels"]))).train().requires_grad_(True)


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderLossWeights:
    """Weights b1 to b5 of Eq. 10."""

    reconstruction: float = 10.0
    frame: float = 1.0
    sequence: float = 0.1
    perceptual: float = 1.0
    total_variation: float = 1.0


class ComposedPictures(NamedTuple):
    """Pictures that were drawn for a batch.

    Attributes:
        pictures: float [B, 3, H, W] in [0, 1]: new face inside the mask, footage outside, blended by the soft mask.
        target: float [B, 3, H, W] in [0, 1], the footage.
        mask: float [B, 1, H, W] in [0, 1], the lower-face mask.
        weights: float [B, 1, H, W], weight of each pixel in L_rec.
    """

    pictures: Tensor
    target: Tensor
    mask: Tensor
    weights: Tensor


def compose(inputs: Tensor, residual: Tensor, target: Tensor) -> ComposedPictures:
    """Add the network's residual to the base picture and blend the sum into the footage.

    Args:
        inputs: float [B, C, H, W] in [0, 1], the network's input. Channels BASE, MASK and LIPS of services.render.pairs are read.
        residual: float [B, 3, H, W], the network's output.
        target: float [B, 3, H, W] in [0, 1], the footage.
    """
    mask = inputs[:, MASK : MASK + 1]
    lips = inputs[:, LIPS : LIPS + 1]
    drawn = inputs[:, BASE] + residual
    pictures = target + mask * (drawn - target)
    return ComposedPictures(pictures, target, mask, mask * (1.0 + _LIP_WEIGHT * lip_neighbourhood(lips)))


def lip_neighbourhood(lips: Tensor) -> Tensor:
    """Return how near pixels are to the lips, float [B, 1, H, W] in [0, 1]: 1 on the lips, 0 from 13 px beside the lips on.

    Args:
        lips: float [B, 1, H, W] in [0, 1].
    """
    # Pooling takes ten times as long over squares of 13 px as over rows and then columns of 13 px.
    return _over_neighbours(_over_neighbours(lips, torch.amax), torch.mean)


def _over_neighbours(pictures: Tensor, reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Return a reduction over the square of 13 x 13 px around each pixel, with zeros beyond the border: [B, 1, H, W] as given."""
    margin = _LIP_SPREAD_PX // 2
    down = reduce(F.pad(pictures, (0, 0, margin, margin)).unfold(2, _LIP_SPREAD_PX, 1), -1)
    return reduce(F.pad(down, (margin, margin)).unfold(3, _LIP_SPREAD_PX, 1), -1)


def reconstruction_loss(composed: ComposedPictures) -> Tensor:
    """Return L_rec: the weighted mean absolute error inside the mask."""
    error = (composed.pictures - composed.target).abs() * composed.weights
    return error.sum() / (3.0 * composed.weights.sum())


def total_variation_loss(composed: ComposedPictures) -> Tensor:
    """Return L_tv: the mean absolute difference of neighbouring pixels inside the mask."""
    pictures, mask = composed.pictures, composed.mask
    across = ((pictures[..., 1:] - pictures[..., :-1]).abs() * mask[..., 1:]).sum()
    down = ((pictures[..., 1:, :] - pictures[..., :-1, :]).abs() * mask[..., 1:, :]).sum()
    return (across + down) / (6.0 * mask.sum())


def perceptual_loss(features: Features, pictures: Tensor, target: Tensor) -> Tensor:
    """Return L_vgg: the mean over scales of the mean absolute difference of features.

    Args:
        features: returns features, by the network of networks/perceptual.py or by the user's VGG (research/render/training.py).
        pictures: float [B, 3, h, w] in [0, 1], drawn.
        target: float [B, 3, h, w] in [0, 1], footage.
    """
    with torch.no_grad():
        target_features = features(target)
    pairs = zip(features(pictures), target_features, strict=True)
    terms = [(got - want).abs().mean() for got, want in pairs]
    return torch.stack(terms).mean()


def adversarial_loss(scores: Tensor) -> Tensor:
    """Return the renderer's part of L_frame or L_seq, mean (D(drawn) - 1)^2, from scores of any shape."""
    return (scores - 1.0).square().mean()


def discriminator_loss(real: Tensor, drawn: Tensor) -> Tensor:
    """Return the discriminator's part of L_frame or L_seq: half of mean (D(real) - 1)^2 + mean D(drawn)^2."""
    return 0.5 * ((real - 1.0).square().mean() + drawn.square().mean())


def discriminator_view(pictures: Tensor) -> Tensor:
    """Return the part of the boxes that discriminators and perceptual features see: [B, C, 112, 128]."""
    return pictures[..., DISCRIMINATOR_ROWS, DISCRIMINATOR_COLUMNS]
