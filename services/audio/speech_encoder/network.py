"""The first blocks of Whisper's encoder in PyTorch.

Radford et al. 2022, "Robust speech recognition via large-scale weak supervision".

    log mel [N, R, 80] -> stem (convolutions of 3 rows, the second takes every other row) + sine positions -> blocks 1 to B
    -> states of each tapped block, projected to fewer numbers

A block is a pre-norm transformer block: x + attention(norm(x)), then x + feed-forward(norm(x)). The network serves as the reference
for the exported one. The export leaves the last tapped block's wide output out: its projection is folded into the last layer.

Shapes: N windows, R rows of 10 ms (even), R / 2 states of 20 ms, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.audio.types import NUM_MELS

_LOUDEST_BELOW: Final = 8.0
"""Decades of power below the window's loudest band to which the log mel is cut."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """Sizes of the encoder. The defaults are those of tiny.en."""

    width: int = 384
    heads: int = 6
    blocks: int = 3
    tapped: tuple[int, ...] = (2, 3)
    """Blocks whose states are answered, counted from 1, in increasing order. The last is `blocks`."""
    projected: int = 96
    """Numbers of a tapped block's projected state."""


class Block(nn.Module):
    """One transformer block: attention over all states of the window, then a feed-forward layer of four times the width."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(config.width)
        self.mixed = nn.Linear(config.width, 3 * config.width)
        self.joined = nn.Linear(config.width, config.width)
        self.feed_norm = nn.LayerNorm(config.width)
        self.wide = nn.Linear(config.width, 4 * config.width)
        self.narrow = nn.Linear(4 * config.width, config.width)

    def attended(self, x: Tensor) -> Tensor:
        """Return x + attention(norm(x)): [N, T, D] -> [N, T, D]."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.mixed(self.attention_norm(x)).chunk(3, dim=-1)
        )
        weights = torch.softmax(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5, dim=-1)
        joined: Tensor = x + self.joined((weights @ value).transpose(1, 2).flatten(2))
        return joined

    def widened(self, x: Tensor) -> Tensor:
        """Return the hidden layer of the feed-forward part: [N, T, D] -> [N, T, 4 D]."""
        return functional.gelu(self.wide(self.feed_norm(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output: [N, T, D] -> [N, T, D]."""
        x = self.attended(x)
        fed: Tensor = x + self.narrow(self.widened(x))
        return fed


def positions(count: int, width: int) -> Tensor:
    """Return the sine positions of states, float32 [count, width]: sines first, then cosines."""
    rates = torch.exp(-torch.log(torch.tensor(10_000.0)) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(count)[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class SpeechEncoder(nn.Module):
    """Stem, blocks and projections."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Conv1d(NUM_MELS, config.width, 3, padding=1)
        self.second = nn.Conv1d(config.width, config.width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.projections = nn.ModuleList(nn.Linear(config.width, config.projected) for _ in config.tapped)

    def every_block(self) -> list[Block]:
        """Return the blocks in order."""
        return [cast("Block", block) for block in self.blocks]

    def every_projection(self) -> list[nn.Linear]:
        """Return the projections of the tapped blocks in order."""
        return [cast("nn.Linear", project) for project in self.projections]

    def stem(self, log_mel: Tensor) -> Tensor:
        """Return the input of block 1: [N, R, 80] -> [N, R / 2, D]. The log mel is cut and scaled by the window's loudest band."""
        loudest = log_mel.amax(dim=(1, 2), keepdim=True)
        scaled = (torch.maximum(log_mel, loudest - _LOUDEST_BELOW) + 4.0) / 4.0
        x = functional.gelu(self.first(scaled.transpose(1, 2)))
        x = functional.gelu(self.second(x)).transpose(1, 2)
        return x + positions(x.shape[1], x.shape[2])

    def states(self, log_mel: Tensor) -> list[Tensor]:
        """Return the full states of the tapped blocks, each [N, R / 2, D].

        Args:
            log_mel: [N, R, 80], log10 of mel band power.
        """
        x = self.stem(log_mel)
        found = []
        for number, block in enumerate(self.every_block(), start=1):
            x = block(x)
            if number in self.config.tapped:
                found.append(x)
        return found

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return the projected states of the tapped blocks side by side: [N, R, 80] -> [N, R / 2, len(tapped) * projected]."""
        return torch.cat([project(x) for project, x in zip(self.every_projection(), self.states(log_mel), strict=True)], dim=-1)
