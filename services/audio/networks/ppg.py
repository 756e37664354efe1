"""The phonetic posteriorgram network: a bidirectional LSTM from cepstra to phone probabilities.

The paper's recurrent network (Song et al., Sec. III-A.1: MFCC -> DBLSTM -> phone posteriors), made for streaming: it sees fixed
windows laid on the acoustic grid, PAST_ROWS before the four rows it answers and LOOK_AHEAD_ROWS after them, so its answer for
a row never depends on how the signal was cut.

Shapes: N windows, W = 58 rows a window, S = W / 2 steps, C = 20 cepstra, K = 40 phone classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from services.audio.types import NUM_CEPSTRA, ROWS_PER_VIDEO_FRAME
from services.audio.windows import PAST_ROWS
from services.common.wire.phones import NUM_PHONES

_ROWS_PER_STEP: Final = 2
"""Two 10 ms rows make one LSTM step: half the recurrence for the same context."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PpgConfig:
    """Sizes of the network."""

    projection: int = 152
    """Width of the layer in front of the recurrence."""
    hidden: int = 152
    """Cells of each LSTM direction."""
    layers: int = 2
    dropout: float = 0.25
    """Dropout between layers, in training only."""


class PpgNetwork(nn.Module):
    """Normalised cepstra of windows -> phone log-probabilities of their inner rows."""

    feature_scale: Tensor
    delta_kernel: Tensor

    def __init__(self, config: PpgConfig) -> None:
        super().__init__()
        self.config = config
        # 1 / standard deviation of the cepstra and of their deltas, measured on the training set.
        self.register_buffer("feature_scale", torch.ones(2 * NUM_CEPSTRA))
        kernel = torch.tensor([-0.2, -0.1, 0.0, 0.1, 0.2]).repeat(NUM_CEPSTRA, 1, 1)
        self.register_buffer("delta_kernel", kernel, persistent=False)
        self.project = nn.Linear(2 * NUM_CEPSTRA * _ROWS_PER_STEP, config.projection)
        self.recurrent = nn.LSTM(
            config.projection,
            config.hidden,
            num_layers=config.layers,
            bidirectional=True,
            batch_first=True,
            dropout=config.dropout,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(2 * config.hidden, _ROWS_PER_STEP * NUM_PHONES)

    def inputs(self, cepstra: Tensor) -> Tensor:
        """Return cepstra and deltas, both scaled to deviation 1: [N, W, 20] -> [N, W / 2, 80], two rows a step."""
        # Deltas inside the window, its edge rows repeated: the look-ahead of the deltas costs no further rows.
        padded = nn.functional.pad(cepstra.transpose(1, 2), (2, 2), mode="replicate")
        delta = nn.functional.conv1d(padded, self.delta_kernel, groups=NUM_CEPSTRA).transpose(1, 2)
        features = torch.cat([cepstra, delta], dim=2) * self.feature_scale
        return features.reshape(cepstra.shape[0], cepstra.shape[1] // _ROWS_PER_STEP, -1)

    def forward(self, cepstra: Tensor) -> Tensor:
        """Return phone log-probabilities.

        Args:
            cepstra: [N, W, 20] float32, W even, mean-normalised by `windows.normalise`. Served with W = 58; training also
                uses wider windows.

        Returns:
            [N, W, 40] float32, natural logarithm, every row's exponentials sum to 1.
        """
        batch, rows = cepstra.shape[0], cepstra.shape[1]
        hidden, _ = self.recurrent(torch.relu(self.project(self.inputs(cepstra))))
        logits = self.classify(self.dropout(hidden)).reshape(batch, rows, NUM_PHONES)
        return torch.log_softmax(logits, dim=2)


class ServedPpg(nn.Module):
    """Network for export: windows of 58 rows -> probabilities of the four answered rows of each window."""

    def __init__(self, network: PpgNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, cepstra: Tensor) -> Tensor:
        """Return [N, 58, 20] float32 -> [N, 4, 40] float32, rows sum to 1."""
        log_probabilities: Tensor = self.network(cepstra)
        return log_probabilities[:, PAST_ROWS : PAST_ROWS + ROWS_PER_VIDEO_FRAME].exp()
