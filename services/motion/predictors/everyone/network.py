"""Audio-to-expression network of `everyone`: speech around a frame to the frame's expression, for all people.

    window [N, 36, 4, 44] -> encoder, convolutions with instance norm    -> coefficients [N, 36, E]   (short-term speech)
                          -> encoder, self-attention over the window     -> coefficients [N, 36, E]   (long-term speech)
    11 frames of it       -> linear filter (closed form, fixed)          -> coefficients [N, E]
    coefficients = filter + share * mean of both branches at the frame

Everyone's paper (Sec. 3.6) takes the transformer of Imitator (Thambiraja et al. 2023) on features of wav2vec 2.0. Here the features
are phone probabilities and relative energies, which do not tell who speaks, and the network is small: five minutes of free speech
with faces are all that it learns from. Each branch learns by itself what the filter leaves. Their errors differ, so their mean
is better than either. The attention sees the whole window and nothing else; a bias by distance lets near frames count more,
as in Imitator's decoder.

Coefficients are measured from the person's rest mouth, in units of the person's spread. The layer per person is in
person_layer.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.motion.features import NUM_CONTENT
from services.motion.predictors.everyone.inputs import WINDOW, WINDOW_PAST
from services.motion.types import ROWS_PER_FRAME

FILTER_PAST: Final = 6
"""Frames before the predicted frame that the filter hears."""
FILTER_AHEAD: Final = 4
"""Frames after the predicted frame that the filter hears."""
FILTER_WINDOW: Final = FILTER_PAST + 1 + FILTER_AHEAD
FILTER_ROWS: Final = 2
"""Rows per frame that the filter hears: means of two neighbouring rows."""
_SLOPE: Final = 0.1
_NORM_FLOOR: Final = 1e-2
"""Least variance of instance norm: a channel that hardly moves in a window (silence) is not blown up to full size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EveryoneConfig:
    """Sizes of the network."""

    num_expression: int = 24
    channels: int = 48
    bank_channels: int = 12
    bank_widths: tuple[int, ...] = (1, 3, 5, 9)
    conv_layers: int = 3
    attention_layers: int = 2
    heads: int = 4
    dropout: float = 0.3
    share: float = 0.8
    """Share of the branches' answer that is added to the filter's outside of training."""


def instance_norm(x: Tensor) -> Tensor:
    """Return channels without their mean and size over the window: [N, C, W] -> [N, C, W]."""
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(dim=-1, keepdim=True) + _NORM_FLOOR)


