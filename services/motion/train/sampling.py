"""Random choice of clips with balanced speakers, rows at another tempo, and batches on their way to a device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from services.common.array_types import Float32, Float64, Floating
from services.training.trainset.manifest import ClipRow


def frame_weights(rows: Sequence[ClipRow], exponent: float) -> Float64:
    """Return the weight of each frame of each clip, float64 [N]: w_i F_s^(exponent - 1), where F_s counts the frames of speaker s.

    So a speaker counts F_s to the power of `exponent`: 1 lets frames count equally, 0 lets speakers count equally. The weight w_i
    is not balanced away: a corpus of half the weight counts half.

    Args:
        rows: the clips' rows. A row's weight is w_i.
        exponent: the exponent.
    """
    frames: dict[str, int] = {}
    for row in rows:
        frames[row.speaker] = frames.get(row.speaker, 0) + row.usable_frames
    return np.array([row.weight * frames[row.speaker] ** (exponent - 1.0) for row in rows], np.float64)


def clip_chances(rows: Sequence[ClipRow], exponent: float) -> Float64:
    """Return how often each clip is drawn, float64 [N]: the weights of its frames together, see frame_weights."""
    return frame_weights(rows, exponent) * np.array([row.usable_frames for row in rows], np.float64)


class Draw:
    """Random choice of a number from 0 to N - 1 in proportion to weights, float64 [N]."""

    def __init__(self, weights: Float64) -> None:
        self._sums = np.cumsum(weights / weights.sum())

    def __call__(self, rng: np.random.Generator) -> int:
        """Draw a number."""
        return min(int(np.searchsorted(self._sums, rng.random(), side="right")), len(self._sums) - 1)


def rows_between(values: Floating, places: Floating) -> Float32:
    """Return rows at places between the rows of values, by linear interpolation: float32 [N, ...].

    Args:
        values: float [T, ...], T >= 2.
        places: float [N], counted in rows, not negative. Beyond the last row the last row holds.
    """
    low = np.minimum(places.astype(np.intp), len(values) - 2)
    share = np.clip(places - low, 0.0, 1.0).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray((1.0 - share) * values[low] + share * values[low + 1], np.float32)


def batch_rng(seed: int, step: int, index: int) -> np.random.Generator:
    """Return the random numbers of one batch. They depend on nothing but these three numbers."""
    return np.random.default_rng((seed, step, index))


def tensors(arrays: Iterable[Float32 | Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield arrays as tensors on a device."""
    for array in arrays:
        yield torch.as_tensor(array).to(device)
