"""Features of VGG-19 (Simonyan and Zisserman 2014) from the user's own weights file, in place of networks/perceptual.py."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from services.common.errors import InvalidRequest

_PLAN: Final = ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512))
_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)


class VggFeatures(nn.Module):
    """Layers relu1_2, relu2_2, relu3_4 and relu4_4 of VGG-19, each normalised over its channels."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self._taps: list[int] = []
        before = 3
        for level, widths in enumerate(_PLAN):
            if level:
                layers.append(nn.MaxPool2d(2))
            for width in widths:
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            self._taps.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Return the features of four layers, float [B, C, h, w] each: at each pixel a vector of length sqrt C.

        Args:
            pictures: float [B, 3, H, W] in [0, 1].
        """
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        x = (pictures - self.mean) / self.std
        found: list[Tensor] = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self._taps:
                found.append(F.normalize(x, dim=1) * x.shape[1] ** 0.5)
        return found


def load_vgg(path: Path) -> VggFeatures:
    """Return VGG-19 features from a state dict in torchvision's layout (`features.0.weight`, ...), .safetensors or .pth.

    Layers beyond relu4_4 and the classifier are ignored.

    Args:
        path: the file.

    Raises:
        InvalidRequest: the file is missing, holds no state dict, or a state dict of another layout. The message says which.
    """
    if not path.is_file():
        raise InvalidRequest(f"there is no VGG weights file at {path}", field="vgg_file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        raise InvalidRequest(f"{path} cannot be read as a state dict: {error}", field="vgg_file") from error
    except Exception as error:  # pickle's own errors have no common base below Exception
        raise InvalidRequest(f"{path} is not a state dict of weights alone: {error}", field="vgg_file") from error
    network = VggFeatures()
    wanted = network.state_dict()
    if not isinstance(state, dict) or any(name not in state for name in wanted):
        missing = sorted(name for name in wanted if not isinstance(state, dict) or name not in state)
        raise InvalidRequest(f"{path} is not VGG-19 in torchvision's layout: no {missing[0]}", field="vgg_file")
    wrong = [name for name in wanted if tuple(state[name].shape) != tuple(wanted[name].shape)]
    if wrong:
        shape = list(state[wrong[0]].shape)
        raise InvalidRequest(f"{path} is not VGG-19: {wrong[0]} has shape {shape}", field="vgg_file")
    network.load_state_dict({name: state[name] for name in wanted})
    return network.eval().requires_grad_(False)
