"""Memory M: pairs of spatial and identity features, looked up by the nearest spatial feature (paper `headpose`, Sec. 3.4).

After Yoo et al. 2019 (Coloring with limited data), with cosine similarity for both features, as footnote 3 of the paper says. An
item is updated where the identity feature that the query finds is that of the same person; otherwise the item that was left alone
longest is replaced (footnote 4).
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
        items: pairs that it holds.
        spatial_size: numbers of a spatial feature.
        identity_size: numbers of an identity feature.
        threshold: least cosine of two identity features that are taken to be one person's.
        margin: of the triplet loss.
        neighbours: nearest items among which the triplet loss looks for a positive and a negative one.
    """

    items: int = 128
    spatial_size: int = 64
    identity_size: int = 64
    threshold: float = 0.7
    margin: float = 0.2
    neighbours: int = 64


class IdentityMemory(nn.Module):
    """Items [N, S] and [N, D], unit length; those never written are zeros and as good as absent."""

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
        """Identity features [B, T, D] of the items nearest to queries [B, T, S].

        Args:
            query: unit spatial features.
            more_spatial: [B, K, S], items of each picture's actor, beside those of the memory; zeros: absent.
            more_identity: [B, K, D].
        """
        count = query.shape[0]
        spatial = torch.cat([self.spatial.expand(count, -1, -1), more_spatial], dim=1)
        identity = torch.cat([self.identity.expand(count, -1, -1), more_identity], dim=1)
        # Sums of products instead of matrix products: their bytes do not depend on the batch.
        likeness = (query[:, :, None] * spatial[:, None]).sum(dim=-1)
        absent = (spatial.square().sum(dim=-1) < _EMPTY_SQUARE).to(likeness.dtype)
        nearest = (likeness - _NEVER * absent[:, None]).argmax(dim=-1)
        return torch.gather(identity, 1, nearest[..., None].expand(-1, -1, identity.shape[-1]))

    def triplet_loss(self, query: Tensor, identity: Tensor) -> Tensor:
        """Threshold triplet loss: mean of max(0, q . k_negative - q . k_positive + margin).

        The positive item is the nearest one whose identity feature is that of the same person (cosine at least the threshold), the
        negative one the nearest that is not. Queries that lack either count 0.

        Args:
            query: [B, S], unit spatial features, with gradient.
            identity: [B, D], their unit identity features.
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

        Where the item nearest to the query holds the same person's identity feature, its spatial feature moves half-way to the
        query (and is normalised), its identity feature likewise. Otherwise the oldest item is replaced by the pair. Ages of all
        others grow.

        Args:
            query: [B, S], unit spatial features.
            identity: [B, D], unit identity features.
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
        """Items that were written."""
        return int(self._present().sum())

    def _present(self) -> Tensor:
        return self.spatial.square().sum(dim=1) >= _EMPTY_SQUARE


class SpatialFeatures(nn.Module):
    """Spatial features of rendered frames, in place of ImageNet's ResNet18 pool5, a learnable linear layer, unit length.

    The frozen part is the perceptual network trained here (networks/perceptual.py), on pictures of half the size; means of its last
    two stages are pooled.
    """

    def __init__(self, config: PerceptualConfig, size: int) -> None:
        super().__init__()
        # Without what tells landmarks and speakers: only the stages are used.
        self.base = PerceptualNetwork(PerceptualConfig(widths=config.widths, num_values=1, num_speakers=1)).requires_grad_(False)
        width = sum(config.widths[-2:])
        self.weight = nn.Parameter(torch.randn(size, width) / width**0.5)

    def load_base(self, perceptual: PerceptualNetwork) -> None:
        """Take the stages of a trained network."""
        self.base.stages.load_state_dict(perceptual.stages.state_dict())
        self.base.feature_scales = perceptual.feature_scales

    def forward(self, frames: Tensor) -> Tensor:
        """Unit features [B, S] of frames in [0, 1], float [B, 3, 160, 160]."""
        stages = self.base.features(F.avg_pool2d(frames, 2))
        pooled = torch.cat([stage.mean(dim=(2, 3)) for stage in stages[-2:]], dim=1)
        made = (pooled[:, None] * self.weight).sum(dim=-1)
        return made * torch.rsqrt(made.square().sum(dim=1, keepdim=True) + 1e-8)
