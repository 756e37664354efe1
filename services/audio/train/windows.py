"""Windows of the posteriorgram network with their labels, and the targets and weights of the loss."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from services.audio.features import cepstra, silent_rows, spectral_rows
from services.audio.phones import NUM_PHONES
from services.audio.train.recordings import IGNORED, LabelledSignal
from services.audio.types import NUM_CEPSTRA, ROWS_PER_VIDEO_FRAME
from services.audio.windows import LOOK_AHEAD_ROWS, MEAN_CONTEXT_ROWS, PAST_ROWS, WINDOW_ROWS, normalise
from services.common.array_types import Float32

ANSWERED: Final = slice(PAST_ROWS, PAST_ROWS + ROWS_PER_VIDEO_FRAME)
"""Rows of a window that the network answers in serving."""


class Windows(NamedTuple):
    """Training or evaluation examples.

    Attributes:
        cepstra: float32 [N, 58, 20], normalised.
        labels: uint8 [N, 58], phone classes, IGNORED where unknown or beyond the recording.
    """

    cepstra: Float32
    labels: npt.NDArray[np.uint8]


def windows_of(signal: LabelledSignal, starts: npt.NDArray[np.int64]) -> Windows:
    """Return the windows whose answered rows begin at the rows `starts`, int64 [N], each below the signal's number of rows."""
    rows = cepstra(spectral_rows(signal.samples))
    count = len(rows)
    padded = np.concatenate([silent_rows(MEAN_CONTEXT_ROWS), rows, silent_rows(ROWS_PER_VIDEO_FRAME + LOOK_AHEAD_ROWS)])
    labels = np.full(len(padded), IGNORED, np.uint8)
    labels[MEAN_CONTEXT_ROWS : MEAN_CONTEXT_ROWS + count] = signal.labels[:count]
    if not len(starts):
        return Windows(np.zeros((0, WINDOW_ROWS, NUM_CEPSTRA), np.float32), np.zeros((0, WINDOW_ROWS), np.uint8))
    ends = starts + ROWS_PER_VIDEO_FRAME + LOOK_AHEAD_ROWS + MEAN_CONTEXT_ROWS
    return Windows(
        np.stack([normalise(padded[end - MEAN_CONTEXT_ROWS : end]) for end in ends]),
        np.stack([labels[end - WINDOW_ROWS : end] for end in ends]),
    )


def served_windows(signal: LabelledSignal) -> Windows:
    """Return the windows that answer every row of the signal once, as in serving."""
    return windows_of(signal, np.arange(0, len(signal.labels), ROWS_PER_VIDEO_FRAME))


def soft_targets(labels: Tensor, neighbour: float, smoothing: float) -> Tensor:
    """Return targets float32 [N, W, 40] from labels int64 [N, W]: a share `neighbour` for the label of either neighbouring row.

    An aligner's boundaries are right to about one row, so hard targets would be too precise. Rows with the label IGNORED get zeros.
    """
    known = (labels != IGNORED)[..., None].float()
    own = nn.functional.one_hot(labels.where(labels != IGNORED, 0), NUM_PHONES) * known
    before = torch.cat([own[:, :1], own[:, :-1]], dim=1)
    after = torch.cat([own[:, 1:], own[:, -1:]], dim=1)
    mixed = own * (1.0 - 2.0 * neighbour) + neighbour * (before + after)
    mixed = mixed / mixed.sum(dim=2, keepdim=True).clamp(min=1e-9)
    return known * ((1.0 - smoothing) * mixed + smoothing / NUM_PHONES)


def row_weights(past_weight: float) -> Float32:
    """Return the loss weights of a window's rows, [58]: 1 on the answered rows, `past_weight` on the 24 rows before.

    The earlier rows have more look-ahead than in serving, so they only help the recurrence to learn.
    """
    weights = np.zeros(WINDOW_ROWS, np.float32)
    weights[PAST_ROWS - 24 : PAST_ROWS] = past_weight
    weights[ANSWERED] = 1.0
    return weights


def feature_scale(windows: Windows) -> Tensor:
    """Return 1 / standard deviation of the 20 cepstra and of their deltas, float32 [40]."""
    rows = windows.cepstra.astype(np.float64)
    delta = 0.2 * (rows[:, 4:] - rows[:, :-4]) + 0.1 * (rows[:, 3:-1] - rows[:, 1:-3])
    deviation = np.concatenate([rows.reshape(-1, NUM_CEPSTRA).std(axis=0), delta.reshape(-1, NUM_CEPSTRA).std(axis=0)])
    return torch.from_numpy((1.0 / np.maximum(deviation, 1e-3)).astype(np.float32))
