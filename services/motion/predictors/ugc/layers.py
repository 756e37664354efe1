"""Layers of the network of `ugc`.

Shapes: N batch, C channels, W frames of a window.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class InstanceNorm(nn.Module):
    """Normalisation of each channel over a window, without affine (UGC paper, Eq. 1): M'_c = (M_c - mu_c) / sigma_c.

    `floor` is added to the variance, so that a channel that hardly moves in a window (silence) is not blown up to full size.
    """

    def __init__(self, floor: float = 1e-2) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, x: Tensor) -> Tensor:
        """Return normalised channels: [N, C, W] -> [N, C, W]."""
        centred = x - x.mean(dim=-1, keepdim=True)
        return centred * torch.rsqrt((centred * centred).mean(dim=-1, keepdim=True) + self.floor)


class Conv(nn.Module):
    """1-D convolution over frames. The length stays; `ahead` frames of the width look forward, the other frames look back."""

    def __init__(self, channels_in: int, channels_out: int, width: int, ahead: int) -> None:
        super().__init__()
        self.padding = (width - 1 - ahead, ahead)
        self.conv = nn.Conv1d(channels_in, channels_out, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution with zeros beyond both ends: [N, in, W] -> [N, out, W]."""
        y: Tensor = self.conv(functional.pad(x, self.padding))
        return y


class ConvBank(nn.Module):
    """Convolutions of several widths side by side, for short- and long-term speech information.

    Args:
        channels_in: channels of the input.
        channels_each: output channels per width.
        widths: widths in frames, each with the look-ahead min(ahead, width // 2).
        ahead: largest look-ahead in frames.
    """

    def __init__(self, channels_in: int, channels_each: int, widths: tuple[int, ...], ahead: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(Conv(channels_in, channels_each, width, min(ahead, width // 2)) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolutions side by side: [N, in, W] -> [N, each * len(widths), W]."""
        return functional.leaky_relu(torch.cat([branch(x) for branch in self.branches], dim=1), 0.1)
