"""Network of `ugc`: the Style Translation Network, from speech content and style to mouth motion (UGC paper, Sec. III-A, Fig. 3).

    content rows [N, W, 4, 44] -> ContentEncoder -> [N, C, W]    (ConvBank, Conv1d, instance norm without affine)
    coefficients [N, T, K]     -> StyleEncoder   -> code [N, S] -> modulation [N, L, 2, C]  (gamma, beta of each AdaIN layer)
    content rows               -> prior          -> [N, K, W]    (a linear filter per phone: dominance functions)
    all three                  -> Decoder        -> coefficients [N, W, K] = prior + share * correction

Coefficients are offsets from the person's rest mouth along the landmark basis, in units of the person's spread. So small and large
mouths look alike to the network, and the spread gives the output the person's amplitude. All layers together look 2 frames ahead:
the convolutions are padded on the side of the past.

Shapes of the layers: N batch, C channels, W frames of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.motion.features import NUM_CONTENT
from services.motion.types import ROWS_PER_FRAME

_FLOOR: Final = 1e-2


class InstanceNorm(nn.Module):
    """Normalisation of each channel over a window, without affine (UGC paper, Eq. 1): M'_c = (M_c - mu_c) / sigma_c.

    _FLOOR is added to the variance, so that a channel that hardly moves in a window (silence) is not blown up to full size.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return normalised channels: [N, C, W] -> [N, C, W]."""
        centred = x - x.mean(dim=-1, keepdim=True)
        return centred * torch.rsqrt((centred * centred).mean(dim=-1, keepdim=True) + _FLOOR)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class UgcConfig:
    """Sizes of the network."""

    num_coefficients: int = 16
    channels: int = 64
    style_size: int = 8
    bank_channels: int = 16
    bank_widths: tuple[int, ...] = (1, 3, 5, 9)
    num_modulated: int = 3
    dropout: float = 0.3
    correction_share: float = 0.5
    """Share of the network's correction that is added to the prior outside of training. Chosen on val and dev clips."""
    prior_width: int = 9
    """Frames of the linear prior. The last two lie ahead."""
    content_norm: bool = True
    """Whether the content path has instance norm without affine, as in the paper. False is an ablation."""


class ContentEncoder(nn.Module):
    """Encoder of the speaking content without the voice."""

    def __init__(self, config: UgcConfig) -> None:
        super().__init__()
        channels = config.channels
        self.reduce = nn.Conv1d(NUM_CONTENT * ROWS_PER_FRAME, channels, 1)
        self.bank = ConvBank(channels, config.bank_channels, config.bank_widths, ahead=1)
        self.merge = Conv(channels + config.bank_channels * len(config.bank_widths), channels, 3, 1)
        self.dropout = nn.Dropout1d(config.dropout)
        self.norm: nn.Module = InstanceNorm() if config.content_norm else nn.Identity()

    def forward(self, content: Tensor) -> Tensor:
        """Return the content: [N, W, 4, 44] -> [N, C, W]."""
        x = content.flatten(2).transpose(1, 2)
        x = functional.leaky_relu(self.reduce(x), 0.1)
        x = torch.cat([x, self.bank(x)], dim=1)
        x = functional.leaky_relu(self.merge(x), 0.1)
        normed: Tensor = self.norm(self.dropout(x))
        return normed


class StyleEncoder(nn.Module):
    """Encoder of the speaking style: from a sequence of mouths to one code, then to the decoder's modulation."""

    def __init__(self, config: UgcConfig) -> None:
        super().__init__()
        channels = config.channels // 2
        self._layers, self._channels = config.num_modulated, config.channels
        self.enter = Conv(config.num_coefficients, channels, 3, 1)
        self.bank = ConvBank(channels, 8, (1, 3, 5, 9), ahead=4)
        self.code = nn.Linear(2 * (channels + 32), config.style_size)
        self.modulation = nn.Linear(config.style_size, config.num_modulated * 2 * config.channels)
        nn.init.normal_(self.modulation.weight, std=0.05)
        nn.init.zeros_(self.modulation.bias)

    def encode(self, coefficients: Tensor) -> Tensor:
        """Return codes in [-1, 1]: [N, T, K] -> [N, S]. Mean and standard deviation pool over time."""
        x = functional.leaky_relu(self.enter(coefficients.transpose(1, 2)), 0.1)
        x = torch.cat([x, self.bank(x)], dim=1)
        mean = x.mean(dim=-1)
        spread = torch.sqrt(((x - mean[..., None]) ** 2).mean(dim=-1) + 1e-4)
        return torch.tanh(self.code(torch.cat([mean, spread], dim=1)))

    def modulate(self, code: Tensor) -> Tensor:
        """Return gamma and beta of each layer: codes [N, S] -> [N, L, 2, C]."""
        raw: Tensor = self.modulation(code)
        return raw.reshape(-1, self._layers, 2, self._channels)


class Decoder(nn.Module):
    """Cross-modal AdaIN decoder (Eq. 2): M'_c = (1 + gamma_c) (M_c - mu_c) / sigma_c + beta_c."""

    def __init__(self, config: UgcConfig) -> None:
        super().__init__()
        channels = config.channels
        self.convs = nn.ModuleList(Conv(channels, channels, 3, 0) for _ in range(config.num_modulated))
        self.norm: nn.Module = InstanceNorm() if config.content_norm else nn.Identity()
        self.dropout = nn.Dropout1d(config.dropout)
        self.out = nn.Conv1d(channels, config.num_coefficients, 1)

    def hidden(self, content: Tensor, modulation: Tensor) -> Tensor:
        """Return the last hidden layer, [N, C, W]."""
        x = content
        for layer, conv in enumerate(self.convs):
            gamma, beta = modulation[:, layer, 0, :, None], modulation[:, layer, 1, :, None]
            styled = (1.0 + gamma) * self.norm(conv(x)) + beta
            x = x + functional.leaky_relu(styled, 0.1)
        dropped: Tensor = self.dropout(x)
        return dropped


class UgcNetwork(nn.Module):
    """Content encoder, style encoder and decoder, trained together (Eq. 3), on top of a fixed prior."""

    def __init__(self, config: UgcConfig) -> None:
        super().__init__()
        self.config = config
        self.content = ContentEncoder(config)
        self.style = StyleEncoder(config)
        self.decoder = Decoder(config)
        self.prior = Conv(NUM_CONTENT * ROWS_PER_FRAME, config.num_coefficients, config.prior_width, 2)
        self.prior.requires_grad_(False)

    def set_prior(self, weight: Tensor, bias: Tensor) -> None:
        """Set the prior's filter, [K, 176, width] and [K], and let the correction start near zero."""
        with torch.no_grad():
            self.prior.conv.weight.copy_(weight)
            assert self.prior.conv.bias is not None
            self.prior.conv.bias.copy_(bias)
            self.decoder.out.weight.mul_(0.1)
            nn.init.zeros_(self.decoder.out.bias)  # type: ignore[arg-type]

    def forward(self, content: Tensor, modulation: Tensor) -> Tensor:
        """Return coefficients [N, W, K] in units of the person's spread.

        The whole correction is learned, and a part is used: the closed grammar of a few speakers teaches more than holds elsewhere.
        """
        prior = self.prior(content.flatten(2).transpose(1, 2))
        correction = self.decoder.out(self.decoder.hidden(self.content(content), modulation))
        share = 1.0 if self.training else self.config.correction_share
        coefficients: Tensor = prior + share * correction
        return coefficients.transpose(1, 2)
