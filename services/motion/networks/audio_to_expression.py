"""Audio-to-Expression network (Everybody's Talkin', Sec. 3.2.2 and C): a second of ID-removed speech to expression coefficients.

    window [N, 25, 4, 24] -> linear filter         -> coefficients [N, E]    (closed form, fixed)
                          -> project, LSTM, linear -> coefficients [N, E]    (what the filter leaves)
    coefficients = filter + share * LSTM's

Coefficients are measured from the person's rest mouth, in units of the person's own spread. The paper has the LSTM alone and trains
it on a quarter of an hour of each person; here most speakers have seconds, and the filter is what holds for strangers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from services.motion.predict_expression import EXPRESSION_PAST, EXPRESSION_WINDOW, NUM_HEARD
from services.motion.types import ROWS_PER_FRAME

WINDOW_SIZE = EXPRESSION_WINDOW * ROWS_PER_FRAME * NUM_HEARD


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioToExpressionConfig:
    """Sizes of the network."""

    num_expression: int = 24
    projection: int = 64
    hidden: int = 80
    dropout: float = 0.3
    share: float = 0.35
    """Of the LSTM's part outside of training: a few speakers' closed grammar teaches it more than holds elsewhere."""


class AudioToExpressionNetwork(nn.Module):
    """Expression of the frame that a window is about."""

    def __init__(self, config: AudioToExpressionConfig) -> None:
        super().__init__()
        self.config = config
        self.filter = nn.Linear(WINDOW_SIZE, config.num_expression)
        self.filter.requires_grad_(False)
        self.project = nn.Linear(ROWS_PER_FRAME * NUM_HEARD, config.projection)
        self.recurrent = nn.LSTM(config.projection, config.hidden, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(2 * config.hidden, config.num_expression)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def set_filter(self, weight: Tensor, bias: Tensor) -> None:
        """Sets the closed-form part, [E, 2400] and [E]."""
        with torch.no_grad():
            self.filter.weight.copy_(weight)
            self.filter.bias.copy_(bias)

    def forward(self, window: Tensor) -> Tensor:
        """[N, 25, 4, 24] -> [N, E] in units of the person's spread."""
        linear: Tensor = self.filter(window.flatten(1))
        hidden, _ = self.recurrent(self.dropout(torch.relu(self.project(window.flatten(2)))))
        # The state at the frame itself and the one that has heard what follows.
        corrected = self.out(self.dropout(torch.cat([hidden[:, EXPRESSION_PAST], hidden[:, -1]], dim=1)))
        share = 1.0 if self.training else self.config.share
        total: Tensor = linear + share * corrected
        return total
