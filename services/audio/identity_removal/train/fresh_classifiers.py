"""New classifiers for a kind of features, which measure whether the features show the speaker or the phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from services.audio.identity_removal.train.speaker_critic import moments
from services.common.array_types import Float32

SEGMENT_ROWS: Final = 200
"""Rows of a segment for a speaker's classifier: two seconds."""
CONTEXT: Final = 9
"""Rows that the classifier of a row takes: the row and four rows on either side."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Features float32 [R, D] of consecutive rows, and the class of each row int64 [R], -1 where unknown."""

    features: Float32
    classes: npt.NDArray[np.int64]


class ByRow(nn.Module):
    """Classifier of each row from nine rows: linear, or with a hidden layer."""

    def __init__(self, width: int, num_classes: int, hidden: int) -> None:
        super().__init__()
        self.layers: nn.Module = nn.Conv1d(width, hidden or num_classes, CONTEXT, padding=CONTEXT // 2)
        if hidden:
            self.layers = nn.Sequential(self.layers, nn.ReLU(), nn.Dropout(0.2), nn.Conv1d(hidden, num_classes, 1))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the scores [N, W, C] of rows [N, W, D]."""
        scores: Tensor = self.layers(rows.transpose(1, 2))
        return scores.transpose(1, 2)


class BySegment(nn.Module):
    """Classifier of a whole segment from mean and standard deviation of the features, or of learned features."""

    def __init__(self, width: int, num_classes: int, hidden: int, channels: int) -> None:
        super().__init__()
        self.learned: nn.Module | None = None
        if channels:
            self.learned = nn.Sequential(
                nn.Conv1d(width, channels, 5, padding=2), nn.ReLU(), nn.Conv1d(channels, channels, 5, padding=2), nn.ReLU()
            )
        size = 2 * (channels or width)
        self.norm = nn.BatchNorm1d(size)
        self.out: nn.Module = nn.Linear(size, num_classes)
        if hidden:
            self.out = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Dropout(0.3), nn.Linear(hidden, num_classes))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the scores [N, 1, C] of segments [N, W, D]."""
        learned = rows if self.learned is None else self.learned(rows.transpose(1, 2)).transpose(1, 2)
        scores: Tensor = self.out(self.norm(moments(learned, 1)))
        return scores[:, None]


def classifier(name: str, width: int, num_classes: int) -> nn.Module:
    """Return the named classifier: `row linear`, `row mlp`, `segment linear`, `segment mlp` or `segment network`."""
    if name.startswith("row"):
        return ByRow(width, num_classes, 128 if name == "row mlp" else 0)
    return BySegment(width, num_classes, 96 if name == "segment mlp" else 0, 64 if name == "segment network" else 0)


@dataclass(frozen=True, slots=True)
class Fitted:
    """Trained classifier with the scale of the features."""

    module: nn.Module
    mean: Float32
    deviation: Float32

    @torch.no_grad()
    def scores(self, features: Float32) -> Float32:
        """Return log-probabilities, [R, D] -> [R, C] or [1, C]."""
        scaled = ((features - self.mean) / self.deviation)[None].astype(np.float32)
        return np.asarray(torch.log_softmax(self.module(torch.from_numpy(scaled)), -1)[0].numpy(), np.float32)


def fit(name: str, examples: Sequence[Labelled], num_classes: int, *, steps: int, rows: int, seed: int = 0) -> Fitted:
    """Train a new classifier on random stretches of `rows` rows.

    If every example has one class, all classes are drawn with the same probability.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    usable = [example for example in examples if len(example.features) >= rows]
    joined = np.concatenate([example.features for example in usable])
    fitted = Fitted(classifier(name, joined.shape[1], num_classes), joined.mean(axis=0), joined.std(axis=0) + np.float32(1e-3))
    owner = np.array([int(example.classes.max()) for example in usable])
    single = all(example.classes.min() == example.classes.max() for example in usable)
    weight = np.array([len(example.features) for example in usable], np.float64)
    if single:
        weight /= np.bincount(owner, weight, minlength=num_classes)[owner]
    weight /= weight.sum()
    optimiser = torch.optim.AdamW(fitted.module.parameters(), lr=3e-3, weight_decay=1e-2)
    fitted.module.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1.0 - step / steps)
        chosen = rng.choice(len(usable), size=64, p=weight)
        starts = [int(rng.integers(len(usable[index].features) - rows + 1)) for index in chosen]
        pairs = list(zip(chosen, starts, strict=True))
        x = np.stack([usable[index].features[start : start + rows] for index, start in pairs])
        y = np.stack([usable[index].classes[start : start + rows] for index, start in pairs])
        scores = fitted.module(torch.from_numpy(((x - fitted.mean) / fitted.deviation).astype(np.float32)))
        if scores.shape[1] == 1:
            y = y[:, :1]
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), torch.from_numpy(y).flatten(), ignore_index=-1)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    fitted.module.eval()
    return fitted


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeakerAccuracy:
    """Shares of right decisions, 0..1.

    Every speaker has the same weight. `part` adds up the evidence of the whole held-out part.
    """

    segments: int
    segment: float
    part: float


def speaker_accuracy(fitted: Fitted, examples: Sequence[Labelled]) -> SpeakerAccuracy:
    """Return the accuracy on segments of two seconds (the last segment of a part may be longer) and on whole parts."""
    right: dict[int, list[bool]] = {}
    whole: dict[int, Float32] = {}
    for example in examples:
        truth = int(example.classes[0])
        for start in range(0, max(len(example.features) - SEGMENT_ROWS + 1, 1), SEGMENT_ROWS):
            segment = example.features[start : start + SEGMENT_ROWS]
            score = fitted.scores(segment).sum(axis=0)
            right.setdefault(truth, []).append(int(score.argmax()) == truth)
            whole[truth] = whole.get(truth, np.zeros_like(score)) + score
    return SpeakerAccuracy(
        segments=sum(map(len, right.values())),
        segment=float(np.mean([np.mean(hits) for hits in right.values()])),
        part=float(np.mean([int(score.argmax()) == speaker for speaker, score in whole.items()])),
    )


def row_accuracy(fitted: Fitted, examples: Sequence[Labelled]) -> float:
    """Return the share of rows of known class that are classified right."""
    right = known = 0
    for example in examples:
        seen = example.classes >= 0
        right += int((fitted.scores(example.features).argmax(axis=1) == example.classes)[seen].sum())
        known += int(seen.sum())
    return right / max(known, 1)
