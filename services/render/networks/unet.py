"""U-Net of FiLM layers that the renderers' networks are built on (Song et al. 2023, Sec. III-B.3, module Refine).

Everything that belongs to one person is `actor_state`, an input of the network: a scale and a shift for each channel behind every
convolution (FiLM, Perez et al. 2018). So one loaded model serves all actors and computes several actors in one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FilmConv(nn.Module):
    """3 x 3 convolution, then x * (1 + scale) + shift by the actor's state, then SiLU unless `linear`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: 2 halves height and width.
        linear: leave the SiLU out.
        normalise: put an instance normalisation before scale and shift, which makes them AdaIN (Huang and Belongie 2017).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, linear: bool = False, normalise: bool = False
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.linear = linear
        self.state_size = 2 * out_channels
        self.state_offset = 0
        """Where this layer's scales begin inside an actor's state; the layer's shifts follow. The U-Net sets this number."""

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """Return the layer's output.

        Args:
            x: float [B, in_channels, H, W].
            state: float [B, S], the actors' whole states. Zeros change nothing.
        """
        begin, middle = self.state_offset, self.state_offset + self.state_size // 2
        scale = state[:, begin:middle, None, None]
        shift = state[:, middle : begin + self.state_size, None, None]
        convolved: Tensor = self.conv(x)
        if self.normalise:
            # The mean is one operator: means that are computed by themselves have other last bits in other batches (ONNX Runtime).
            convolved = F.instance_norm(convolved, eps=1e-5)
        out = convolved * (1.0 + scale) + shift
        return out if self.linear else F.silu(out)


class ResidualBlock(nn.Module):
    """x + g(f(x)), with a FilmConv f and a linear FilmConv g. The weights of g begin at zero: the block begins as the identity.

    Args:
        channels: channels of input and output.
        normalise: whether f normalises.
    """

    def __init__(self, channels: int, *, normalise: bool = False) -> None:
        super().__init__()
        self.first = FilmConv(channels, channels, normalise=normalise)
        self.second = FilmConv(channels, channels, linear=True)
        nn.init.zeros_(self.second.conv.weight)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """Return the block's output, of the same shape as `x`."""
        out: Tensor = x + self.second(self.first(x, state), state)
        return out


class UNetTrunk(nn.Module):
    """U-Net of FiLM layers behind a pixel-unshuffle(2) stem, up to its last convolution, which begins at zero.

    Args:
        widths: channels at 1/2, 1/4, 1/8, ... of the pictures' size.
        depths: residual blocks on the way down at each of these sizes; the way up has one block at each size.
        in_channels: channels of the pictures.
        out_channels: channels of the last convolution, at half the pictures' size.
        normalised_levels: how many of the lowest levels have residual blocks that normalise (AdaIN). In the levels above,
            normalising would erase the light that the result must keep.
    """

    def __init__(
        self, widths: Sequence[int], depths: Sequence[int], *, in_channels: int, out_channels: int, normalised_levels: int = 0
    ) -> None:
        super().__init__()
        low = [level >= len(widths) - normalised_levels for level in range(len(widths))]
        self.stem = FilmConv(in_channels * 4, widths[0])
        self.down = nn.ModuleList(FilmConv(before, after, stride=2) for before, after in pairwise(widths))
        self.down_blocks = nn.ModuleList(
            nn.ModuleList(ResidualBlock(width, normalise=lowest) for _ in range(depth))
            for width, depth, lowest in zip(widths, depths, low, strict=True)
        )
        backwards = widths[::-1]
        self.up = nn.ModuleList(FilmConv(before + after, after) for before, after in pairwise(backwards))
        self.up_blocks = nn.ModuleList(
            ResidualBlock(width, normalise=lowest) for width, lowest in zip(backwards[1:], low[-2::-1], strict=True)
        )
        self.head = FilmConv(widths[0], out_channels, linear=True)
        nn.init.zeros_(self.head.conv.weight)
        self.state_size = 0
        """S, the length of an actor's state."""
        for module in self.modules():
            if isinstance(module, FilmConv):
                module.state_offset = self.state_size
                self.state_size += module.state_size

    def default_state(self) -> Tensor:
        """Return the prior's own state, float32 [S]: zeros, which change nothing."""
        return torch.zeros(self.state_size)

    def way_down(self, pictures: Tensor, state: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the maps of the lowest level, and a list of the other levels' maps, largest first: float [B, C, h, w] each.

        Args:
            pictures: float [B, in_channels, H, W] in [0, 1].
            state: float [B, S].
        """
        x: Tensor = self.stem(F.pixel_unshuffle(pictures * 2.0 - 1.0, 2), state)
        above: list[Tensor] = []
        for level, blocks in enumerate(self.down_blocks):
            if level:
                above.append(x)
                x = self.down[level - 1](x, state)
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x, state)
        return x, above

    def trunk(self, pictures: Tensor, state: Tensor) -> Tensor:
        """Return the last convolution's output, float [B, out_channels, H / 2, W / 2].

        Args:
            pictures: float [B, in_channels, H, W] in [0, 1].
            state: float [B, S].
        """
        x, skips = self.way_down(pictures, state)
        for up, block in zip(self.up, self.up_blocks, strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(up(torch.cat([x, skips.pop()], dim=1), state), state)
        out: Tensor = self.head(x, state)
        return out
