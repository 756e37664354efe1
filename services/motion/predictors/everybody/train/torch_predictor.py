"""Networks of `everybody` in PyTorch over whole clips."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from services.common.array_types import Float32
from services.motion.expression import expressed, expression_spread
from services.motion.predictors.everybody.inputs import heard_clip
from services.motion.predictors.everybody.network import EverybodyNetwork
from services.motion.predictors.everybody.train.data import windows_of
from services.motion.style import Style
from services.motion.train.expression_space import ExpressionSpace
from services.motion.types import SpeechFeatures


class TorchEverybody:
    """A network of windows in PyTorch as protocol.Predict."""

    def __init__(self, network: nn.Module, space: ExpressionSpace, silence: Float32) -> None:
        self._network, self._space, self._silence = network, space, silence
        self._device = next(network.parameters()).device

    @torch.no_grad()
    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """Predict mouths before constraints, see protocol.Predict."""
        windows = np.ascontiguousarray(windows_of(heard_clip(features, self._silence)))
        coefficients = self._network(torch.from_numpy(windows).to(self._device)).cpu().numpy()
        spread = expression_spread(style.spread, self._space.mouth, self._space.expression)
        return expressed(coefficients * spread, self._space.expression, style)


def filter_alone(network: EverybodyNetwork) -> nn.Module:
    """Return the closed-form part of a network as a network of windows."""
    return nn.Sequential(nn.Flatten(1), network.filter)
