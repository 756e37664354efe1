"""Networks of `everybody` in PyTorch over whole clips."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from services.common.array_types import Float32
from services.motion.basis import LandmarkBasis
from services.motion.expression import expressed, expression_spread
from services.motion.predictors.everybody.inputs import heard_clip
from services.motion.predictors.everybody.train.data import windows_of
from services.motion.style import Style
from services.motion.train.ridge import Filter
from services.motion.types import SpeechFeatures


class TorchEverybody:
    """A network of windows in PyTorch as protocol.Predict."""

    def __init__(self, network: nn.Module, mouth: LandmarkBasis, expression: LandmarkBasis, silence: Float32) -> None:
        self._network, self._mouth, self._expression, self._silence = network, mouth, expression, silence

    @torch.no_grad()
    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """Predict mouths before constraints, see protocol.Predict."""
        windows = windows_of(heard_clip(features, self._silence))
        coefficients = self._network(torch.from_numpy(np.ascontiguousarray(windows))).numpy()
        spread = expression_spread(style.spread, self._mouth, self._expression)
        return expressed(coefficients * spread, self._expression, style)


def filter_of(linear: Filter) -> nn.Module:
    """Return the closed-form filter as a network of windows."""
    layer = nn.Linear(linear.weight.shape[1], linear.weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(linear.weight))
        layer.bias.copy_(torch.from_numpy(linear.bias))
    return nn.Sequential(nn.Flatten(1), layer)
