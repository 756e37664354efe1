"""Memory M: pairs of spatial and identity features, looked up by the nearest spatial feature (paper `headpose`, Sec. 3.4).

The memory follows Yoo et al. 2019 (Coloring with limited data), with cosine similarity for both features, as footnote 3 of the
paper says. If the item that a query finds has the same person's identity feature, the memory updates this item. Otherwise the
memory replaces the item that no query has updated for the longest time (footnote 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from services.render.networks.perceptual import PerceptualConfig, PerceptualNetwork

_EMPTY_SQUARE = 0.25
_NEVER = 4.0


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
        nearest = (likeness - _NEVER * absent[:, None]).argmax(dim=-1)
        return torch.gather(identity, 1, nearest[..., None].expand(-1, -1, identity.shape[-1]))

    def triplet_loss(self, query: Tensor, identity: Tensor) -> Tensor:
        """Return the threshold triplet loss: mean of max(0, q . k_negative - q . k_positive + margin).

        The positive item is the nearest item with the same person's identity feature (cosine at least the threshold). The negative
        item is the nearest item with another person's. A query that lacks one of the two counts 0.

        Args:
            query: float [B, S], unit spatial features, with gradient.
            identity: float [B, D], unit identity features of the queries.
        """
        likeness = query @ self.spatial.T
        present = self._present()
        same = (identity @ self.identity.T) >= self.config.threshold
        near = likeness.detach().masked_fill(~present, -_NEVER)
        rank = near.argsort(dim=1, descending=True)[:, : self.config.neighbours]
        allowed = torch.zeros_like(present.expand_as(same)).scatter(1, rank, value=True) & present
        positive = likeness.masked_fill(~(same & allowed), -_NEVER).amax(dim=1)
        negative = likeness.masked_fill(~(~same & allowed), -_NEVER).amax(dim=1)
        both = (positive > -_NEVER) & (negative > -_NEVER)
        return (F.relu(negative - positive + self.config.margin) * both).mean()

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
            likeness = (self.spatial @ spatial).masked_fill(~self._present(), -_NEVER)
            nearest = int(likeness.argmax())
            self.age += 1.0
            if bool(self._present()[nearest]) and float(self.identity[nearest] @ person) >= self.config.threshold:
                self.spatial[nearest] = F.normalize(self.spatial[nearest] + spatial, dim=0)
                self.identity[nearest] = F.normalize(self.identity[nearest] + person, dim=0)
                self.age[nearest] = 0.0
            else:
                oldest = int(self.age.argmax())
                self.spatial[oldest], self.identity[oldest], self.age[oldest] = spatial, person, 0.0

    def num_present(self) -> int:
        """Return the number of items that were written."""
        return int(self._present().sum())

    def _present(self) -> Tensor:
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
        made = (pooled[:, None] * self.weight).sum(dim=-1)
        return made * torch.rsqrt(made.square().sum(dim=1, keepdim=True) + 1e-8)
