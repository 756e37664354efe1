"""The refine network: masked footage + warped texture + wanted lips -> what to add to the texture.

Paper `ugc`, Sec. III-B.3 (module Refine). A U-Net behind a pixel-unshuffle(2) stem. Two departures from the paper:

* the result is `texture + residual`: the texture's own detail (teeth, gloss, stubble) goes straight through, where a picture
  drawn from scratch under an L1 loss is blurred;
* everything that belongs to one person is `actor_state`, an input: a scale and a shift for each channel behind every
  convolution (FiLM, Perez et al. 2018). One loaded model therefore serves all actors and batches across them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INPUT_CHANNELS: Final = 9
"""Masked background RGB, texture RGB, mask, wanted lips, wanted inside of the mouth."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineConfig:
    """Shape of the refine network.

    Attributes:
        widths: channels at 80, 40, 20 and 10 px.
        depths: residual blocks on the way down at each of these sizes; the way up has one at each.
    """

    widths: tuple[int, ...] = (24, 48, 96, 144)
    depths: tuple[int, ...] = (1, 1, 1, 2)

    def to_metadata(self) -> dict[str, Any]:
        """As plain values, for a checkpoint's header."""
        return asdict(self)


class FilmConv(nn.Module):
    """3 x 3 convolution, then x * (1 + scale) + shift by the actor's state, then SiLU unless `linear`.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: 2 halves height and width.
        linear: leave the SiLU out.
        normalise: instance normalisation before scale and shift, which makes them AdaIN (Huang and Belongie 2017).
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
        """Where this layer's scales begin inside an actor's state; its shifts follow. Set by the network."""

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """`state` is the whole state; zeros change nothing."""
        begin, middle = self.state_offset, self.state_offset + self.state_size // 2
        scale = state[:, begin:middle, None, None]
        shift = state[:, middle : begin + self.state_size, None, None]
        made: Tensor = self.conv(x)
        if self.normalise:
            # As one operator: means that are taken by themselves have other last bits in other batches (ONNX Runtime).
            made = F.instance_norm(made, eps=1e-5)
        out = made * (1.0 + scale) + shift
        return out if self.linear else F.silu(out)


class ResidualBlock(nn.Module):
    """x + g(f(x)), f a FilmConv and g a linear one, which begins at zero: the block begins as the identity.

    Args:
        channels: of input and output.
        normalise: of f.
    """

    def __init__(self, channels: int, *, normalise: bool = False) -> None:
        super().__init__()
        self.first = FilmConv(channels, channels, normalise=normalise)
        self.second = FilmConv(channels, channels, linear=True)
        nn.init.zeros_(self.second.conv.weight)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """Same shape as `x`."""
        out: Tensor = x + self.second(self.first(x, state), state)
        return out


class UNetTrunk(nn.Module):
    """A U-Net of FiLM layers behind a pixel-unshuffle(2) stem, up to its last convolution, which begins at zero.

    Args:
        config: of the levels.
        in_channels: of the pictures.
        out_channels: of the last convolution, at half the pictures' size.
        normalised_levels: lowest levels whose residual blocks normalise (AdaIN). In those above, normalising would erase the light
            that the result must keep.
    """

    def __init__(self, config: RefineConfig, *, in_channels: int, out_channels: int, normalised_levels: int = 0) -> None:
        super().__init__()
        widths = config.widths
        low = [level >= len(widths) - normalised_levels for level in range(len(widths))]
        self.stem = FilmConv(in_channels * 4, widths[0])
        self.down = nn.ModuleList(FilmConv(before, after, stride=2) for before, after in pairwise(widths))
        self.down_blocks = nn.ModuleList(
            nn.ModuleList(ResidualBlock(width, normalise=lowest) for _ in range(depth))
            for width, depth, lowest in zip(widths, config.depths, low, strict=True)
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
        """The prior's own state, float32 [S]: zeros, which change nothing."""
        return torch.zeros(self.state_size)

    def trunk(self, pictures: Tensor, state: Tensor) -> Tensor:
        """Float [B, C, H, W] in [0, 1] and states [B, S] to the last convolution's [B, out_channels, H / 2, W / 2]."""
        x: Tensor = self.stem(F.pixel_unshuffle(pictures * 2.0 - 1.0, 2), state)
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.down_blocks):
            if level:
                skips.append(x)
                x = self.down[level - 1](x, state)
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x, state)
        for up, block in zip(self.up, self.up_blocks, strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(up(torch.cat([x, skips.pop()], dim=1), state), state)
        out: Tensor = self.head(x, state)
        return out


class RefineNetwork(UNetTrunk):
    """The U-Net; see the module's text."""

    def __init__(self, config: RefineConfig) -> None:
        super().__init__(config, in_channels=INPUT_CHANNELS, out_channels=12)
        self.config = config

    def forward(self, pictures: Tensor, state: Tensor) -> Tensor:
        """Residual to add to the texture.

        Args:
            pictures: float [B, 9, 160, 160], all in [0, 1]: masked background RGB, texture RGB, mask, wanted lips, wanted
                inside of the mouth.
            state: float [B, S], the actors' states.

        Returns:
            float [B, 3, 160, 160], unit: the full range of the pictures.
        """
        # A tenth keeps the first steps of training small beside the texture.
        return F.pixel_shuffle(self.trunk(pictures, state), 2) * 0.1
