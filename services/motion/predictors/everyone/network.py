"""Audio-to-expression network of `everyone`: speech around a frame to the frame's expression, for all people.

    window [N, 36, H] -> encoder, convolutions with instance norm    -> coefficients [N, 36, E]   (short-term speech)
                      -> encoder, self-attention over the window     -> coefficients [N, 36, E]   (long-term speech)
    frames about n    -> linear filter (closed form, fixed)          -> coefficients [N, E]
    coefficients = filter + share * mean of both branches at the frame

Everyone's paper (Sec. 3.6) takes the transformer of Imitator (Thambiraja et al. 2023) on features of wav2vec 2.0, a pretrained
encoder. Here the features are states of the pretrained speech encoder (audio stage). With the setting `heard`, phone
probabilities and relative energies take their place, or stand beside them, to measure what each tells. The network is small: five
minutes of free speech with faces are all that it learns from. Each branch learns by itself what the filter leaves. Their errors
differ, so their mean is better than either. The attention sees the whole window and nothing else; a bias by distance lets near
frames count more, as in Imitator's decoder.

Coefficients are measured from the person's rest mouth, in units of the person's spread. The layer per person is in
predictor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.motion.features import NUM_CONTENT
from services.motion.predictors.everyone.predictor import SERVED, WINDOW, WINDOW_PAST, num_channels
from services.motion.speech_states import NUM_STATES, STATES_AHEAD, STATES_PAST, SpeechInput
from services.motion.types import ROWS_PER_FRAME

FILTER_PAST: Final = 6
"""Most frames of a filter's window before the predicted frame."""
FILTER_AHEAD: Final = 4
"""Most frames of a filter's window after the predicted frame."""
FILTER_ROWS: Final = 2
"""Rows per frame that the filter of content rows takes: means of two neighbouring rows."""
_SLOPE: Final = 0.1
_NORM_FLOOR: Final = 1e-2
"""Least variance of instance norm: a channel that hardly moves in a window (silence) is not blown up to full size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EveryoneConfig:
    """Sizes of the network."""

    heard: SpeechInput = SERVED
    """Input."""
    num_expression: int = 24
    channels: int = 48
    bank_channels: int = 12
    bank_widths: tuple[int, ...] = (1, 3, 5, 9)
    conv_layers: int = 3
    attention_layers: int = 2
    heads: int = 4
    dropout: float = 0.4
    share: float = 0.4
    """Share of the branches' answer that is added to the filter's outside of training."""
    noise: float = 0.7
    """Noise on states in training, in units of the spread of a component."""

    @property
    def filter_span(self) -> tuple[int, int]:
        """Frames before and after the predicted frame in the filter's window."""
        return (FILTER_PAST, FILTER_AHEAD) if self.heard == "phones" else (STATES_PAST, STATES_AHEAD)

    @property
    def filter_inputs(self) -> int:
        """Numbers in the filter's window."""
        return (sum(self.filter_span) + 1) * (FILTER_ROWS * NUM_CONTENT if self.heard == "phones" else NUM_STATES)


def instance_norm(x: Tensor) -> Tensor:
    """Return channels without their mean and size over the window: [N, C, W] -> [N, C, W]."""
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(dim=-1, keepdim=True) + _NORM_FLOOR)


