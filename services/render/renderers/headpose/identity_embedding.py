"""Identity embedding: a small network from a picture of the lower face to a unit vector that says who the person is.

The network stands in for ArcFace (paper `headpose`, Sec. 3.4). train/identity_embedding.py trains the network on the people of the
training set with ArcFace's own loss, the additive angular margin (Deng et al. 2019). Training varies light, colour, place and
sharpness, so that the vector says whose mouth, chin and cheeks the picture shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from torch import Tensor, nn
from torch.nn import functional as F

from services.render.networks.weights import StoredConfig, load_network

_SLOPE: Final = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentityEmbeddingConfig(StoredConfig):
    """Shape of the network.

    Attributes:
        widths: channels at 80, 40, 20, 10 and 5 px.
        size: numbers of an identity feature.
    """

    widths: tuple[int, ...] = (24, 32, 48, 64, 96)
    size: int = 64


class IdentityEmbedding(nn.Module):
    """Network of convolutions of stride 2, the mean over the picture and a linear layer, scaled to unit length."""

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
        """Return unit vectors, float [B, size], of pictures, float [B, 3, 160, 160] in [0, 1]."""
        return F.normalize(self.output(self.layers(pictures * 2.0 - 1.0).mean(dim=(2, 3))), dim=1)


def load(path: Path) -> IdentityEmbedding:
    """Return the identity embedding of a weights file, in evaluation mode and without gradients.

    Raises:
        ModelNotFound: the file is missing or holds another network.
    """
    return load_network(path, lambda config: IdentityEmbedding(IdentityEmbeddingConfig.from_metadata(config)))
