"""Network of `ugc`: masked footage + warped texture + target lips -> what to add to the texture.

Paper `ugc`, Sec. III-B.3 (module Refine): a U-Net (services/render/networks/unet.py). Two departures from the paper:

* The result is `texture + residual`. The texture's own detail (teeth, gloss, stubble) goes straight through. A picture that is
  drawn from scratch under an L1 loss is blurred.
* Everything that belongs to one person is `actor_state`, an input of the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import Tensor
from torch.nn import functional as F

from services.render.networks.unet import UNetTrunk
from services.render.networks.weights import StoredConfig, loader
from services.render.renderers.ugc.renderer import NUM_PICTURE_CHANNELS

WEIGHTS: Final = "ugc.safetensors"
"""Name of the weights file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UgcConfig(StoredConfig):
    """Shape of the network.

    Attributes:
        widths: channels at 80, 40, 20 and 10 px.
        depths: residual blocks on the way down at each of these sizes; the way up has one block at each size.
    """

    widths: tuple[int, ...] = (24, 48, 96, 144)
    depths: tuple[int, ...] = (1, 1, 1, 2)


class UgcNetwork(UNetTrunk):
    """U-Net that returns a residual; see the module's text."""

    def __init__(self, config: UgcConfig) -> None:
        super().__init__(config.widths, config.depths, in_channels=NUM_PICTURE_CHANNELS, out_channels=12)
        self.config = config

    def forward(self, pictures: Tensor, state: Tensor) -> Tensor:
        """Return the residual to add to the texture.

        Args:
            pictures: float [B, 9, 160, 160], all in [0, 1]: masked background RGB, texture RGB, mask, target lips, target
                inside of the mouth.
            state: float [B, S], the actors' states.

        Returns:
            float [B, 3, 160, 160], unit: the full range of the pictures.
        """
        # The factor of a tenth keeps the first steps of training small beside the texture.
        return F.pixel_shuffle(self.trunk(pictures, state), 2) * 0.1


load: Final = loader(UgcNetwork, UgcConfig)
"""Network of a weights file; see `loader`."""
