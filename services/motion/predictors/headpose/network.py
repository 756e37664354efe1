"""Audio to expression and head pose (headpose paper, Sec. 3.2, Eq. 1): audio encoder E and LSTM R.

    window [N, L, 4, C] -> linear filter of W frames           -> expression [N, T, 24]   (closed form, fixed)
                         -> E: linear per frame, ReLU, W frames -> e [N, T, D]
    [beta, p, h, c] = R(e, h, c): LSTM; expression += share * linear(h), pose = linear(h)

T = L - W + 1: step t takes frames t - PAST .. t + AHEAD. With L = W the network makes one step, as the exported network does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor, nn

from services.motion.features import NUM_CONTENT
from services.motion.head_network import NUM_COEFFICIENTS
from services.motion.types import ROWS_PER_FRAME

SpeechInput = Literal["mfcc", "phones", "both"]
"""Input of the network: cepstra, the paper's; content rows (phones and energies); or both. The stage serves the first."""
INPUT_COLUMNS: Final[dict[SpeechInput, slice]] = {
    "mfcc": slice(NUM_CONTENT, NUM_CONTENT + NUM_COEFFICIENTS),
    "phones": slice(NUM_CONTENT),
    "both": slice(NUM_CONTENT + NUM_COEFFICIENTS),
}
"""Columns of head_network.input_rows that are the network's input."""
NUM_POSE: Final = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadposeConfig:
    """Sizes of the network."""

    heard: SpeechInput = "mfcc"
    """Input."""
    num_expression: int = 24
    past: int = 6
    ahead: int = 2
    projection: int = 48
    encoded: int = 96
    hidden: int = 128
    dropout: float = 0.3
    noise: float = 0.2
    """Standard deviation of noise on the encoder's inputs in training. The filter gets none, or the LSTM would undo noise."""
    level: float = 0.15
    """Standard deviation of noise that is constant over a sequence, in training."""
    share: float = 0.5
    """Share of the LSTM's part of the expression outside of training: few speakers' grammar teaches more than holds elsewhere."""

    @property
    def window(self) -> int:
        """W, number of frames in a step's input window."""
        return self.past + 1 + self.ahead

    @property
    def num_inputs(self) -> int:
        """Numbers of a row that the network takes."""
        columns = INPUT_COLUMNS[self.heard]
        return int(columns.stop) - int(columns.start or 0)

    @property
    def channels(self) -> int:
        """Numbers of a frame that the network takes."""
        return ROWS_PER_FRAME * self.num_inputs


class HeadposeOutput(NamedTuple):
    """expression [N, T, E] and pose [N, T, 6] (about the mean) in units of the person's spread, and the state h and c [N, H]."""

    expression: Tensor
    pose: Tensor
    h: Tensor
    c: Tensor


class HeadposeNetwork(nn.Module):
    """Network from speech to expression and head pose, one step per frame."""

    def __init__(self, config: HeadposeConfig) -> None:
        super().__init__()
        self.config = config
        self.filter = nn.Conv1d(config.channels, config.num_expression, config.window)
        self.filter.requires_grad_(False)
        self.frame = nn.Conv1d(config.channels, config.projection, 1)
        self.encode = nn.Conv1d(config.projection, config.encoded, config.window)
        self.recurrent = nn.LSTM(config.encoded, config.hidden, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.expression = nn.Linear(config.hidden, config.num_expression)
        self.pose = nn.Linear(config.hidden, NUM_POSE)
        for head in (self.expression, self.pose):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)

    def set_filter(self, weight: Tensor, bias: Tensor) -> None:
        """Set the closed-form part, [E, W * C] (frame by frame) and [E]."""
        with torch.no_grad():
            self.filter.weight.copy_(weight.reshape(-1, self.config.window, self.config.channels).transpose(1, 2))
            self.filter.bias.copy_(bias)  # type: ignore[union-attr]

    def _disturbed(self, rows: Tensor) -> Tensor:
        level = self.config.level * torch.randn(rows.shape[0], self.config.num_inputs, 1, device=rows.device).repeat(
            1, ROWS_PER_FRAME, 1
        )
        return rows + level + self.config.noise * torch.randn_like(rows)

    def forward(self, window: Tensor, h: Tensor, c: Tensor) -> HeadposeOutput:
        """Make L - W + 1 steps: window [N, L, 4, C], state h and c [N, H]."""
        rows = window.flatten(2).transpose(1, 2)
        linear = self.filter(rows).transpose(1, 2)
        inputs = self._disturbed(rows) if self.training else rows
        encoded = torch.relu(self.encode(self.dropout(torch.relu(self.frame(inputs))))).transpose(1, 2)
        states, (last_h, last_c) = self.recurrent(self.dropout(encoded), (h[None], c[None]))
        states = self.dropout(states)
        share = 1.0 if self.training else self.config.share
        return HeadposeOutput(linear + share * self.expression(states), self.pose(states), last_h[0], last_c[0])
