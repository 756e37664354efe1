"""Patch discriminators of frames and of sequences (Isola et al. 2017; paper `ugc` Eq. 11 and 12). Used in training only.

Beside the picture they see its fine detail, amplified (as in Denton et al. 2015): what is made here differs from footage in
sharpness first, by a few grey levels, which a picture in the range [-1, 1] all but hides.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SEQUENCE_FRAMES: Final = 6
"""Frames that the sequence discriminator sees at once (paper Sec. III-C)."""
_WIDTHS: Final = (32, 64, 96, 128)
_SLOPE: Final = 0.2
_DETAIL_PX: Final = 5
_DETAIL_GAIN: Final = 8.0


class PatchDiscriminator(nn.Module):
    """Real or made, a score for each patch of 46 x 46 px.

    Args:
        in_channels: 3 for a frame, 3 * SEQUENCE_FRAMES for a sequence stacked along the channels.
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
        """Scores [B, 1, h, w] of pictures in [0, 1]; near 1 = real, near 0 = made."""
        detail = pictures - F.avg_pool2d(pictures, _DETAIL_PX, 1, _DETAIL_PX // 2, count_include_pad=False)
        out: Tensor = self.layers(torch.cat([pictures * 2.0 - 1.0, detail * _DETAIL_GAIN], dim=1))
        return out


def stack_sequence(frames: Tensor) -> Tensor:
    """[B, T, 3, H, W] to [B, 3 T, H, W] for the sequence discriminator."""
    return torch.flatten(frames, 1, 2)
