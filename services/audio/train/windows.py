"""Windows of the posteriorgram network with their labels, and the targets and weights of the loss."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.fft
import torch
from torch import Tensor, nn

from services.audio.features import HIGHEST_HZ, LOWEST_HZ, silent_rows, spectral_rows
from services.audio.train.recordings import IGNORED, LabelledSignal
from services.audio.types import NUM_CEPSTRA, NUM_MELS, ROWS_PER_VIDEO_FRAME
from services.audio.windows import LOOK_AHEAD_ROWS, MEAN_CONTEXT_ROWS, PAST_ROWS, WINDOW_ROWS, normalise
from services.common.array_types import Float32, Float64
from services.common.wire.phones import NUM_PHONES

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


def windows_of(signal: LabelledSignal, starts: npt.NDArray[np.int64], *, vocal_tract: float = 1.0) -> Windows:
    """Return some windows of a signal.

    Args:
        signal: the signal.
        starts: first answered row of each window, int64 [N], each below the signal's number of rows.
        vocal_tract: factor by which the frequencies of the spectrum are divided.
    """
    rows = _cepstra(spectral_rows(signal.samples), vocal_tract)
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


def _cepstra(mel: Float32, vocal_tract: float) -> Float32:
    """Return cepstra of log-mel rows, [rows, 80] -> [rows, 20] float32: services.audio.features.cepstra, up to rounding."""
    spectra = mel.astype(np.float64)
    if vocal_tract != 1.0:
        spectra = spectra @ _warp(vocal_tract)
    return np.asarray(scipy.fft.dct(spectra, type=2, norm="ortho", axis=1)[:, :NUM_CEPSTRA], dtype=np.float32)


def _warp(vocal_tract: float) -> Float64:
    """Return the matrix [80, 80] that reads log-mel bands at `vocal_tract` times their frequency, linearly between bands."""
    edges = _mel(np.array([LOWEST_HZ, HIGHEST_HZ]))
    spacing = (edges[1] - edges[0]) / (NUM_MELS + 1)
    centres_hz = 700.0 * np.expm1((edges[0] + spacing * np.arange(1, NUM_MELS + 1)) / 1127.0)
    places = np.clip((_mel(centres_hz * vocal_tract) - edges[0]) / spacing - 1.0, 0.0, NUM_MELS - 1.0)
    return np.asarray(np.maximum(0.0, 1.0 - np.abs(places[None, :] - np.arange(NUM_MELS)[:, None])))


def _mel(hz: Float64) -> Float64:
    return 1127.0 * np.log1p(hz / 700.0)


def with_hidden_spans(windows: Float32, chance: float, rng: np.random.Generator) -> Float32:
    """Return windows [N, 58, 20] in which one span of 4 to 12 rows shows the window's mean row, each window with a probability.

    See Park et al., "SpecAugment" (Interspeech 2019), time masking.
    """
    hidden = windows.copy()
    for number in np.flatnonzero(rng.random(len(windows)) < chance):
        length = int(rng.integers(4, 13))
        first = int(rng.integers(WINDOW_ROWS - length + 1))
        hidden[number, first : first + length] = windows[number].mean(axis=0)
    return hidden


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
