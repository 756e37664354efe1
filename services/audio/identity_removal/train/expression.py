"""L_trans of the joint training (Everybody's Talkin', Eq. 3): expression of a face from a second of ID-removed cepstra.

The expression of a clip is the part `expression` of the training set, because the face belongs to another stage. A set without this
part is trained without L_trans.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from services.audio.identity_removal.network import DELAY_STEPS, ROWS_PER_STEP
from services.audio.identity_removal.train.speech import Speech
from services.audio.types import NUM_CEPSTRA, ROWS_PER_VIDEO_FRAME
from services.common.array_types import Bool, Float32
from services.common.errors import InvalidRequest
from services.training.trainset.layout import part_path
from services.training.trainset.manifest import ClipRow
from services.training.trainset.reader import BoundedCache, TrainSet

PAST_FRAMES: Final = 20
"""Frames before the frame itself that a second of sound covers: 0.8 s."""
WINDOW_FRAMES: Final = 25
"""Number of frames in a second of sound: PAST_FRAMES, the frame itself, and four later frames."""
WARM_ROWS: Final = 28
"""Number of rows at the start of a segment that count in no loss, because the LSTM has heard too little."""
_SEGMENT_ROWS: Final = WARM_ROWS + WINDOW_FRAMES * ROWS_PER_VIDEO_FRAME + DELAY_STEPS * ROWS_PER_STEP
_BEFORE_FRAMES: Final = WARM_ROWS // ROWS_PER_VIDEO_FRAME + PAST_FRAMES
"""Frames of a segment before the frame whose expression is predicted."""
_CACHE_BYTES: Final = 64 << 20
_MAX_TRIES: Final = 1000


class _Face(NamedTuple):
    """Expression float32 [T, E] and usable bool [T] of a clip."""

    expression: Float32
    usable: Bool


class ExpressionBatch(NamedTuple):
    """N seconds of speech: rows float32 [N, W, 20] and, for each second, the frame's expression float32 [N, E]."""

    rows: Float32
    expression: Float32


def expression_shape(data: TrainSet) -> Float32 | None:
    """Return the pixels by which each mouth coordinate moves with a coefficient, float32 [P, E]; None: the set has no expression.

    Raises:
        InvalidRequest: the file is damaged.
    """
    path = data.folder / "expression.safetensors"
    if not path.is_file():
        return None
    try:
        with safe_open(path, "numpy") as file:
            return np.asarray(file.get_tensor("shape"), np.float32)
    except (OSError, SafetensorError) as problem:
        raise InvalidRequest(f"{path}: {problem}; delete the file and call `dubstage trainset` again", field="data") from problem


def expressive_clips(data: TrainSet, rows: Sequence[ClipRow]) -> list[ClipRow]:
    """Return the clips with an expression that are long enough for a second of sound."""
    return [
        row
        for row in rows
        if row.has_face
        and row.frames - abs(row.lag_frames) > _SEGMENT_ROWS // ROWS_PER_VIDEO_FRAME + 1
        and part_path(data.folder, row.shard, row.name, "expression").is_file()
    ]


class ExpressionSampler:
    """Sampler of seconds of speech with the expression.

    Args:
        data: the training set.
        speech: rows of the clips.
        clips: clips with an expression, at least one.
    """

    def __init__(self, data: TrainSet, speech: Speech, clips: Sequence[ClipRow]) -> None:
        self._data, self._speech, self._clips = data, speech, tuple(clips)
        weights = np.array([max(row.weight, 1e-9) for row in clips])
        self._cumulative = np.cumsum(weights) / weights.sum()
        self._faces = BoundedCache(self._face, lambda face: face.expression.nbytes + face.usable.nbytes, _CACHE_BYTES)

    def draw(self, rng: np.random.Generator, count: int) -> ExpressionBatch:
        """Return `count` segments. Clips are drawn by their weight.

        Raises:
            InvalidRequest: hardly any frame shows the mouth well.
        """
        rows: list[Float32] = []
        expressions: list[Float32] = []
        for _ in range(_MAX_TRIES * count):
            index = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
            row = self._clips[min(index, len(self._clips) - 1)]
            face, heard = self._faces[row], self._speech.of_clip(row)
            frame = int(rng.integers(len(face.expression)))
            # The sound of frame n + lag belongs to the picture of frame n.
            first = (frame + row.lag_frames - _BEFORE_FRAMES) * ROWS_PER_VIDEO_FRAME
            if first < 0 or first + _SEGMENT_ROWS > len(heard) or not face.usable[frame]:
                continue
            rows.append(heard[first : first + _SEGMENT_ROWS])
            expressions.append(face.expression[frame])
            if len(rows) == count:
                return ExpressionBatch(np.stack(rows), np.stack(expressions))
        raise InvalidRequest(
            f"{self._data.folder}: hardly any frame of the clips with an expression shows the mouth well; give other clips",
            field="data",
        )

    def _face(self, row: ClipRow) -> _Face:
        coefficients = self._data.arrays(row, "expression", ["coefficients"])["coefficients"].astype(np.float32)
        usable = self._data.arrays(row, "track", ["usable"])["usable"].astype(np.bool_)
        frames = min(len(coefficients), len(usable))
        return _Face(coefficients[:frames], usable[:frames])


class ExpressionHead(nn.Module):
    """Small predictor of expression from a second of cepstra. Only the gradient is used; serving has another network.

    Args:
        shape: pixels by which each mouth coordinate moves with a coefficient, float32 [P, E].
        channels: width of the hidden layer.
    """

    def __init__(self, shape: Float32, channels: int = 32) -> None:
        super().__init__()
        self.frames = nn.Conv1d(NUM_CEPSTRA, channels, 8, stride=4, padding=2)
        self.out = nn.Linear(channels * WINDOW_FRAMES, shape.shape[1])
        largest = max(float(np.linalg.norm(shape, axis=0).max()), 1e-6)
        self.register_buffer("shape", torch.from_numpy(shape / np.float32(largest)))

    def loss(self, removed: Tensor, expression: Tensor) -> Tensor:
        """Return L_exp + L_shape (Eq. 3), both as mean squares. `removed` is [N, W - 4, 20], `expression` [N, E]."""
        window = removed[:, WARM_ROWS:].transpose(1, 2)
        predicted = self.out(torch.relu(self.frames(window)).flatten(1))
        error = predicted.float() - expression
        moved = error @ self.get_buffer("shape").T
        total: Tensor = (error**2).mean() + (moved**2).sum(dim=-1).mean()
        return total
