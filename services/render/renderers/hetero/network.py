"""Networks of `hetero`: appearance embedder E and landmark translation generator G_v (paper `hetero`, Sec. 3.3.1, Eq. 3).

    e = E(reference),    face = G_v(composites t-2 to t+2, e)

G_v is the U-Net of services/render/networks/unet.py. Its layers that change the size are gated convolutions (Yu et al. 2019). Its
residual blocks at 20 and 10 px have AdaIN, with scale and shift from e by a dense layer. E is a small convolutional network.
Departures from the paper:

* E's feature maps at 80, 40 and 20 px go to the way up of G_v. G_v draws what differs from the reference picture's smoothed
  colour, and adds fine detail of the reference picture where G_v says so. The paper trains on many thousands of people; a vector
  alone, learned from some twenty, does not carry a stranger's skin.
* The first level is a pixel unshuffle.
* Everything that belongs to one actor is the state, an input of the network: a vector that is added to e, scale and shift of all
  layers, and low-rank weights beside the gated convolutions. The paper fine-tunes all weights for each actor. Here one network
  serves all actors, and computes several actors in one batch.
* The network returns the face minus the reference picture, so that it is served like every other model.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from services.render.networks.unet import FilmConv, UNetTrunk
from services.render.networks.weights import StoredConfig, loader
from services.render.renderers.hetero.renderer import EMBEDDING_SIZE, GENERATOR_INPUTS, REFERENCE

_GATE_BIAS: Final = 1.0
"""Bias with which gates begin: rather open."""
WEIGHTS: Final = "hetero.safetensors"
"""Name of the weights file."""
_POOL_PX: Final = 5
_COLOURS: Final = 12
"""Channels of the last convolution with the drawn colours, at half the pictures' size. Then come the shares of the reference
picture's detail."""
_COLOUR_GAIN: Final = 0.5
_FINE_PX: Final = 9
_CELL_PX: Final = 8
_CELLS: Final = 3


class GatedConv(nn.Module):
    """SiLU((W x + B A x) * (1 + scale) + shift) * sigmoid(gate(x)).

    W and gate are 3 x 3 convolutions, which the prior learns. Scale, shift and the low-rank weights are the actor's. A and B are
    1 x 1 convolutions with few channels between them; A is a fixed random matrix plus the actor's part, and B is the actor's.
    So an all-zero state changes nothing, and still gives B a gradient.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: 2 halves height and width.
        rank: channels between A and B.
    """

    start: Tensor

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, rank: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
        self.gate = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        nn.init.kaiming_normal_(self.gate.weight, nonlinearity="linear")
        nn.init.constant_(self.gate.bias, _GATE_BIAS)  # type: ignore[arg-type]
        self.register_buffer("start", torch.randn(rank, in_channels) / in_channels**0.5)
        self.stride, self.rank = stride, rank
        self.film_size = 2 * out_channels
        self.state_size = self.film_size + rank * (in_channels + out_channels)
        self.state_offset = 0
        """Where this layer's numbers begin inside an actor's state: scales, shifts, A, B. The network sets this number."""

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """Return the layer's output.

        Args:
            x: float [B, in_channels, H, W].
            state: float [B, S], the actors' whole states.
        """
        own = state[:, self.state_offset : self.state_offset + self.state_size]
        out_channels, inner = self.film_size // 2, self.start.numel()
        scale, shift = own[:, :out_channels, None, None], own[:, out_channels : self.film_size, None, None]
        into = self.start + own[:, self.film_size : self.film_size + inner].reshape(-1, *self.start.shape)
        back = own[:, self.film_size + inner :].reshape(-1, out_channels, self.rank)
        convolved: Tensor = self.conv(x)
        seen = F.avg_pool2d(x, self.stride) if self.stride > 1 else x
        convolved = convolved + (back @ (into @ seen.flatten(2))).reshape(convolved.shape)
        gate: Tensor = self.gate(x)
        return F.silu(convolved * (1.0 + scale) + shift) * torch.sigmoid(gate)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeteroConfig(StoredConfig):
    """Shape of the networks.

    Attributes:
        widths: channels of G_v at 80, 40, 20 and 10 px.
        depths: residual blocks on the way down at each of these sizes; the way up has one block at each size.
        embedder_widths: channels of E at the same sizes.
        adain_levels: lowest levels whose residual blocks have AdaIN; 0: e is not used.
        rank: rank of an actor's weights beside each gated convolution.
        neighbours: whether G_v sees the composites before and after frame t.
        skips: whether E's feature maps go to the way up.
        details: whether fine detail of the reference picture can go to the result.
    """

    widths: tuple[int, ...] = (24, 44, 64, 80)
    depths: tuple[int, ...] = (1, 1, 1, 2)
    embedder_widths: tuple[int, ...] = (16, 24, 32, 48)
    adain_levels: int = 2
    rank: int = 4
    neighbours: bool = True
    skips: bool = True
    details: bool = True


class Appearance(NamedTuple):
    """Appearance in reference pictures, as E sees it.

    Attributes:
        vector: float [B, EMBEDDING_SIZE], the appearance vectors e.
        maps: float [B, C, H, W] each, E's feature maps at 80, 40, ... px.
    """

    vector: Tensor
    maps: list[Tensor]


