"""Style Translation Network: content of the speech and style of the person to mouth motion (UGC paper, Sec. III-A, Fig. 3).

    content rows [N, W, 4, 44] -> ContentEncoder -> [N, C, W]    (ConvBank, Conv1d, instance norm without affine)
    coefficients [N, T, K]     -> StyleEncoder   -> code [N, S] -> modulation [N, L, 2, C]  (gamma, beta of each AdaIN layer)
    content rows               -> prior          -> [N, K, W]    (a linear filter a phone: dominance functions)
    all three                  -> Decoder        -> coefficients [N, W, K] = prior + share * correction

Coefficients are offsets from the person's rest mouth along the landmark basis, in units of the person's own spread, so a small
and a large mouth look alike to the network and its output gets the person's amplitude back by that spread.
Look-ahead of all layers together is 2 frames: the padding of each convolution is on the past's side.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.motion.features import NUM_CONTENT
from services.motion.networks.layers import Conv, ConvBank, InstanceNorm
from services.motion.types import ROWS_PER_FRAME


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleTranslationConfig:
    """Sizes of the network."""

    num_coefficients: int = 16
    channels: int = 64
    style_size: int = 8
    bank_channels: int = 16
    bank_widths: tuple[int, ...] = (1, 3, 5, 9)
    num_modulated: int = 3
    dropout: float = 0.3
    correction_share: float = 0.35
    """Share of the network's correction that is added to the prior outside of training; chosen on val and dev clips."""
    prior_width: int = 9
    """Frames of the linear prior, the last two ahead."""
    content_norm: bool = True
    """Instance norm without affine in the content path (the paper's); off: an ablation."""

    def to_metadata(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)


class ContentEncoder(nn.Module):
    """Speaking content, without what belongs to the voice."""

    def __init__(self, config: StyleTranslationConfig) -> None:
        super().__init__()
        channels = config.channels
        self.reduce = nn.Conv1d(NUM_CONTENT * ROWS_PER_FRAME, channels, 1)
        self.bank = ConvBank(channels, config.bank_channels, config.bank_widths, ahead=1)
        self.merge = Conv(channels + config.bank_channels * len(config.bank_widths), channels, 3, 1)
        self.dropout = nn.Dropout1d(config.dropout)
        self.norm: nn.Module = InstanceNorm() if config.content_norm else nn.Identity()

    def forward(self, content: Tensor) -> Tensor:
        """[N, W, 4, 44] -> [N, C, W]."""
        x = content.flatten(2).transpose(1, 2)
        x = functional.leaky_relu(self.reduce(x), 0.1)
        x = torch.cat([x, self.bank(x)], dim=1)
        x = functional.leaky_relu(self.merge(x), 0.1)
        normed: Tensor = self.norm(self.dropout(x))
        return normed


class StyleEncoder(nn.Module):
    """Speaking style of a person: from a sequence of mouths to one code, then to the decoder's modulation."""

    def __init__(self, config: StyleTranslationConfig) -> None:
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
        """Code in [-1, 1]: [N, T, K] -> [N, S]. Pooled by mean and standard deviation over time."""
        x = functional.leaky_relu(self.enter(coefficients.transpose(1, 2)), 0.1)
        x = torch.cat([x, self.bank(x)], dim=1)
        mean = x.mean(dim=-1)
        spread = torch.sqrt(((x - mean[..., None]) ** 2).mean(dim=-1) + 1e-4)
        return torch.tanh(self.code(torch.cat([mean, spread], dim=1)))

    def modulate(self, code: Tensor) -> Tensor:
        """Code [N, S] -> (gamma, beta) of each layer, [N, L, 2, C]."""
        raw: Tensor = self.modulation(code)
        return raw.reshape(-1, self._layers, 2, self._channels)


class Decoder(nn.Module):
    """Cross-modal AdaIN decoder (Eq. 2): M'_c = (1 + gamma_c) (M_c - mu_c) / sigma_c + beta_c."""

    def __init__(self, config: StyleTranslationConfig) -> None:
        super().__init__()
        channels = config.channels
        self.convs = nn.ModuleList(Conv(channels, channels, 3, 0) for _ in range(config.num_modulated))
        self.norm: nn.Module = InstanceNorm() if config.content_norm else nn.Identity()
        self.dropout = nn.Dropout1d(config.dropout)
        self.out = nn.Conv1d(channels, config.num_coefficients, 1)

    def hidden(self, content: Tensor, modulation: Tensor) -> Tensor:
        """Last hidden layer, [N, C, W]."""
        x = content
        for layer, conv in enumerate(self.convs):
            gamma, beta = modulation[:, layer, 0, :, None], modulation[:, layer, 1, :, None]
            styled = (1.0 + gamma) * self.norm(conv(x)) + beta
            x = x + functional.leaky_relu(styled, 0.1)
        dropped: Tensor = self.dropout(x)
        return dropped


class StyleTranslationNetwork(nn.Module):
    """Content encoder, style encoder and decoder, trained together (Eq. 3), on top of a prior that stays fixed."""

    def __init__(self, config: StyleTranslationConfig) -> None:
        super().__init__()
        self.config = config
        self.content = ContentEncoder(config)
        self.style = StyleEncoder(config)
        self.decoder = Decoder(config)
        self.prior = Conv(NUM_CONTENT * ROWS_PER_FRAME, config.num_coefficients, config.prior_width, 2)
        self.prior.requires_grad_(False)

    def set_prior(self, weight: Tensor, bias: Tensor) -> None:
        """Sets the prior's filter, [K, 176, width] and [K]; the correction starts at nothing."""
        with torch.no_grad():
            self.prior.conv.weight.copy_(weight)
            assert self.prior.conv.bias is not None
            self.prior.conv.bias.copy_(bias)
            self.decoder.out.weight.mul_(0.1)
            nn.init.zeros_(self.decoder.out.bias)  # type: ignore[arg-type]

    def forward(self, content: Tensor, modulation: Tensor) -> Tensor:
        """Coefficients [N, W, K] in units of the person's spread.

        The correction is learned whole and used in part: a few speakers' closed grammar teaches it more than holds elsewhere.
        """
        prior = self.prior(content.flatten(2).transpose(1, 2))
        correction = self.decoder.out(self.decoder.hidden(self.content(content), modulation))
        share = 1.0 if self.training else self.config.correction_share
        coefficients: Tensor = prior + share * correction
        return coefficients.transpose(1, 2)
