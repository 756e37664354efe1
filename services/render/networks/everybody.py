"""The renderer of `everybody` at the size that is served: seven masked frames and heatmaps -> the mouth of the last one.

Paper `everybody`, Sec. 3.3.1 and table 7 (its own size: networks/everybody_full.py). It is the U-Net of networks/refine.py with
other inputs and another way out. Departures from the table:

* one frame comes out, frame t, where the table has seven: streams are drawn frame by frame, and six of seven would be thrown away;
* the first level is a pixel unshuffle, and an actor's state goes into every layer (FiLM), so that one model serves all actors;
* the way out mixes the actor's key pictures (services/render/key_pictures.py), pixel by pixel, and adds a residual: detail that
  was filmed is sharper than detail that was drawn, and a few hundred steps of training suffice to learn where it belongs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from services.render.heatmaps import KEYS_AFTER, KEYS_BEFORE, NUM_KEYS, WINDOW_CHANNELS
from services.render.networks.refine import RefineConfig, UNetTrunk


@dataclass(frozen=True, kw_only=True, slots=True)
class EverybodyConfig:
    """Shape of the network; see RefineConfig."""

    widths: tuple[int, ...] = (24, 48, 80, 104)
    depths: tuple[int, ...] = (1, 1, 1, 2)

    def to_metadata(self) -> dict[str, Any]:
        """As plain values, for a checkpoint's header."""
        return asdict(self)


class EverybodyNetwork(UNetTrunk):
    """The U-Net; see the module's text."""

    def __init__(self, config: EverybodyConfig) -> None:
        super().__init__(
            RefineConfig(widths=config.widths, depths=config.depths), in_channels=WINDOW_CHANNELS, out_channels=4 * (3 + NUM_KEYS)
        )
        self.config = config

    def forward(self, pictures: Tensor, state: Tensor) -> Tensor:
        """What to add to the first key picture.

        Args:
            pictures: float [B, WINDOW_CHANNELS, 160, 160] in [0, 1], laid out by services.render.heatmaps.window_picture.
            state: float [B, S], the actors' FiLM scales and shifts.

        Returns:
            float [B, 3, 160, 160], unit: the full range of the pictures.
        """
        made = F.pixel_shuffle(self.trunk(pictures, state), 2)
        first = pictures[:, KEYS_BEFORE]
        shares = torch.softmax(made[:, 3:], dim=1)
        mixed = shares[:, :1] * first
        for place, key in enumerate(torch.split(pictures[:, KEYS_AFTER], 3, dim=1), start=1):
            mixed = mixed + shares[:, place : place + 1] * key
        # A tenth keeps the first steps of training small beside the key pictures.
        return mixed - first + made[:, :3] * 0.1