class AppearanceEmbedder(nn.Module):
    """E: convolutions of stride 2 behind a pixel unshuffle, then a dense layer.

    Args:
        widths: channels at 80, 40, 20 and 10 px.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2 if level else 1, padding=1)
            for level, (before, after) in enumerate(pairwise((12, *widths)))
        )
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.dense = nn.Parameter(torch.randn(EMBEDDING_SIZE, 4 * widths[-1]) / (4 * widths[-1]) ** 0.5)

    def forward(self, pictures: Tensor) -> Appearance:
        """Return what E sees in pictures, float [B, 3, 160, 160] in [0, 1]."""
        x, maps = F.pixel_unshuffle(pictures * 2.0 - 1.0, 2), list[Tensor]()
        for conv in self.convs:
            x = F.silu(conv(x))
            maps.append(x)
        pooled = F.avg_pool2d(x, _POOL_PX).flatten(1)
        # A sum of products, where a matrix product's bytes would depend on the batch.
        return Appearance((pooled[:, None] * self.dense).sum(dim=-1), maps[:-1])


class HeteroNetwork(UNetTrunk):
    """E and G_v; see the module's text.

    An actor's state: the numbers of the layers with AdaIN, those of the other layers, then the vector that is added to e.
    """

    def __init__(self, config: HeteroConfig) -> None:
        shown = GENERATOR_INPUTS if config.neighbours else GENERATOR_INPUTS[:2]
        widths, maps = config.widths, config.embedder_widths if config.skips else (0,) * len(config.widths)
        in_channels = sum(part.stop - part.start for part in shown)
        super().__init__(
            widths, config.depths, in_channels=in_channels, out_channels=_COLOURS + 4, normalised_levels=config.adain_levels
        )
        self.config, self._shown = config, shown
        rank = config.rank
        # The layers that change the size take the place of the U-Net's own.
        self.stem = GatedConv(4 * in_channels, widths[0], rank=rank)  # type: ignore[assignment]
        self.down = nn.ModuleList(GatedConv(before, after, stride=2, rank=rank) for before, after in pairwise(widths))
        self.up = nn.ModuleList(
            GatedConv(before + after + seen, after, rank=rank)
            for (before, after), seen in zip(pairwise(widths[::-1]), maps[-2::-1], strict=True)
        )
        self.embedder = AppearanceEmbedder(config.embedder_widths)
        self.state_size = 0
        for adain in (True, False):
            for module in self.modules():
                if isinstance(module, FilmConv | GatedConv) and getattr(module, "normalise", False) is adain:
                    module.state_offset = self.state_size
                    self.state_size += module.state_size
            if adain:
                self.adain_size = self.state_size
                """Numbers of the layers with AdaIN."""
        self.layers_size = self.state_size
        """Numbers of all layers."""
        self.state_size += EMBEDDING_SIZE
        self.affine = nn.Parameter(torch.zeros(self.adain_size, EMBEDDING_SIZE))

    def forward(self, pictures: Tensor, state: Tensor) -> Tensor:
        """Return the face minus the reference picture: float [B, 3, 160, 160], unit: the full range of the pictures.

        Args:
            pictures: float [B, NUM_CHANNELS, 160, 160] in [0, 1], laid out by inputs.window_picture.
            state: float [B, S], the actors' states.
        """
        appearance = self.embedder(pictures[:, REFERENCE])
        vector = appearance.vector + state[:, self.layers_size :]
        return self.translated(pictures, state[:, : self.layers_size], Appearance(vector, appearance.maps))

    def translated(self, pictures: Tensor, layers: Tensor, appearance: Appearance) -> Tensor:
        """Return what `forward` returns, by G_v alone.

        Args:
            pictures: float [B, NUM_CHANNELS, 160, 160] in [0, 1].
            layers: float [B, layers_size], the actors' numbers for the layers.
            appearance: what E sees in the reference pictures.
        """
        # As in the embedder, this is a sum of products.
        affine = (appearance.vector[:, None] * self.affine).sum(dim=-1)
        numbers = torch.cat([layers[:, : self.adain_size] + affine, layers[:, self.adain_size :]], dim=1)
        seen = torch.cat([pictures[:, part] for part in self._shown], dim=1)
        x, skips = self.way_down(seen, numbers)
        for level, (up, block) in enumerate(zip(self.up, self.up_blocks, strict=True)):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            parts = [x, skips.pop(), appearance.maps[-1 - level]] if self.config.skips else [x, skips.pop()]
            x = block(up(torch.cat(parts, dim=1), numbers), numbers)
        outputs: Tensor = self.head(x, numbers)
        colours, shares = F.pixel_shuffle(outputs[:, :_COLOURS], 2), F.pixel_shuffle(outputs[:, _COLOURS:], 2)
        reference = pictures[:, REFERENCE]
        face = smoothed(reference) + colours * _COLOUR_GAIN
        if self.config.details:
            fine = reference - F.avg_pool2d(reference, _FINE_PX, 1, _FINE_PX // 2, count_include_pad=False)
            face = face + torch.sigmoid(shares) * fine
        return face - reference


def smoothed(pictures: Tensor) -> Tensor:
    """Return pictures without anything smaller than about 24 px, float [B, 3, H, W]: the skin's colour and its light."""
    cells = F.avg_pool2d(F.avg_pool2d(pictures, _CELL_PX), _CELLS, 1, _CELLS // 2, count_include_pad=False)
    return F.interpolate(cells, scale_factor=float(_CELL_PX), mode="bilinear")


load: Final = loader(HeteroNetwork, HeteroConfig)
"""Networks of a weights file; see `loader`."""
