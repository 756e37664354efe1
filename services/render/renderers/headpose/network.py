"""Network of `headpose`, a generator with a memory: rendered frames -> the lower face (paper `headpose`, Sec. 3.4, Fig. 2, Eq. 3).

    o_t = A r_t + (1 - A) C

The generator is the U-Net of services/render/networks/unet.py. Its last convolution has two parts, one for the colour mask C and
one for the attention mask A. The memory recalls an identity feature for each of the three rendered frames. The mean of the three
features gives scale and shift of every layer. In the two lowest levels, scale and shift follow an instance normalisation (AdaIN).
The actor's own state is added to scale and shift. Departures from the paper:

* C is a mixture of the actor's key pictures (services/render/key_pictures.py), pixel by pixel, and a free part. Detail that was
  filmed is sharper than detail that was drawn. The network also sees the target lips, filled.
* In the upper levels scale and shift come without normalisation, which would erase the footage's light.
* The network returns o_t - r_t, so that the model is served like every other model.

The memory is part of the network: pairs of spatial and identity features, looked up by the nearest spatial feature. It follows Yoo
et al. 2019 (Coloring with limited data), with cosine similarity for both features, as footnote 3 of the paper says. If the item
that a query finds has the same person's identity feature, the memory updates this item. Otherwise the memory replaces the item that
no query has updated for the longest time (footnote 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from services.render.networks.perceptual import PerceptualConfig, PerceptualNetwork
from services.render.networks.unet import UNetTrunk
from services.render.networks.weights import StoredConfig, load_network
from services.render.renderers.headpose.renderer import (
    FIRST_KEY,
    INPUT_KEYS,
    OTHER_KEYS,
    PICTURE_CHANNELS,
    RENDERED,
    RENDERED_BEFORE,
)

_EMPTY_SQUARE = 0.25
NEVER: Final = 4.0
"""Larger than the difference of two likenesses."""
WEIGHTS: Final = "headpose.safetensors"
"""Name of the weights file."""
_COLOURS: Final = 4 * (3 + INPUT_KEYS)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryConfig:
    """Shape and rules of a memory.

    Attributes:
        items: number of pairs.
        spatial_size: numbers of a spatial feature.
        identity_size: numbers of an identity feature.
        threshold: two identity features with at least this cosine count as one person's.
        margin: margin of the triplet loss.
        neighbours: nearest items among which the triplet loss looks for a positive and a negative one.
    """

    items: int = 128
    spatial_size: int = 64
    identity_size: int = 64
    threshold: float = 0.7
    margin: float = 0.2
    neighbours: int = 64


class IdentityMemory(nn.Module):
    """Memory of N items: unit spatial features [N, S] and unit identity features [N, D]. Items that were never written are zeros
    and count as absent."""

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("spatial", torch.zeros(config.items, config.spatial_size))
        self.register_buffer("identity", torch.zeros(config.items, config.identity_size))
        self.register_buffer("age", torch.arange(config.items, 0, -1, dtype=torch.float32))
        self.spatial: Tensor
        self.identity: Tensor
        self.age: Tensor

    def recall(self, query: Tensor, more_spatial: Tensor, more_identity: Tensor) -> Tensor:
        """Return the identity features, float [B, T, D], of the items nearest to the queries.

        Args:
            query: float [B, T, S], unit spatial features.
            more_spatial: float [B, K, S], spatial features of further items, those of each picture's actor. Zeros: absent.
            more_identity: float [B, K, D], identity features of the further items.
        """
        count = query.shape[0]
        spatial = torch.cat([self.spatial.expand(count, -1, -1), more_spatial], dim=1)
        identity = torch.cat([self.identity.expand(count, -1, -1), more_identity], dim=1)
        # Sums of products, where the bytes of matrix products would depend on the batch.
        likeness = (query[:, :, None] * spatial[:, None]).sum(dim=-1)
        absent = (spatial.square().sum(dim=-1) < _EMPTY_SQUARE).to(likeness.dtype)
        nearest = (likeness - NEVER * absent[:, None]).argmax(dim=-1)
        return torch.gather(identity, 1, nearest[..., None].expand(-1, -1, identity.shape[-1]))

    @torch.no_grad()
    def update(self, query: Tensor, identity: Tensor) -> None:
        """Write pairs, one after the other.

        If the item nearest to the query holds the same person's identity feature, both features of the item move half-way to the
        pair's and are normalised. Otherwise the pair replaces the oldest item. The ages of all other items grow.

        Args:
            query: float [B, S], unit spatial features.
            identity: float [B, D], unit identity features.
        """
        for spatial, person in zip(query, identity, strict=True):
            likeness = (self.spatial @ spatial).masked_fill(~self.present(), -NEVER)
            nearest = int(likeness.argmax())
            self.age += 1.0
            if bool(self.present()[nearest]) and float(self.identity[nearest] @ person) >= self.config.threshold:
                self.spatial[nearest] = F.normalize(self.spatial[nearest] + spatial, dim=0)
                self.identity[nearest] = F.normalize(self.identity[nearest] + person, dim=0)
                self.age[nearest] = 0.0
            else:
                oldest = int(self.age.argmax())
                self.spatial[oldest], self.identity[oldest], self.age[oldest] = spatial, person, 0.0

    def num_present(self) -> int:
        """Return the number of items that were written."""
        return int(self.present().sum())

    def present(self) -> Tensor:
        """Return which items were written, bool [N]."""
        return self.spatial.square().sum(dim=1) >= _EMPTY_SQUARE


class SpatialFeatures(nn.Module):
    """Spatial features of rendered frames: a frozen network, a learned linear layer, unit length.

    The frozen network is the perceptual network (networks/perceptual.py) in place of the paper's ResNet18 of ImageNet (pool5). The
    frozen network sees pictures of half the size; the means of its last two stages go to the linear layer.

    Args:
        config: shape of the frozen network.
        size: numbers of a spatial feature.
    """

    def __init__(self, config: PerceptualConfig, size: int) -> None:
        super().__init__()
        # The outputs for landmarks and speakers are not used, so they are as small as possible.
        self.base = PerceptualNetwork(PerceptualConfig(widths=config.widths, num_values=1, num_speakers=1)).requires_grad_(False)
        width = sum(config.widths[-2:])
        self.weight = nn.Parameter(torch.randn(size, width) / width**0.5)

    def load_base(self, perceptual: PerceptualNetwork) -> None:
        """Take the stages of a trained perceptual network."""
        self.base.stages.load_state_dict(perceptual.stages.state_dict())
        self.base.feature_scales = perceptual.feature_scales

    def forward(self, frames: Tensor) -> Tensor:
        """Return unit features, float [B, S], of frames, float [B, 3, 160, 160] in [0, 1]."""
        stages = self.base.features(F.avg_pool2d(frames, 2))
        pooled = torch.cat([stage.mean(dim=(2, 3)) for stage in stages[-2:]], dim=1)
        features = (pooled[:, None] * self.weight).sum(dim=-1)
        return features * torch.rsqrt(features.square().sum(dim=1, keepdim=True) + 1e-8)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadposeConfig(StoredConfig):
    """Shape of the network.

    Attributes:
        widths: channels at 80, 40, 20 and 10 px.
        depths: residual blocks on the way down at each of these sizes; the way up has one block at each size.
        items: items of the memory.
        actor_items: further items of the memory in an actor's state.
        identity_size: numbers of an identity feature, as many as the identity embedding gives.
        spatial_size: numbers of a spatial feature.
        spatial_widths: channels of the frozen perceptual network behind the spatial feature.
    """

    widths: tuple[int, ...] = (24, 48, 80, 104)
    depths: tuple[int, ...] = (1, 1, 1, 2)
    items: int = 128
    actor_items: int = 8
    identity_size: int = 64
    spatial_size: int = 64
    spatial_widths: tuple[int, ...] = (16, 32, 64, 96)


class Masks(NamedTuple):
    """Both outputs of the generator.

    Attributes:
        colour: float [B, 3, 160, 160], the colour mask C.
        attention: float [B, 1, 160, 160] in (0, 1), the attention mask A: how much of the rendered frame stays.
    """

    colour: Tensor
    attention: Tensor


class HeadposeNetwork(UNetTrunk):
    """Generator and memory; see the module's text.

    An actor's state has two parts: the actor's own scales and shifts, [film_size], which are added to those of the identity
    feature; then the actor's items of the memory, [actor_items, item_size], each with its spatial feature and its identity feature.
    """

    def __init__(self, config: HeadposeConfig) -> None:
        super().__init__(
            config.widths,
            config.depths,
            in_channels=PICTURE_CHANNELS,
            out_channels=_COLOURS + 4,
            normalised_levels=2,
        )
        self.config = config
        self.film_size = self.state_size
        self.item_size = config.spatial_size + config.identity_size
        self.state_size = self.film_size + config.actor_items * self.item_size
        self.identity_film = nn.Parameter(torch.zeros(self.film_size, config.identity_size))
        self.spatial = SpatialFeatures(PerceptualConfig(widths=config.spatial_widths), config.spatial_size)
        self.memory = IdentityMemory(
            MemoryConfig(items=config.items, spatial_size=config.spatial_size, identity_size=config.identity_size)
        )

    def identity_of(self, pictures: Tensor, state: Tensor) -> Tensor:
        """Return what the memory recalls: float [B, D], the mean of the three rendered frames' identity features.

        Args:
            pictures: float [B, PICTURE_CHANNELS, 160, 160] in [0, 1].
            state: float [B, S], the actors' states.
        """
        count = pictures.shape[0]
        frames = torch.cat([pictures[:, part] for part in (RENDERED, *RENDERED_BEFORE)])
        query = self.spatial(frames).reshape(1 + len(RENDERED_BEFORE), count, -1).transpose(0, 1)
        items = state[:, self.film_size :].reshape(-1, self.config.actor_items, self.item_size)
        size = self.config.spatial_size
        return self.memory.recall(query, items[..., :size], items[..., size:]).mean(dim=1)

    def masks(self, pictures: Tensor, film: Tensor, identity: Tensor) -> Masks:
        """Return the colour mask C and the attention mask A.

        Args:
            pictures: float [B, PICTURE_CHANNELS, 160, 160] in [0, 1], laid out by inputs.drawn_picture.
            film: float [B, film_size], the actors' own scales and shifts.
            identity: float [B, D], identity features.
        """
        # A sum of products, where a matrix product's bytes would depend on the batch.
        outputs = self.trunk(pictures, film + (identity[:, None] * self.identity_film).sum(dim=-1))
        colours = F.pixel_shuffle(outputs[:, :_COLOURS], 2)
        attention = torch.sigmoid(F.pixel_shuffle(outputs[:, _COLOURS:], 2))
        shares = torch.softmax(colours[:, 3:], dim=1)
        # The factor of a tenth keeps the first steps of training small beside the key pictures.
        colour = shares[:, :1] * pictures[:, FIRST_KEY] + colours[:, :3] * 0.1
        for index, key in enumerate(torch.split(pictures[:, OTHER_KEYS], 3, dim=1), start=1):
            colour = colour + shares[:, index : index + 1] * key
        return Masks(colour, attention)

    def forward(self, pictures: Tensor, state: Tensor) -> Tensor:
        """Return the residual to add to the rendered frame, o_t - r_t: float [B, 3, 160, 160], unit: the full range of the
        pictures.

        Args:
            pictures: float [B, PICTURE_CHANNELS, 160, 160] in [0, 1], laid out by inputs.drawn_picture.
            state: float [B, S], the actors' states.
        """
        masks = self.masks(pictures, state[:, : self.film_size], self.identity_of(pictures, state))
        return refined(pictures[:, RENDERED], masks) - pictures[:, RENDERED]


def refined(rendered: Tensor, masks: Masks) -> Tensor:
    """Return o = A r + (1 - A) C (Eq. 3), float [B, 3, H, W].

    Args:
        rendered: float [B, 3, H, W], the rendered frames r.
        masks: outputs of the generator.
    """
    return masks.attention * rendered + (1.0 - masks.attention) * masks.colour


def load(path: Path) -> HeadposeNetwork:
    """Return the network of a weights file, in evaluation mode and without gradients.

    Raises:
        ModelNotFoundError: the file is missing or holds another network.
    """
    return load_network(path, lambda config: HeadposeNetwork(HeadposeConfig.from_metadata(config)))