class SpeechEncoder(nn.Module):
    """Encoder of the window: convolutions of several widths side by side."""

    def __init__(self, config: EveryoneConfig) -> None:
        super().__init__()
        channels, widths = config.channels, config.bank_widths
        self.enter = nn.Linear(ROWS_PER_FRAME * NUM_CONTENT, channels)
        self.bank = nn.ModuleList(nn.Conv1d(channels, config.bank_channels, width, padding=width // 2) for width in widths)
        self.merge = nn.Conv1d(channels + config.bank_channels * len(widths), channels, 3, padding=1)
        self.dropout = nn.Dropout1d(config.dropout)

    def forward(self, content: Tensor) -> Tensor:
        """Return the encoded speech: [N, W, 4, 44] -> [N, C, W]."""
        x = functional.leaky_relu(self.enter(content.flatten(2)), _SLOPE).transpose(1, 2)
        x = torch.cat([x, *(functional.leaky_relu(each(x), _SLOPE) for each in self.bank)], dim=1)
        encoded: Tensor = self.dropout(functional.leaky_relu(self.merge(x), _SLOPE))
        return encoded


class ConvLayer(nn.Module):
    """Convolution of three frames with instance norm, added to its input."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, padding=1)
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, W] -> [N, C, W]."""
        changed: Tensor = x + self.dropout(functional.leaky_relu(instance_norm(self.conv(x)), _SLOPE))
        return changed


class AttentionLayer(nn.Module):
    """Self-attention over the window with a learned bias by distance, then two linear layers; both added to their inputs."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, (channels // heads) ** -0.5
        self.norm, self.norm_after = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.enter, self.leave = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.wide, self.narrow = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)
        self.dropout = nn.Dropout(dropout)
        # A geometric row of slopes: half of the heads hear near frames, the others the whole window (ALiBi, Press et al. 2022).
        slopes = 2.0 ** -(torch.arange(heads) + 1.0)
        self.bias = nn.Parameter(-slopes[:, None] * torch.arange(1 - WINDOW, WINDOW).abs())
        self.distance: Tensor
        self.register_buffer("distance", torch.arange(WINDOW)[None] - torch.arange(WINDOW)[:, None] + WINDOW - 1, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 36, C] -> [N, 36, C]."""
        split = self.enter(self.norm(x)).reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = split[0], split[1], split[2]
        weights = torch.softmax(query @ key.transpose(-1, -2) * self.scale + self.bias[:, self.distance], dim=-1)
        heard = (weights @ value).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.leave(heard))
        answer: Tensor = x + self.dropout(self.narrow(functional.gelu(self.wide(self.norm_after(x)))))
        return answer


class ConvBranch(nn.Module):
    """Branch of convolutions."""

    def __init__(self, config: EveryoneConfig) -> None:
        super().__init__()
        self.encoder = SpeechEncoder(config)
        self.layers = nn.Sequential(*(ConvLayer(config.channels, config.dropout) for _ in range(config.conv_layers)))
        self.out = _small_output(config)

    def forward(self, content: Tensor) -> Tensor:
        """Return coefficients: [N, 36, 4, 44] -> [N, 36, E]."""
        answer: Tensor = self.out(self.layers(instance_norm(self.encoder(content))).transpose(1, 2))
        return answer


class AttentionBranch(nn.Module):
    """Branch of self-attention."""

    def __init__(self, config: EveryoneConfig) -> None:
        super().__init__()
        self.encoder = SpeechEncoder(config)
        layers = (AttentionLayer(config.channels, config.heads, config.dropout) for _ in range(config.attention_layers))
        self.layers = nn.Sequential(*layers, nn.LayerNorm(config.channels))
        self.out = _small_output(config)

    def forward(self, content: Tensor) -> Tensor:
        """Return coefficients: [N, 36, 4, 44] -> [N, 36, E]."""
        answer: Tensor = self.out(self.layers(self.encoder(content).transpose(1, 2)))
        return answer


class EveryoneNetwork(nn.Module):
    """Both branches on top of the fixed filter."""

    def __init__(self, config: EveryoneConfig) -> None:
        super().__init__()
        self.config = config
        self.filter = nn.Linear(FILTER_WINDOW * FILTER_ROWS * NUM_CONTENT, config.num_expression)
        self.filter.requires_grad_(False)
        self.branches = nn.ModuleList([ConvBranch(config), AttentionBranch(config)])

    def set_filter(self, weight: Tensor, bias: Tensor) -> None:
        """Set the closed-form part, [E, 968] and [E]."""
        with torch.no_grad():
            self.filter.weight.copy_(weight)
            self.filter.bias.copy_(bias)

    def filtered(self, content: Tensor) -> Tensor:
        """Return the filter's answers: content rows of 6 + W + 4 frames [N, 10 + W, 4, 44] -> [N, W, E]."""
        halves = _halves(content).unfold(1, FILTER_WINDOW, 1).transpose(2, 3)
        answer: Tensor = self.filter(halves.flatten(2))
        return answer

    def branches_of(self, content: Tensor) -> list[Tensor]:
        """Return the answer of each branch: content rows of 6 + 36 + 4 frames [N, 46, 4, 44] -> [N, 36, E] each."""
        return [branch(content[:, FILTER_PAST : FILTER_PAST + WINDOW]) for branch in self.branches]

    def forward(self, window: Tensor) -> Tensor:
        """Return the expression of the window's frame: [N, 36, 4, 44] -> [N, E] in units of the person's spread."""
        answers = torch.stack([branch(window)[:, WINDOW_PAST] for branch in self.branches])
        return self.filter_of(window) + self.config.share * answers.mean(dim=0)

    def filter_of(self, window: Tensor) -> Tensor:
        """Return the filter's answer for the window's frame: [N, 36, 4, 44] -> [N, E]."""
        near = window[:, WINDOW_PAST - FILTER_PAST : WINDOW_PAST + 1 + FILTER_AHEAD]
        answer: Tensor = self.filter(_halves(near).flatten(1))
        return answer


class FilterAlone(nn.Module):
    """The closed-form part of a network as a network of windows."""

    def __init__(self, network: EveryoneNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, window: Tensor) -> Tensor:
        """Return EveryoneNetwork.filter_of."""
        return self.network.filter_of(window)


def _halves(content: Tensor) -> Tensor:
    """Return means of neighbouring rows: [N, W, 4, 44] -> [N, W, 88]."""
    rows = content.reshape(*content.shape[:2], FILTER_ROWS, ROWS_PER_FRAME // FILTER_ROWS, NUM_CONTENT)
    return rows.mean(dim=3).flatten(2)


def _small_output(config: EveryoneConfig) -> nn.Linear:
    """Return the last layer of a branch, which starts near zero: the filter's answer is the beginning."""
    layer = nn.Linear(config.channels, config.num_expression)
    with torch.no_grad():
        layer.weight.mul_(0.1)
        layer.bias.zero_()
    return layer
