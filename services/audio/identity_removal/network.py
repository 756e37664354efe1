"""The Audio ID-Removing Network (Everybody's Talkin', Sec. 3.2.1, Eq. 1, Fig. 3).

    x' = (I + sum_j lambda_j W_j) (x; 1)

x is a row of normalised cepstra, I the identity padded by a column of zeros, W_j [C, C + 1] are components that all speakers share
(parameters of the network), and an LSTM with a fully connected layer infers the weights lambda_j from the rows so far. As in
the paper the output is again a row of cepstra, of a "global speaker".

Departures: the weights are inferred for each row, they are a choice (one lambda is 1, the others 0), and the linear part of every
W_j removes the row (-I), so that the chosen component's column is the result. With free weights and components, trained as in the
paper, new classifiers still recognised the speakers: a weighted sum passes differences that are small, but the same in every row
(docs/models/id_removal.md has the figures; `hard=False` is that network).

Shapes: N windows, W rows of a window, S = W / 4 steps, C = 20 cepstra, J components.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.audio.identity_removal.normalise import IDENTITY_PAST_ROWS
from services.audio.types import NUM_CEPSTRA, ROWS_PER_VIDEO_FRAME
from services.common.wire.phones import NUM_PHONES

ROWS_PER_STEP: Final = 4
"""Four 10 ms rows make one LSTM step."""
DELAY_STEPS: Final = 1
"""Steps that the LSTM hears beyond the rows of its weights."""

TEMPERATURE: Final = 1.0
"""Temperature of the softmax through which a choice is learned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IdRemovalConfig:
    """Sizes of the network."""

    components: int = 2 * NUM_PHONES
    """J, matrices that a row's transformation is chosen or mixed from: two variants of each phone."""
    hard: bool = True
    """True: one component per row, without the row itself. False: a weighted sum of free components."""
    projection: int = 128
    hidden: int = 128
    layers: int = 2
    dropout: float = 0.1
    """Dropout between layers, in training only."""


class IdRemovalNetwork(nn.Module):
    """Normalised cepstra of any speaker -> cepstra of the global speaker."""

    def __init__(self, config: IdRemovalConfig) -> None:
        super().__init__()
        self.config = config
        self.project = nn.Linear(NUM_CEPSTRA * ROWS_PER_STEP, config.projection)
        self.recurrent = nn.LSTM(
            config.projection, config.hidden, num_layers=config.layers, batch_first=True, dropout=config.dropout
        )
        self.weigh = nn.Linear(config.hidden, ROWS_PER_STEP * config.components)
        self.linear = nn.Parameter(torch.randn(config.components, NUM_CEPSTRA, NUM_CEPSTRA) * 0.05)
        self.column = nn.Parameter(torch.randn(config.components, NUM_CEPSTRA) * 0.05)
        if config.hard:
            self.linear.requires_grad_(False)
            self.linear.data.copy_(-torch.eye(NUM_CEPSTRA).expand_as(self.linear))

    def scores(self, cepstra: Tensor) -> Tensor:
        """Return the scores that give lambda, [N, W, C] -> [N, W - 4 DELAY_STEPS, J]: the last rows are look-ahead."""
        batch, rows = cepstra.shape[0], cepstra.shape[1]
        steps = cepstra.reshape(batch, rows // ROWS_PER_STEP, NUM_CEPSTRA * ROWS_PER_STEP)
        hidden, _ = self.recurrent(torch.relu(self.project(steps)))
        scores: Tensor = self.weigh(hidden[:, DELAY_STEPS:])
        return scores.reshape(batch, rows - DELAY_STEPS * ROWS_PER_STEP, self.config.components)

    def weights(self, scores: Tensor) -> Tensor:
        """Return lambda, [N, R, J]: the scores, or 1 for the highest one and 0 for the others.

        In training the choice is drawn by the scores (Gumbel), and its gradient is that of the softmax (straight through).
        """
        if not self.config.hard:
            return scores
        if self.training:
            return functional.gumbel_softmax(scores, tau=TEMPERATURE, hard=True)
        chosen: Tensor = functional.one_hot(scores.argmax(dim=-1), self.config.components).to(scores.dtype)
        return chosen

    def transform(self, cepstra: Tensor, weights: Tensor) -> Tensor:
        """Return eq. 1 with the weights [N, R, J] on the first R rows of [N, W, 20]: [N, R, 20]."""
        x = cepstra[:, : weights.shape[1]]
        if self.config.hard:  # (I - I) x + the chosen column, without the rounding of x - x
            return weights @ self.column
        # sum_j lambda_j W_j (x; 1) without a matrix per row: all W_j (x; 1) at once, then their weighted sum.
        moved = functional.linear(x, self.linear.flatten(0, 1), self.column.flatten())
        mixed: Tensor = (weights[..., None] * moved.reshape(*weights.shape, NUM_CEPSTRA)).sum(dim=2)
        return x + mixed

    def forward(self, cepstra: Tensor) -> Tensor:
        """Return [N, W, 20] float32, normalised by `RunningNormaliser` -> [N, W - 4, 20]."""
        return self.transform(cepstra, self.weights(self.scores(cepstra)))


class ServedIdRemoval(nn.Module):
    """Network for export: windows of 64 rows -> the four answered rows of each window."""

    def __init__(self, network: IdRemovalNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, cepstra: Tensor) -> Tensor:
        """Return [N, 64, 20] float32 -> [N, 4, 20] float32."""
        removed: Tensor = self.network(cepstra)
        return removed[:, IDENTITY_PAST_ROWS : IDENTITY_PAST_ROWS + ROWS_PER_VIDEO_FRAME]
