"""Small network whose features stand in for those of VGG in the perceptual loss (Song et al. 2023, L_vgg in Eq. 10).

research/render/perceptual.py trains the network on pictures of the lower face. The network learns to tell how the mouth stands
(landmarks), who the person is (speaker) and how much the picture was blurred. For these tasks the features must see lips, teeth,
folds, texture and sharpness at several scales. The loss compares these features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from services.render.networks.weights import StoredConfig, loader

_SLOPE: Final = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class PerceptualConfig(StoredConfig):
    """Shape of the network.

    Attributes:
        widths: channels at 160, 80, 40 and 20 px; each size has two convolutions.
        num_values: number of regression targets: 59 x 2 landmark coordinates and the blur.
        num_speakers: number of speakers, the classes.
    """

    widths: tuple[int, ...] = (16, 32, 64, 96)
    num_values: int = 119
    num_speakers: int = 2


class PerceptualOutputs(NamedTuple):
    """Answers of the network about pictures.

    Attributes:
        values: float [B, num_values], landmark coordinates (normalised as in research/render/perceptual.py), then the blur's
            sigma in pixels.
        speakers: float [B, num_speakers], logits.
    """

    values: Tensor
    speakers: Tensor


class PerceptualNetwork(nn.Module):
    """Network of four stages of two 3 x 3 convolutions. The loss uses `features`, training uses `forward`."""

    def __init__(self, config: PerceptualConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList()
        before = 3
        for width in config.widths:
            self.stages.append(nn.ModuleList([nn.Conv2d(before, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)]))
            before = width
        self.register_buffer("feature_scales", torch.ones(len(config.widths)))
        self.values = nn.Linear(before * 25, config.num_values)
        self.speakers = nn.Linear(before, config.num_speakers)
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=_SLOPE)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Return the features of the four stages, each divided by the stage's mean absolute value over the training pictures.

        Args:
            pictures: float [B, 3, H, W] in [0, 1]; H and W divisible by 8.
        """
        x = pictures * 2.0 - 1.0
        maps: list[Tensor] = []
        for level, stage in enumerate(self.stages):
            assert isinstance(stage, nn.ModuleList)
            if level:
                x = F.avg_pool2d(x, 2)
            for convolution in stage:
                x = F.leaky_relu(convolution(x), _SLOPE)
            assert isinstance(self.feature_scales, Tensor)
            maps.append(x / self.feature_scales[level])
        return maps

    def forward(self, pictures: Tensor) -> PerceptualOutputs:
        """Return values and speaker logits of pictures, float [B, 3, 160, 160] in [0, 1]."""
        last = self.features(pictures)[-1]
        return PerceptualOutputs(self.values(F.avg_pool2d(last, 4).flatten(1)), self.speakers(last.mean(dim=(2, 3))))


load_perceptual: Final = loader(PerceptualNetwork, PerceptualConfig)
"""Perceptual network of a weights file; see `loader`."""
