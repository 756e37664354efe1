"""Who it is: a small network from a picture of the lower face to a unit vector, in place of ArcFace (paper `headpose`, Sec. 3.4).

Trained by train/identity_embedding.py with ArcFace's own loss, the additive angular margin (Deng et al. 2019), on the people of the
training set. Light, colour, place and sharpness are varied there, so that the vector says whose mouth, chin and cheeks these are.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SLOPE: Final = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentityEmbeddingConfig:
    """Shape of the network.

    Attributes:
        widths: channels at 80, 40, 20, 10 and 5 px.
        size: numbers of an identity feature.
    """

    widths: tuple[int, ...] = (24, 32, 48, 64, 96)
    size: int = 64

    def to_metadata(self) -> dict[str, Any]:
        """As plain values, for a checkpoint's header."""
        return asdict(self)


class IdentityEmbedding(nn.Module):
    """Convolutions of stride 2, the mean over the picture, a linear layer, unit length."""

    def __init__(self, config: IdentityEmbeddingConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        for before, after in pairwise((3, *config.widths)):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.LeakyReLU(_SLOPE)]
            layers += [nn.Conv2d(after, after, 3, 1, 1), nn.LeakyReLU(_SLOPE)] if after > config.widths[0] else []
        self.layers = nn.Sequential(*layers)
        self.output = nn.Linear(config.widths[-1], config.size)

    def forward(self, pictures: Tensor) -> Tensor:
        """Unit vectors [B, size] of pictures in [0, 1], float [B, 3, 160, 160]."""
        return F.normalize(self.output(self.layers(pictures * 2.0 - 1.0).mean(dim=(2, 3))), dim=1)


class AngularMarginHead(nn.Module):
    """Additive angular margin (Deng et al. 2019, Eq. 3): logits s cos(theta + m) for the right class, s cos(theta) for the others.

    Args:
        size: of the features.
        num_classes: people.
        margin: m, radians.
        scale: s.
    """

    def __init__(self, size: int, num_classes: int, *, margin: float = 0.3, scale: float = 16.0) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.empty(num_classes, size))
        nn.init.xavier_normal_(self.centres)
        self.margin, self.scale = margin, scale

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Logits [B, C] of unit features [B, size] whose classes are known, int64 [B]."""
        cosine = features @ F.normalize(self.centres, dim=1).T
        right = F.one_hot(labels, len(self.centres)).to(cosine.dtype)
        own = cosine.clamp(-1.0 + 1e-6, 1.0 - 1e-6)
        moved = own * math.cos(self.margin) - (1.0 - own.square()).sqrt() * math.sin(self.margin)
        # Beyond pi - m the sum would turn back: there the cosine is lowered by a constant, as the authors do.
        moved = torch.where(own > math.cos(math.pi - self.margin), moved, own - self.margin * math.sin(self.margin))
        return (right * moved + (1.0 - right) * cosine) * self.scale
