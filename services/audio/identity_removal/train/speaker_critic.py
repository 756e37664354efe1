"""Classifiers of the speaker, and the training batches of the classifiers and the Audio ID-Removing Network.

The paper uses VGGVox, trained on thousands of speakers. Here the critic is trained on the project's speech and keeps learning while
the network learns to confuse the critic.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from services.audio.identity_removal.train.data import SpeechPart
from services.audio.phones import NUM_PHONES
from services.audio.train.sphinx import IGNORED
from services.audio.types import NUM_CEPSTRA
from services.common.array_types import Float32


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


class SpeechBatch(NamedTuple):
    """N segments: rows float32 [N, W, 20], labels int64 [N, W] phone classes (-1 unknown), speakers int64 [N]."""

    rows: Tensor
    labels: Tensor
    speakers: Tensor


class SegmentSampler:
    """Sampler of segments with nearly equal shares of all speakers. Equal generator states give equal batches."""

    def __init__(self, parts: list[SpeechPart], segment_rows: int, exponent: float) -> None:
        self._parts = [part for part in parts if len(part.rows) >= segment_rows]
        self.speakers = sorted({part.speaker for part in self._parts})
        self._groups = [[part for part in self._parts if part.speaker == speaker] for speaker in self.speakers]
        sizes = np.array([sum(len(part.rows) for part in group) for group in self._groups], np.float64)
        self._probability = sizes**exponent / (sizes**exponent).sum()
        self._rows = segment_rows

    def draw(self, rng: np.random.Generator, count: int) -> SpeechBatch:
        """Return `count` segments."""
        chosen = rng.choice(len(self._groups), size=count, p=self._probability)
        rows, labels = [], []
        for index in chosen:
            group = self._groups[index]
            part = group[rng.integers(len(group))]
            start = int(rng.integers(len(part.rows) - self._rows + 1))
            rows.append(part.rows[start : start + self._rows])
            labels.append(part.labels[start : start + self._rows])
        classes = np.stack(labels).astype(np.int64)
        classes[classes == IGNORED] = -1
        return SpeechBatch(torch.from_numpy(np.stack(rows)), torch.from_numpy(classes), torch.from_numpy(chosen.astype(np.int64)))


def global_speaker(parts: list[SpeechPart]) -> Float32:
    """Return the mean normalised cepstra of each phone over the speakers, float32 [40, 20]. Every speaker has the same weight."""
    total, seen = np.zeros((NUM_PHONES, NUM_CEPSTRA)), np.zeros((NUM_PHONES, 1))
    for speaker in sorted({part.speaker for part in parts}):
        rows = np.concatenate([part.rows for part in parts if part.speaker == speaker])
        labels = np.concatenate([part.labels for part in parts if part.speaker == speaker])
        for phone in range(NUM_PHONES):
            mine = rows[labels == phone]
            if len(mine) >= 4:
                total[phone] += mine.mean(axis=0)
                seen[phone] += 1.0
    return (total / np.maximum(seen, 1.0)).astype(np.float32)
