"""Networks of `everyone` in PyTorch over whole clips."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from services.common.array_types import Float32
from services.motion.expression import expressed, expression_spread
from services.motion.predictors.everyone.inputs import WINDOW, heard_clip
from services.motion.speech_states import Heard
from services.motion.style import Style
from services.motion.train.expression_space import ExpressionSpace
from services.motion.types import SpeechFeatures


class TorchEveryone:
    """A network of windows in PyTorch as protocol.Predict, all windows of a clip in one batch.

    Args:
        network: network from windows [N, 36, H] to the expression of the window's frame [N, E].
        space: bases of mouths and of expression.
        heard: input of the network.
    """

    def __init__(self, network: nn.Module, space: ExpressionSpace, heard: Heard) -> None:
        self._network, self._space, self._heard = network, space, heard
        self._device = next(network.parameters()).device

    @torch.no_grad()
    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """Predict mouths before constraints, see protocol.Predict."""
        windows = torch.from_numpy(heard_clip(features, self._heard)).to(self._device).unfold(0, WINDOW, 1).permute(0, 2, 1)
        coefficients = self._network(windows.contiguous()).cpu().numpy()
        spread = expression_spread(style.spread, self._space.mouth, self._space.expression)
        return expressed(np.asarray(coefficients * spread, np.float32), self._space.expression, style)
