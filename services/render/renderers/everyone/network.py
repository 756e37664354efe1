"""Network of `everyone`: filled frames, reference and speech -> the lower face (Saunders and Namboodiri, Sec. 3.3, A.3, Fig. 8).

Two encoders, of the face and of the speech, give the style vector W. A decoder of modulated convolutions (StyleGAN2) draws the
window, with skip connections from the face encoder. Nothing in the network belongs to one person: the person's looks are the
neural texture, which is part of the input, and the offset of W, which is the actor's state. Departures from the paper:

* The network adds a residual to the first three features, which resemble RGB. So the texture's own detail stays, and a few hundred
  steps of training suffice. The residual has three parts: a free part, the other thirteen features in a mixture that the decoder
  gives for each pixel, and the fine detail of the first three, amplified or weakened. The free part alone must bring all detail
  through the narrow layers, and in a few hundred steps no detail came through.
* The network has about a thirtieth of the paper's parameters, and no noise inputs: a stream in any division gives the same bytes.
* Three frames come out in training. The served file computes the middle frame only.

Modulated convolution of StyleGAN2 (Karras et al. 2020, Sec. 2.2): a style vector scales the weights, and demodulation takes the
scale of the output back to that of the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from services.common.array_types import Bool
from services.common.face.crops import BOX_SIZE
from services.common.face.mouth_bank import SPEECH_SHAPE
from services.common.face.neural_texture import NUM_CHANNELS
from services.render.networks.weights import StoredConfig, loader
from services.render.pairs import BASE
from services.render.renderers.everyone.renderer import MORE, NEIGHBOURS, NUM_MORE, PICTURE_CHANNELS, SPEECH, WINDOW_FRAMES

_EPSILON: float = 1e-6
WEIGHTS: Final = "everyone.safetensors"
"""Name of the weights file."""
_RESIDUAL_SCALE: Final = 0.2
_GAIN: Final = 1.7
"""Brings the output of a SiLU back to the root mean square of its input. Demodulated layers keep the scale, so the signal would
otherwise shrink from layer to layer."""
_OUTPUTS: Final = 12 + 1 + 3 * NUM_MORE
"""Channels of the last layer for each frame: free residual of 2 x 2 pixels, gain of the detail, mixture of the further features."""
_FIRST_MIXTURE: Final = 0.3
_SPEECH_STEPS: Final = tuple(BOX_SIZE // size for size in SPEECH_SHAPE)


class ModulatedConv(nn.Module):
    """Convolution with weights w'_oik = s_i w_oik / sqrt(sum_ik (s_i w_oik)^2), where s = 1 + A style.

    The scales s act on the input and the root acts on the output, so one convolution with the same weights computes all pictures of
    a batch. The result is that of the paper's weights.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        style_size: numbers of the style vector.
        demodulate: divide by the root. The last layer of a network does not, because its output has a scale of its own.
    """

    def __init__(self, in_channels: int, out_channels: int, style_size: int, *, demodulate: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        self.affine = nn.Parameter(torch.randn(in_channels, style_size) * 0.5 / style_size**0.5)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.demodulate = demodulate

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Return the layer's output, float [B, out_channels, H, W].

        Args:
            x: float [B, in_channels, H, W].
            style: float [B, style_size].
        """
        # Sums of products, where a matrix product's last bits would depend on the batch.
        scale = 1.0 + (style[:, None] * self.affine).sum(dim=-1)
        convolved: Tensor = self.conv(x * scale[:, :, None, None])
        if self.demodulate:
            energy = self.conv.weight.square().sum(dim=(2, 3))
            convolved = convolved * torch.rsqrt((scale.square()[:, None] * energy).sum(dim=-1) + _EPSILON)[..., None, None]
        return convolved + self.bias[:, None, None]


