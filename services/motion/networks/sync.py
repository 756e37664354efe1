"""Sync network: embeddings of sound and mouth in one space, where matching pairs are close (SyncNet, Chung & Zisserman 2016).

    sync rows [N, T, 4, 25]    -> AudioEncoder -> unit vectors [N, T, E]
    coefficients [N, T, K]     -> MouthEncoder -> unit vectors [N, T, E]

Each vector sees about nine frames, with its own frame in the middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.motion.features import ARTICULATIONS, NUM_SYNC
from services.motion.types import ROWS_PER_FRAME


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncConfig:
    """Sizes of the two encoders."""

    num_coefficients: int = 16
    channels: int = 48
    embedding: int = 24
    dropout: float = 0.15


class _Tower(nn.Module):
    def __init__(self, channels_in: int, config: SyncConfig) -> None:
        super().__init__()
        channels = config.channels
        self.enter = nn.Conv1d(channels_in, channels, 5, padding=2)
        self.middle = nn.Conv1d(channels, channels, 3, padding=1)
        self.last = nn.Conv1d(channels, channels, 3, padding=1)
        self.out = nn.Conv1d(channels, config.embedding, 1)
        self.dropout = nn.Dropout1d(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return unit vectors: [N, in, T] -> [N, T, E]."""
        x = functional.leaky_relu(self.enter(x), 0.1)
        x = self.dropout(x)
        x = x + functional.leaky_relu(self.middle(x), 0.1)
        x = x + functional.leaky_relu(self.last(x), 0.1)
        y: Tensor = self.out(self.dropout(x)).transpose(1, 2)
        return y * torch.rsqrt((y * y).sum(dim=-1, keepdim=True) + 1e-4)


class AudioEncoder(nn.Module):
    """Encoder of speech. Each clip's energy level is removed."""

    def __init__(self, config: SyncConfig) -> None:
        super().__init__()
        self.tower = _Tower(NUM_SYNC * ROWS_PER_FRAME, config)

    def forward(self, content: Tensor) -> Tensor:
        """Return embeddings of sync rows: [N, T, 4, 25] -> [N, T, E]."""
        split = len(ARTICULATIONS)
        energy = content[..., split:]
        energy = energy - energy.mean(dim=(1, 2), keepdim=True)
        energy = 0.5 * energy * torch.rsqrt((energy * energy).mean(dim=(1, 2), keepdim=True) + 1.0)
        x = torch.cat([content[..., :split] * 2.0, energy], dim=-1)
        embedded: Tensor = self.tower(x.flatten(2).transpose(1, 2))
        return embedded


class MouthEncoder(nn.Module):
    """Encoder of mouth motion: coefficients and their change per frame."""

    def __init__(self, config: SyncConfig) -> None:
        super().__init__()
        self.tower = _Tower(2 * config.num_coefficients, config)

    def forward(self, coefficients: Tensor) -> Tensor:
        """Return embeddings of coefficients about the clip's mean in units of the clip's spread: [N, T, K] -> [N, T, E]."""
        x = coefficients.transpose(1, 2)
        change = functional.pad(x[..., 1:] - x[..., :-1], (1, 0))
        embedded: Tensor = self.tower(torch.cat([x, change], dim=1))
        return embedded


class SyncNetwork(nn.Module):
    """Both encoders and the temperature of the contrastive loss."""

    def __init__(self, config: SyncConfig) -> None:
        super().__init__()
        self.config = config
        self.audio = AudioEncoder(config)
        self.mouth = MouthEncoder(config)
        self.log_scale = nn.Parameter(torch.tensor(2.0))


def lag_scores(audio: Tensor, mouth: Tensor, usable: Tensor, max_lag: int) -> Tensor:
    """Return the mean cosine similarity at each lag, [N, 2 max_lag + 1]: sound of frame n + lag against the mouth of frame n.

    The mean at a lag covers the mouths whose sound lies inside the clip.
    """
    length = mouth.shape[1]
    scores = []
    for lag in range(-max_lag, max_lag + 1):
        begin, end = max(0, -lag), min(length, length - lag)
        pairs = (audio[:, begin + lag : end + lag] * mouth[:, begin:end]).sum(-1)
        weight = usable[:, begin:end]
        scores.append((pairs * weight).sum(1) / weight.sum(1).clamp(min=1.0))
    return torch.stack(scores, dim=1)
