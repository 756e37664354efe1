"""Random choice of clips with balanced speakers, and batches on their way to a device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from services.common.array_types import Float32, Float64
from services.training.trainset.manifest import ClipRow


def clip_weights(rows: Sequence[ClipRow], exponent: float) -> Float64:
    """Return the weight of each clip, float64 [N]: w_i W_s^(exponent - 1), where W_s is the sum of the weights of speaker s.

    So a speaker counts W_s to the power of `exponent`: 1 lets clips count equally, 0 lets speakers count equally.

    Args:
        rows: the clips' rows. A row's weight is w_i.
        exponent: the exponent.
    """
    sums: dict[str, float] = {}
    for row in rows:
        sums[row.speaker] = sums.get(row.speaker, 0.0) + row.weight
    return np.array([row.weight * sums[row.speaker] ** (exponent - 1.0) for row in rows], np.float64)


class Draw:
    """Random choice of a number from 0 to N - 1 in proportion to weights, float64 [N]."""

    def __init__(self, weights: Float64) -> None:
        self._sums = np.cumsum(weights / weights.sum())

    def __call__(self, rng: np.random.Generator) -> int:
        """Draw a number."""
        return min(int(np.searchsorted(self._sums, rng.random(), side="right")), len(self._sums) - 1)


def batch_rng(seed: int, step: int, index: int) -> np.random.Generator:
    """Return the random numbers of one batch. They depend on nothing but these three numbers."""
    return np.random.default_rng((seed, step, index))


def tensors(arrays: Iterable[Float32 | Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield arrays as tensors on a device."""
    for array in arrays:
        yield torch.as_tensor(array).to(device)
