"""Patch discriminator of frames or of sequences of frames (Isola et al. 2017). Training and personalisation use this network.

Beside a picture the discriminator sees the picture's fine detail, amplified (as in Denton et al. 2015). A drawn picture differs
from footage in sharpness first, by a few grey levels. A picture in the range [-1, 1] all but hides such a difference.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from services.render.networks.weights import load_network

_WIDTHS: Final = (32, 64, 96, 128)
_SLOPE: Final = 0.2
_DETAIL_PX: Final = 5
_DETAIL_GAIN: Final = 8.0


class PatchDiscriminator(nn.Module):
    """Discriminator that says "real" or "made" with a score for each patch of 46 x 46 px.

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
        ModelNotFound: the file is missing or holds another network.
    """
    return load_network(path, lambda config: PatchDiscriminator(int(config["in_channels"]))).train().requires_grad_(True)