@dataclass(frozen=True, kw_only=True, slots=True)
class EveryoneConfig(StoredConfig):
    """Shape of the network.

    Attributes:
        widths: channels at 80, 40, 20 and 10 px.
        face_size: numbers that the face encoder adds to the style vector W.
        audio_size: numbers that the audio encoder adds to W.
        audio_widths: channels of the audio encoder's three levels.
        frames: T, frames of the window that are seen and drawn in training: 3, or 1.
        texture_channels: features of the neural texture that are seen, 3 to 16. The others are taken as 0.
        audio_style: whether the speech is an input of the style vectors. Without, silence is.
    """

    widths: tuple[int, ...] = (24, 48, 80, 96)
    face_size: int = 48
    audio_size: int = 48
    audio_widths: tuple[int, ...] = (16, 32, 48)
    frames: int = WINDOW_FRAMES
    texture_channels: int = NUM_CHANNELS
    audio_style: bool = True


class EveryoneNetwork(nn.Module):
    """Face encoder, audio encoder and decoder; see the module's text."""

    seen: Tensor
    """Float [PICTURE_CHANNELS, 1, 1]: 1 for channels that the network sees, 0 for the others."""

    def __init__(self, config: EveryoneConfig) -> None:
        super().__init__()
        self.config = config
        widths, style = config.widths, config.face_size + config.audio_size
        self.state_size = style
        """S, the length of the actor's part of the network's inputs: an offset of W."""
        self.stem = _conv(PICTURE_CHANNELS - 1, widths[0], 4, stride=2)
        self.down = nn.ModuleList(_conv(before, after, 3, stride=2) for before, after in pairwise(widths))
        self.encoded = nn.ModuleList(_Residual(width) for width in widths)
        self.face_code = nn.Sequential(
            _conv(widths[-1], config.face_size, 3, stride=2), nn.SiLU(), _whole(config.face_size, (5, 5))
        )
        layers: list[nn.Module] = []
        for before, after in pairwise((1, *config.audio_widths)):
            layers += [_conv(before, after, 3, stride=2), nn.SiLU()]
        self.audio_code = nn.Sequential(*layers, _whole(config.audio_widths[-1], (3, 5), config.audio_size))
        self.lowest = ModulatedConv(widths[-1], widths[-1], style)
        backwards = widths[::-1]
        self.up = nn.ModuleList(ModulatedConv(before + after, after, style) for before, after in pairwise(backwards))
        self.refine = nn.ModuleList(ModulatedConv(width, width, style) for width in backwards[1:])
        self.head = ModulatedConv(widths[0], _OUTPUTS, style, demodulate=False)
        self.neighbours = ModulatedConv(widths[0], _OUTPUTS * (WINDOW_FRAMES - 1), style, demodulate=False)
        for layer in (self.head, self.neighbours):
            nn.init.zeros_(layer.conv.weight)
        self.mixture = nn.Parameter(torch.randn(3, NUM_MORE) * _FIRST_MIXTURE)
        seen = _seen_channels(config)
        self._all_seen = bool(seen.all())
        self.register_buffer("seen", torch.from_numpy(seen.astype(np.float32))[:, None, None], persistent=False)

    def default_state(self) -> Tensor:
        """Return the prior's own state, float32 [S]: zeros, which change nothing."""
        return torch.zeros(self.state_size)

    def forward(self, pictures: Tensor, state: Tensor) -> Tensor:
        """Return the residual of frame t to add to its base picture.

        Args:
            pictures: float [B, PICTURE_CHANNELS, 160, 160] in [0, 1], laid out by inputs.network_picture.
            state: float [B, S], the actors' offsets of W.

        Returns:
            float [B, 3, 160, 160], unit: the full range of the pictures.
        """
        pictures = self._visible(pictures)
        x, style = self._decoded(pictures, state)
        return self._residual(self.head(x, style), pictures[:, BASE], pictures[:, MORE])

    def _visible(self, pictures: Tensor) -> Tensor:
        """Return the pictures with 0 in the channels that an ablation does not see."""
        return pictures if self._all_seen else pictures * self.seen

    def window(self, pictures: Tensor, state: Tensor) -> Tensor:
        """Return the residuals of the frames t-1, t and t+1: float [B, 3, 3, 160, 160]; arguments as `forward`.

        With T = 1, the residual of frame t: float [B, 1, 3, 160, 160].
        """
        if self.config.frames == 1:
            return self.forward(pictures, state)[:, None]
        pictures = self._visible(pictures)
        x, style = self._decoded(pictures, state)
        before, after = (
            self._residual(outputs, pictures[:, part][:, :3], pictures[:, part][:, 3:-1])
            for outputs, part in zip(torch.chunk(self.neighbours(x, style), WINDOW_FRAMES - 1, dim=1), NEIGHBOURS, strict=True)
        )
        return torch.stack([before, self._residual(self.head(x, style), pictures[:, BASE], pictures[:, MORE]), after], dim=1)

    def _residual(self, outputs: Tensor, base: Tensor, more: Tensor) -> Tensor:
        """Return the residual of one frame, float [B, 3, 160, 160].

        Args:
            outputs: float [B, _OUTPUTS, 80, 80], outputs of the last layer.
            base: float [B, 3, 160, 160], the first three features.
            more: float [B, 13, 160, 160], the other features; 0 where there is no face.
        """
        free = F.pixel_shuffle(outputs[:, :12], 2)
        gain, mixture = outputs[:, 12:13], outputs[:, 13:] + self.mixture.flatten()[:, None, None]
        features = (2.0 * more - 1.0) * (more > 0.0)
        weights = _enlarged(mixture)
        mixed = (weights.reshape(-1, 3, NUM_MORE, *weights.shape[2:]) * features[:, None]).sum(dim=2)
        detail = base - F.avg_pool2d(base, 3, 1, 1, count_include_pad=False)
        residual: Tensor = _RESIDUAL_SCALE * (free + mixed) + _enlarged(gain) * detail
        return residual

    def _decoded(self, pictures: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last features, float [B, widths[0], 80, 80], and the style vectors W, float [B, S]."""
        x = F.silu(self.stem(pictures[:, :SPEECH] * 2.0 - 1.0))
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoded):
            if level:
                skips.append(x)
                x = F.silu(self.down[level - 1](x))
            x = block(x)
        rows, classes = _SPEECH_STEPS
        speech = pictures[:, SPEECH : SPEECH + 1, ::rows, ::classes]
        style = torch.cat([self.face_code(x), self.audio_code(speech)], dim=1)[:, :, 0, 0] + state
        x = F.silu(self.lowest(x, style)) * _GAIN
        for up, refine in zip(self.up, self.refine, strict=True):
            x = F.silu(up(torch.cat([_enlarged(x), skips.pop()], dim=1), style)) * _GAIN
            x = F.silu(refine(x, style)) * _GAIN
        return x, style


def _seen_channels(config: EveryoneConfig) -> Bool:
    """Return which channels of the pictures the network sees: bool [PICTURE_CHANNELS]."""
    seen = np.ones(PICTURE_CHANNELS, np.bool_)
    unseen = NUM_CHANNELS - config.texture_channels
    for features in (MORE, *(slice(part.start + 3, part.stop - 1) for part in NEIGHBOURS)):
        seen[features.stop - unseen : features.stop] = False
    if config.frames == 1:
        seen[NEIGHBOURS[0].start : NEIGHBOURS[-1].stop] = False
    seen[SPEECH] = config.audio_style
    return seen


def _enlarged(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=2.0, mode="nearest")


class _Residual(nn.Module):
    """x + g(silu(f(x))), two convolutions. The weights of g begin at zero: the block begins as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _conv(channels, channels, 3), _conv(channels, channels, 3)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(F.silu(self.first(x)))
        return out


def _conv(in_channels: int, out_channels: int, size: int, *, stride: int = 1) -> nn.Conv2d:
    """Return a convolution whose output has the size of the input, or half of the size."""
    layer = nn.Conv2d(in_channels, out_channels, size, stride=stride, padding=(size - 1) // 2)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def _whole(in_channels: int, size: tuple[int, int], out_channels: int = 0) -> nn.Conv2d:
    """Return a convolution over the whole map.

    A mean over the map would have other last bits in other batches (ONNX Runtime).
    """
    layer = nn.Conv2d(in_channels, out_channels or in_channels, size)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


load: Final = loader(EveryoneNetwork, EveryoneConfig)
"""Network of a weights file; see `loader`."""
