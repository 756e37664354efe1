"""L_trans of the joint training (Everybody's Talkin', Eq. 3): expression of a face from a second of ID-removed cepstra.

The targets come from a file, because the face belongs to another stage. The safetensors file has, for clip i, `audio.i` float32 [N]
(16 kHz, sample 0 at frame 0), `expression.i` float32 [T, E] (25 frames/s, in units of the person's spread) and `usable.i` bool [T];
and `shape` float32 [P, E], by how many pixels the P mouth coordinates move with a coefficient of one spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from services.audio.features import cepstra, spectral_rows
from services.audio.identity_removal.network import DELAY_STEPS, ROWS_PER_STEP
from services.audio.identity_removal.normalise import RunningNormaliser
from services.audio.types import NUM_CEPSTRA, ROWS_PER_VIDEO_FRAME
from services.common.array_types import Float32
from services.common.store.tensor_bytes import decode_arrays

PAST_FRAMES: Final = 20
"""Frames before the frame itself that a second of sound covers: 0.8 s."""
WINDOW_FRAMES: Final = 25
"""Number of frames in a second of sound: PAST_FRAMES, the frame itself, and four later frames."""
_WARM_ROWS: Final = 28
_SEGMENT_ROWS: Final = _WARM_ROWS + WINDOW_FRAMES * ROWS_PER_VIDEO_FRAME + DELAY_STEPS * ROWS_PER_STEP


@dataclass(frozen=True, slots=True)
class ExpressionTargets:
    """Clips of talking faces.

    Each clip has rows float32 [4 T, 20], expression float32 [T, E], usable bool [T]. shape: float32 [P, E].
    """

    rows: tuple[Float32, ...]
    expression: tuple[Float32, ...]
    usable: tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], ...]
    shape: Float32


def load_targets(path: Path) -> ExpressionTargets:
    """Return the targets in a file. The sound is converted to normalised cepstra."""
    named = decode_arrays(path.read_bytes())
    count = sum(name.startswith("audio.") for name in named.arrays)
    rows: list[Float32] = []
    expressions: list[Float32] = []
    usables: list[np.ndarray[tuple[int], np.dtype[np.bool_]]] = []
    for index in range(count):
        expression = np.array(named[f"expression.{index}"], np.float32)
        heard = RunningNormaliser().push(cepstra(spectral_rows(np.array(named[f"audio.{index}"], np.float32))))
        frames = min(len(expression), len(heard) // ROWS_PER_VIDEO_FRAME)
        if frames * ROWS_PER_VIDEO_FRAME <= _SEGMENT_ROWS:
            continue
        rows.append(heard[: frames * ROWS_PER_VIDEO_FRAME])
        expressions.append(expression[:frames])
        usables.append(np.array(named[f"usable.{index}"][:frames], np.bool_))
    return ExpressionTargets(tuple(rows), tuple(expressions), tuple(usables), np.array(named["shape"], np.float32))


class ExpressionBatch(NamedTuple):
    """N seconds of speech: rows float32 [N, W, 20] and, for each second, the frame's expression float32 [N, E]."""

    rows: Tensor
    expression: Tensor


class ExpressionSampler:
    """Sampler of seconds of speech with the expression."""

    def __init__(self, targets: ExpressionTargets) -> None:
        self._targets = targets

    def draw(self, rng: np.random.Generator, count: int) -> ExpressionBatch:
        """Return `count` segments. All clips have the same probability."""
        rows: list[Float32] = []
        expressions: list[Float32] = []
        while len(rows) < count:
            index = int(rng.integers(len(self._targets.rows)))
            first = int(rng.integers(len(self._targets.rows[index]) - _SEGMENT_ROWS + 1))
            first -= (first + _WARM_ROWS) % ROWS_PER_VIDEO_FRAME
            frame = (first + _WARM_ROWS) // ROWS_PER_VIDEO_FRAME + PAST_FRAMES
            if first < 0 or not self._targets.usable[index][frame]:
                continue
            rows.append(self._targets.rows[index][first : first + _SEGMENT_ROWS])
            expressions.append(self._targets.expression[index][frame])
        return ExpressionBatch(torch.from_numpy(np.stack(rows)), torch.from_numpy(np.stack(expressions)))


class ExpressionHead(nn.Module):
    """Small predictor of expression from a second of cepstra. Only the gradient is used; serving has another network."""

    def __init__(self, targets: ExpressionTargets, channels: int = 32) -> None:
        super().__init__()
        size = targets.shape.shape[1]
        self.frames = nn.Conv1d(NUM_CEPSTRA, channels, 8, stride=4, padding=2)
        self.out = nn.Linear(channels * WINDOW_FRAMES, size)
        largest = max(float(np.linalg.norm(targets.shape, axis=0).max()), 1e-6)
        self.register_buffer("shape", torch.from_numpy(targets.shape / largest))

    def loss(self, removed: Tensor, batch: ExpressionBatch) -> Tensor:
        """Return L_exp + L_shape (Eq. 3), both as mean squares. `removed` is [N, W - 4, 20]."""
        window = removed[:, _WARM_ROWS:].transpose(1, 2)
        predicted = self.out(torch.relu(self.frames(window)).flatten(1))
        error = predicted - batch.expression
        moved = error @ self.get_buffer("shape").T
        total: Tensor = (error**2).mean() + (moved**2).sum(dim=-1).mean()
        return total
