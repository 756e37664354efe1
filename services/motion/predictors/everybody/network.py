"""Audio-to-Expression network (Everybody's Talkin', Sec. 3.2.2 and C): a second of ID-removed speech to expression coefficients.

    window [N, 25, 4, 24] -> linear, LSTM -> its states at the frame and at the end -> linear -> coefficients [N, E]
                          -> linear filter (closed form, fixed)                                -> coefficients [N, E]
    coefficients = share * LSTM's + (1 - share) * filter's

Coefficients are measured from the person's rest mouth, in units of the person's spread. The LSTM is the paper's, and trained by
itself. The errors of LSTM and filter differ so much that the mean of both is better than either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from services.motion.predictors.everybody.predictor import NUM_INPUTS, WINDOW, WINDOW_PAST
from services.motion.types import ROWS_PER_FRAME

WINDOW_SIZE: Final = WINDOW * ROWS_PER_FRAME * NUM_INPUTS


@dataclass(frozen=True, kw_only=True, slots=True)
class EverybodyConfig:
    """Sizes of the network."""

    num_expression: int = 24
    projection: int = 64
    hidden: int = 80
    dropout: float = 0.3
    share: float = 0.5
    """Share of the LSTM in the answer, outside of training."""


class EverybodyNetwork(nn.Module):
    """Network from a window to the expression of the window's frame."""

    def __init__(self, config: EverybodyConfig) -> None:
        super().__init__()
        self.config = config
        self.filter = nn.Linear(WINDOW_SIZE, config.num_expression)
        self.filter.requires_grad_(False)
        self.project = nn.Linear(ROWS_PER_FRAME * NUM_INPUTS, config.projection)
        self.recurrent = nn.LSTM(config.projection, config.hidden, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(2 * config.hidden, config.num_expression)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def set_filter(self, weight: Tensor, bias: Tensor) -> None:
        """Set the closed-form part, [E, 2400] and [E]."""
        with torch.no_grad():
            self.filter.weight.copy_(weight)
            self.filter.bias.copy_(bias)

    def forward(self, window: Tensor) -> Tensor:
        """Return the expression: [N, 25, 4, 24] -> [N, E] in units of the person's spread. In training, only the LSTM's part."""
        hidden, _ = self.recurrent(self.dropout(torch.relu(self.project(window.flatten(2)))))
        # The state at the frame itself, and the state after the frames that follow.
        encoded = torch.cat([hidden[:, WINDOW_PAST], hidden[:, -1]], dim=1)
        recurrent: Tensor = self.out(self.dropout(encoded))
        if self.training:
            return recurrent
        mixed: Tensor = self.config.share * recurrent + (1.0 - self.config.share) * self.filter(window.flatten(1))
        return mixed
