"""Classifiers that try to tell the speaker, and the batches that they and the Audio ID-Removing Network are trained on.

The paper takes VGGVox, trained on thousands of speakers; here the critic is trained on this speech and goes on learning while
the network learns to confuse it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from services.audio.phones import NUM_PHONES
from services.audio.train.id_removal_data import SpeechPart
from services.audio.train.sphinx import IGNORED
from services.audio.types import NUM_CEPSTRA, FloatArray


class SpeakerLogits(NamedTuple):
    """Scores of S speakers, each by another view of a segment."""

    rows: Tensor
    """[N, R, S], from nine rows around every fourth row."""
    pooled: Tensor
    """[N, S], from mean and deviation of learned features over the segment."""
    statistics: Tensor
    """[N, S], linear in mean and deviation of the cepstra over the segment."""


def moments(x: Tensor, dim: int) -> Tensor:
    """Mean and standard deviation along `dim`, side by side in the last axis that is left."""
    mean = x.mean(dim=dim, keepdim=True)
    deviation = torch.sqrt(((x - mean) ** 2).mean(dim=dim) + 1e-3)
    return torch.cat([mean.squeeze(dim), deviation], dim=-1)


class SpeakerCritic(nn.Module):
    """Who speaks, by three views at once: single moments, the segment, its plain statistics."""

    def __init__(self, num_speakers: int, width: int = NUM_CEPSTRA, channels: int = 64) -> None:
        super().__init__()
        self.near = nn.Conv1d(width, channels, 5, padding=2)
        self.wide = nn.Conv1d(channels, channels, 3, padding=2, dilation=2)
        self.dropout = nn.Dropout(0.2)
        self.rows = nn.Linear(channels, num_speakers)
        self.pooled = nn.Linear(2 * channels, num_speakers)
        self.statistics = nn.Linear(2 * width, num_speakers)

    def forward(self, rows: Tensor) -> SpeakerLogits:
        """[N, W, 20] -> scores."""
        hidden = torch.relu(self.near(rows.transpose(1, 2)))
        hidden = self.dropout(torch.relu(self.wide(hidden)).transpose(1, 2))
        return SpeakerLogits(self.rows(hidden[:, ::4]), self.pooled(moments(hidden, 1)), self.statistics(moments(rows, 1)))


def recognition_loss(logits: SpeakerLogits, speakers: Tensor) -> Tensor:
    """Cross-entropy of the true speakers [N], mean over the views: what the critic minimises."""
    per_row = nn.functional.cross_entropy(logits.rows.flatten(0, 1), speakers.repeat_interleave(logits.rows.shape[1]))
    pooled = nn.functional.cross_entropy(logits.pooled, speakers)
    return (per_row + pooled + nn.functional.cross_entropy(logits.statistics, speakers)) / 3.0


def confusion_loss(logits: SpeakerLogits) -> Tensor:
    """Eq. 2, L_norm = - sum_c 1/N log p(c | x'), mean over the views, less its smallest value log N."""
    parts = [-torch.log_softmax(scores, dim=-1).mean(dim=-1).mean() for scores in logits]
    return torch.stack(parts).mean() - float(np.log(logits.pooled.shape[-1]))


class SpeechBatch(NamedTuple):
    """Segments of N speakers: rows float32 [N, W, 20], labels int64 [N, W] phone classes (-1 unknown), speakers int64 [N]."""

    rows: Tensor
    labels: Tensor
    speakers: Tensor


class SegmentSampler:
    """Draws segments, speakers nearly alike; the same generator state gives the same batch."""

    def __init__(self, parts: list[SpeechPart], segment_rows: int, exponent: float) -> None:
        self._parts = [part for part in parts if len(part.rows) >= segment_rows]
        self.speakers = sorted({part.speaker for part in self._parts})
        self._groups = [[part for part in self._parts if part.speaker == speaker] for speaker in self.speakers]
        sizes = np.array([sum(len(part.rows) for part in group) for group in self._groups], np.float64)
        self._probability = sizes**exponent / (sizes**exponent).sum()
        self._rows = segment_rows

    def draw(self, rng: np.random.Generator, count: int) -> SpeechBatch:
        """`count` segments."""
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


def global_speaker(parts: list[SpeechPart]) -> FloatArray:
    """Mean normalised cepstra of each phone over the speakers, every speaker counting the same: float32 [40, 20]."""
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
