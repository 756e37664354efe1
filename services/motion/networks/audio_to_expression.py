"""Audio-to-Expression network (Everybody's Talkin', Sec. 3.2.2 and C): a second of ID-removed speech to expression coefficients.

    window [N, 25, 4, 24] -> linear, LSTM -> its states at the frame and at the end -> linear -> coefficients [N, E]

Coefficients are measured from the person's rest mouth, in units of the person's own spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from services.motion.predict_expression import EXPRESSION_PAST, NUM_HEARD
from services.motion.types import ROWS_PER_FRAME


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioToExpressionConfig:
    """Sizes of the network."""

    num_expression: int = 24
    projection: int = 64
    hidden: int = 80
    dropout: float = 0.3


class AudioToExpressionNetwork(nn.Module):
    """Expression of the frame that a window is about."""

    def __init__(self, config: AudioToExpressionConfig) -> None:
        super().__init__()
        self.config = config
        self.project = nn.Linear(ROWS_PER_FRAME * NUM_HEARD, config.projection)
        self.recurrent = nn.LSTM(config.projection, config.hidden, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(2 * config.hidden, config.num_expression)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self, window: Tensor) -> Tensor:
        """[N, 25, 4, 24] -> [N, E] in units of the person's spread."""
        hidden, _ = self.recurrent(self.dropout(torch.relu(self.project(window.flatten(2)))))
        # The state at the frame itself and the one that has heard what follows.
        heard = torch.cat([hidden[:, EXPRESSION_PAST], hidden[:, -1]], dim=1)
        coefficients: Tensor = self.out(self.dropout(heard))
        return coefficients
