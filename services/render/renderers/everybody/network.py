"""Network of `everybody` at the size that is served: seven masked frames and heatmaps -> the mouth of the last frame.

Paper `everybody`, Sec. 3.3.1 and table 7, at a smaller size. The network is the U-Net of services/render/networks/unet.py with
other inputs and another way out. Departures from the table:

* One frame comes out, frame t, where the table has seven. Streams are drawn frame by frame, so six of seven would be thrown away.
* The first level is a pixel unshuffle, and an actor's state goes into every layer (FiLM), so that one model serves all actors.
* The way out mixes the actor's key pictures (services/render/key_pictures.py), pixel by pixel, and adds a residual. Detail that was
  filmed is sharper than detail that was drawn, and a few hundred steps of training suffice to learn where such detail belongs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from services.render.key_pictures import NUM_KEYS
from services.render.networks.unet import UNetTrunk
from services.render.networks.weights import StoredConfig, loader
from services.render.renderers.everybody.renderer import KEYS_AFTER, KEYS_BEFORE, WINDOW_CHANNELS

WEIGHTS: Final = "everybody.safetensors"
"""Name of the weights file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EverybodyConfig(StoredConfig):
    """Shape of the network.

    Attributes:
        widths: channels at 80, 40, 20 and 10 px.
        depths: residual blocks on the way down at each of these sizes; the way up has one block at each size.
    """

    widths: tuple[int, ...] = (24, 48, 80, 104)
    depths: tuple[int, ...] = (1, 1, 1, 2)


class EverybodyNetwork(UNetTrunk):
    """U-Net that mixes key pictures; see the module's text."""

    def __init__(self, config: EverybodyConfig) -> None:
        super().__init__(config.widths, config.depths, in_channels=WINDOW_CHANNELS, out_channels=4 * (3 + NUM_KEYS))
        self.config = config

    def forward(self, pictures: Tensor, state: Tensor) -> Tensor:
        """Return the residual to add to the first key picture.

        Args:
            pictures: float [B, WINDOW_CHANNELS, 160, 160] in [0, 1], laid out by inputs.window_picture.
            state: float [B, S], the actors' FiLM scales and shifts.

        Returns:
            float [B, 3, 160, 160], unit: the full range of the pictures.
        """
        outputs = F.pixel_shuffle(self.trunk(pictures, state), 2)
        first = pictures[:, KEYS_BEFORE]
        shares = torch.softmax(outputs[:, 3:], dim=1)
        mixed = shares[:, :1] * first
        for index, key in enumerate(torch.split(pictures[:, KEYS_AFTER], 3, dim=1), start=1):
            mixed = mixed + shares[:, index : index + 1] * key
        # The factor of a tenth keeps the first steps of training small beside the key pictures.
        return mixed - first + outputs[:, :3] * 0.1


load: Final = loader(EverybodyNetwork, EverybodyConfig)
"""Network of a weights file; see `loader`."""
