"""Networks of the paper itself: U-Net of table 7, discriminator of table 8 (paper `everybody`, App. D).

Table 7 at its full size is the configuration `EverybodyFullConfig()`, for a machine that can train such a network. The network of
services/render/renderers/everybody/network.py is served. Table 8 at a smaller size is the discriminator that trains this network.

One departure: the table's DecBlock, a convolution of stride 2 before a pixel shuffle by 2, does not reach the resolutions that
stand beside the DecBlock (3 -> 1 -> 2, not 6). Here a DecBlock is a 3 x 3 convolution of stride 1 to four times the channels, then
the pixel shuffle.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SLOPE: Final = 0.2
_RELU_LEVELS: Final = 2
"""How many of the lowest levels end in a ReLU. All levels above end in a LeakyReLU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EverybodyFullConfig:
    """Shape of table 7.

    Attributes:
        frames: frames of the window.
        widths: channels of E1 to E7. Each level halves height and width, so both are multiples of 2 ** len(widths).
    """

    frames: int = 7
    widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512, 512)


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowDiscriminatorConfig:
    """Shape of table 8.

    Attributes:
        frames: RGB frames that the discriminator sees at once.
        widths: channels of E1, E2, ... Each level halves height and width.
        scores: number of scores; the table has one per frame.
    """

    frames: int = 7
    widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512, 512)
    scores: int = 7


class EverybodyFullNetwork(nn.Module):
    """U-Net of table 7."""

    def __init__(self, config: EverybodyFullConfig) -> None:
        super().__init__()
        widths = config.widths
        self.encoders = nn.ModuleList(nn.Conv2d(before, after, 4, 2, 1) for before, after in pairwise((4 * config.frames, *widths)))
        outputs = (*widths[-2::-1], 3 * config.frames)
        # D7 has no skip. Every other block sees the encoder's level of the same size beside the block below.
        inputs = (widths[-1], *(2 * width for width in widths[-2::-1]))
        self.decoders = nn.ModuleList(nn.Conv2d(inp, 4 * out, 3, 1, 1) for inp, out in zip(inputs, outputs, strict=True))

    def levels(self, window: Tensor) -> list[Tensor]:
        """Return the outputs of E1, E2, ... E7, D7, ... D1, in this order."""
        made: list[Tensor] = []
        x = window
        for level, encoder in enumerate(self.encoders):
            x = _activated(encoder(x), level, len(self.encoders))
            made.append(x)
        skips = made[-2::-1]
        for level, decoder in enumerate(self.decoders):
            if level:
                x = torch.cat([skips[level - 1], x], dim=1)
            x = F.pixel_shuffle(decoder(x), 2)
            if level < len(self.decoders) - 1:
                x = F.relu(x)
            made.append(x)
        return made

    def forward(self, window: Tensor) -> Tensor:
        """Return faces, float [B, 3 T, H, W], for masked frames and heatmaps, float [B, 4 T, H, W]."""
        return self.levels(window)[-1]


class WindowDiscriminator(nn.Module):
    """Discriminator of table 8, which says "real" or "made" of a window of frames. Least squares (LSGAN), so no sigmoid."""

    def __init__(self, config: WindowDiscriminatorConfig) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            nn.Conv2d(before, after, 4, 2, 1) for before, after in pairwise((3 * config.frames, *config.widths))
        )
        self.output = nn.Linear(config.widths[-1], config.scores)

    def forward(self, frames: Tensor) -> Tensor:
        """Return scores, float [B, scores], of frames, float [B, 3 T, H, W] in [0, 1]."""
        x = frames * 2.0 - 1.0
        for level, encoder in enumerate(self.encoders):
            x = _activated(encoder(x), level, len(self.encoders))
        out: Tensor = self.output(x.mean(dim=(2, 3)))
        return out


def _activated(x: Tensor, level: int, num_levels: int) -> Tensor:
    return F.relu(x) if level >= num_levels - _RELU_LEVELS else F.leaky_relu(x, _SLOPE)
