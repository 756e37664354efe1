"""L_trans of the joint training (Everybody's Talkin', Eq. 3): expression of a face from a second of ID-removed cepstra.

The targets are a file, since the face belongs to another stage: safetensors with, for clip i, `audio.i` float32 [N] (16 kHz, sample
0 at frame 0), `expression.i` float32 [T, E] (25 frames/s, in units of the person's spread) and `usable.i` bool [T]; and
`shape` float32 [P, E], by how many pixels the P mouth coordinates move with a coefficient of one spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from services.audio.features import cepstra, spectral_rows
from services.audio.identity import RunningNormaliser
from services.audio.networks.id_removal import DELAY_STEPS, ROWS_PER_STEP
from services.audio.types import NUM_CEPSTRA, ROWS_PER_VIDEO_FRAME, FloatArray
from services.common.tensor_bytes import decode_arrays

PAST_FRAMES: Final = 20
"""0.8 s before the frame."""
WINDOW_FRAMES: Final = 25
"""With the frame itself and four after it: to 0.2 s after the frame's time."""
_WARM_ROWS: Final = 28
_SEGMENT_ROWS: Final = _WARM_ROWS + WINDOW_FRAMES * ROWS_PER_VIDEO_FRAME + DELAY_STEPS * ROWS_PER_STEP


@dataclass(frozen=True, slots=True)
class ExpressionTargets:
    """Clips of talking faces: rows float32 [4 T, 20], expression float32 [T, E], usable bool [T] each; shape float32 [P, E]."""

    rows: tuple[FloatArray, ...]
    expression: tuple[FloatArray, ...]
    usable: tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], ...]
    shape: FloatArray


def load_targets(path: Path) -> ExpressionTargets:
    """Targets of a file; the sound becomes normalised cepstra."""
    named = decode_arrays(path.read_bytes())
    count = sum(name.startswith("audio.") for name in named.arrays)
    rows: list[FloatArray] = []
    expressions: list[FloatArray] = []
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
    """Rows float32 [N, W, 20] and the expression float32 [N, E] of the frame that their last second is about."""

    rows: Tensor
    expression: Tensor


class ExpressionSampler:
    """Draws seconds of speech with the expression that belongs to them."""

    def __init__(self, targets: ExpressionTargets) -> None:
        self._targets = targets

    def draw(self, rng: np.random.Generator, count: int) -> ExpressionBatch:
        """`count` segments of clips drawn alike."""
        rows: list[FloatArray] = []
        expressions: list[FloatArray] = []
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
    """A small predictor of expression from a second of cepstra; only its gradient is kept, serving has its own."""

    def __init__(self, targets: ExpressionTargets, channels: int = 32) -> None:
        super().__init__()
        size = targets.shape.shape[1]
        self.frames = nn.Conv1d(NUM_CEPSTRA, channels, 8, stride=4, padding=2)
        self.out = nn.Linear(channels * WINDOW_FRAMES, size)
        largest = max(float(np.linalg.norm(targets.shape, axis=0).max()), 1e-6)
        self.register_buffer("shape", torch.from_numpy(targets.shape / largest))

    def loss(self, removed: Tensor, batch: ExpressionBatch) -> Tensor:
        """L_exp + L_shape (Eq. 3), both as mean squares; removed is [N, W - 4, 20]."""
        window = removed[:, _WARM_ROWS:].transpose(1, 2)
        predicted = self.out(torch.relu(self.frames(window)).flatten(1))
        error = predicted - batch.expression
        moved = error @ self.get_buffer("shape").T
        total: Tensor = (error**2).mean() + (moved**2).sum(dim=-1).mean()
        return total