class WindowEncoder(nn.Module):
    """Encoder of the window: convolutions of several widths side by side."""

    def __init__(self, config: EveryoneConfig) -> None:
        super().__init__()
        channels, widths = config.channels, config.bank_widths
        self.enter = nn.Linear(num_channels(config.heard), channels)
        self.bank = nn.ModuleList(nn.Conv1d(channels, config.bank_channels, width, padding=width // 2) for width in widths)
        self.merge = nn.Conv1d(channels + config.bank_channels * len(widths), channels, 3, padding=1)
        self.dropout = nn.Dropout1d(config.dropout)

    def forward(self, speech: Tensor) -> Tensor:
        """Return the encoded speech: [N, W, H] -> [N, C, W]."""
        x = functional.leaky_relu(self.enter(speech), _SLOPE).transpose(1, 2)
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
        # The slopes are a geometric row: half of the heads attend to near frames, the others the whole window (ALiBi, Press et al.
        # 2022).
        slopes = 2.0 ** -(torch.arange(heads) + 1.0)
        self.bias = nn.Parameter(-slopes[:, None] * torch.arange(1 - WINDOW, WINDOW).abs())
        self.distance: Tensor
        self.register_buffer("distance", torch.arange(WINDOW)[None] - torch.arange(WINDOW)[:, None] + WINDOW - 1, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 36, C] -> [N, 36, C]."""
        split = self.enter(self.norm(x)).reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = split[0], split[1], split[2]
        weights = torch.softmax(query @ key.transpose(-1, -2) * self.scale + self.bias[:, self.distance], dim=-1)
        attended = (weights @ value).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.leave(attended))
        answer: Tensor = x + self.dropout(self.narrow(functional.gelu(self.wide(self.norm_after(x)))))
        return answer


class ConvBranch(nn.Module):
    """Branch of convolutions."""

    def __init__(self, config: EveryoneConfig) -> None:
        super().__init__()
        self.encoder = WindowEncoder(config)
        self.layers = nn.Sequential(*(ConvLayer(config.channels, config.dropout) for _ in range(config.conv_layers)))
        self.out = _small_output(config)

    def forward(self, speech: Tensor) -> Tensor:
        """Return coefficients: [N, 36, H] -> [N, 36, E]."""
        answer: Tensor = self.out(self.layers(instance_norm(self.encoder(speech))).transpose(1, 2))
        return answer


class AttentionBranch(nn.Module):
    """Branch of self-attention."""

    def __init__(self, config: EveryoneConfig) -> None:
        super().__init__()
        self.encoder = WindowEncoder(config)
        layers = (AttentionLayer(config.channels, config.heads, config.dropout) for _ in range(config.attention_layers))
        self.layers = nn.Sequential(*layers, nn.LayerNorm(config.channels))
        self.out = _small_output(config)

    def forward(self, speech: Tensor) -> Tensor:
        """Return coefficients: [N, 36, H] -> [N, 36, E]."""
        answer: Tensor = self.out(self.layers(self.encoder(speech).transpose(1, 2)))
        return answer


class EveryoneNetwork(nn.Module):
    """Both branches on top of the fixed filter."""

    def __init__(self, config: EveryoneConfig) -> None:
        super().__init__()
        self.config = config
        self.filter = nn.Linear(config.filter_inputs, config.num_expression)
        self.filter.requires_grad_(False)
        self.branches = nn.ModuleList([ConvBranch(config), AttentionBranch(config)])
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(num_channels(config.heard)))
        self.register_buffer("scale", torch.ones(num_channels(config.heard)))

    def set_filter(self, weight: Tensor, bias: Tensor) -> None:
        """Set the closed-form part, [E, I] and [E]."""
        with torch.no_grad():
            self.filter.weight.copy_(weight)
            self.filter.bias.copy_(bias)

    def set_range(self, mean: Tensor, scale: Tensor) -> None:
        """Set mean and standard deviation of the states, [192] each: the branches take states without them."""
        self.mean[-NUM_STATES:].copy_(mean)
        self.scale[-NUM_STATES:].copy_(scale)

    def filtered(self, speech: Tensor) -> Tensor:
        """Return the filter's answers: speech of 6 + W + 4 frames [N, 10 + W, H] -> [N, W, E]."""
        past, ahead = self.config.filter_span
        near = speech[:, FILTER_PAST - past : speech.shape[1] - FILTER_AHEAD + ahead]
        windows = self._filter_inputs(near).unfold(1, past + 1 + ahead, 1).transpose(2, 3)
        answer: Tensor = self.filter(windows.flatten(2))
        return answer

    def branches_of(self, speech: Tensor) -> list[Tensor]:
        """Return the answer of each branch: speech of 6 + 36 + 4 frames [N, 46, H] -> [N, 36, E] each."""
        window = self._measured(speech[:, FILTER_PAST : FILTER_PAST + WINDOW])
        return [branch(window) for branch in self.branches]

    def forward(self, window: Tensor) -> Tensor:
        """Return the expression of the window's frame: [N, 36, H] -> [N, E] in units of the person's spread."""
        measured = self._measured(window)
        answers = torch.stack([branch(measured)[:, WINDOW_PAST] for branch in self.branches])
        return self.filter_of(window) + self.config.share * answers.mean(dim=0)

    def filter_of(self, window: Tensor) -> Tensor:
        """Return the filter's answer for the window's frame: [N, 36, H] -> [N, E]."""
        past, ahead = self.config.filter_span
        near = window[:, WINDOW_PAST - past : WINDOW_PAST + 1 + ahead]
        answer: Tensor = self.filter(self._filter_inputs(near).flatten(1))
        return answer

    def _measured(self, window: Tensor) -> Tensor:
        """Return the input of the branches, with noise on the states in training."""
        measured = (window - self.mean) / self.scale
        if self.training and self.config.noise and self.config.heard != "phones":
            states = measured[..., -NUM_STATES:]
            states = states + self.config.noise * torch.randn_like(states)
            measured = torch.cat([measured[..., :-NUM_STATES], states], dim=-1)
        return measured

    def _filter_inputs(self, speech: Tensor) -> Tensor:
        """Return the filter's window of a frame: [N, W, H] -> states [N, W, 192], or means of neighbouring rows [N, W, 88]."""
        if self.config.heard != "phones":
            return speech[..., -NUM_STATES:]
        rows = speech.reshape(*speech.shape[:2], FILTER_ROWS, ROWS_PER_FRAME // FILTER_ROWS, NUM_CONTENT)
        return rows.mean(dim=3).flatten(2)


def _small_output(config: EveryoneConfig) -> nn.Linear:
    """Return the last layer of a branch, which starts near zero: the filter's answer is the beginning."""
    layer = nn.Linear(config.channels, config.num_expression)
    with torch.no_grad():
        layer.weight.mul_(0.1)
        layer.bias.zero_()
    return layer
