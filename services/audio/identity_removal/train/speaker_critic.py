"""Classifiers of the speaker, whom the Audio ID-Removing Network learns to confuse.

The paper uses VGGVox, trained on thousands of speakers. Here the critic is trained on the project's speech and keeps learning while
the network learns to confuse the critic.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from services.audio.types import NUM_CEPSTRA


class SpeakerLogits(NamedTuple):
    """Scores of S speakers by three views of a segment."""

    rows: Tensor
    """Scores [N, R, S] from nine rows around every fourth row."""
    pooled: Tensor
    """Scores [N, S] from mean and standard deviation of learned features over the segment."""
    statistics: Tensor
    """Scores [N, S], linear in mean and standard deviation of the cepstra over the segment."""


def moments(x: Tensor, dim: int) -> Tensor:
    """Return mean and standard deviation along `dim`, concatenated in the last remaining axis."""
    mean = x.mean(dim=dim, keepdim=True)
    deviation = torch.sqrt(((x - mean) ** 2).mean(dim=dim) + 1e-3)
    return torch.cat([mean.squeeze(dim), deviation], dim=-1)


class SpeakerCritic(nn.Module):
    """Classifier of the speaker by three views: single moments, the whole segment, statistics of the cepstra."""

    def __init__(self, num_speakers: int, width: int = NUM_CEPSTRA, channels: int = 64) -> None:
        super().__init__()
        self.near = nn.Conv1d(width, channels, 5, padding=2)
        self.wide = nn.Conv1d(channels, channels, 3, padding=2, dilation=2)
        self.dropout = nn.Dropout(0.2)
        self.rows = nn.Linear(channels, num_speakers)
        self.pooled = nn.Linear(2 * channels, num_speakers)
        self.statistics = nn.Linear(2 * width, num_speakers)

    def forward(self, rows: Tensor) -> SpeakerLogits:
        """Return the scores of segments [N, W, 20]."""
        hidden = torch.relu(self.near(rows.transpose(1, 2)))
        hidden = self.dropout(torch.relu(self.wide(hidden)).transpose(1, 2))
        return SpeakerLogits(self.rows(hidden[:, ::4]), self.pooled(moments(hidden, 1)), self.statistics(moments(rows, 1)))


def recognition_loss(logits: SpeakerLogits, speakers: Tensor) -> Tensor:
    """Return the cross-entropy of the true speakers [N], mean over the views. The critic minimises this loss."""
    per_row = nn.functional.cross_entropy(logits.rows.flatten(0, 1), speakers.repeat_interleave(logits.rows.shape[1]))
    pooled = nn.functional.cross_entropy(logits.pooled, speakers)
    return (per_row + pooled + nn.functional.cross_entropy(logits.statistics, speakers)) / 3.0


def confusion_loss(logits: SpeakerLogits) -> Tensor:
    """Return Eq. 2, L_norm = - sum_c 1/N log p(c | x'), mean over the views, minus the smallest possible value log N."""
    parts = [-torch.log_softmax(scores, dim=-1).mean(dim=-1).mean() for scores in logits]
    return torch.stack(parts).mean() - float(np.log(logits.pooled.shape[-1]))
