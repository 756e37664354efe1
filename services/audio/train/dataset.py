"""Windows and targets made from the labelled set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from services.audio.features import cepstra, silent_rows, spectral_rows
from services.audio.phones import NUM_PHONES
from services.audio.train.augment import AugmentConfig, LabelledSignal, augment, no_speech
from services.audio.train.sphinx import IGNORED
from services.audio.types import ROWS_PER_VIDEO_FRAME
from services.audio.windows import LOOK_AHEAD_ROWS, MEAN_CONTEXT_ROWS, PAST_ROWS, WINDOW_ROWS, normalise
from services.common.array_types import Float32

_NO_SPEECH_ROWS: Final = 300


@dataclass(frozen=True, slots=True)
class Recording:
    """Utterance of the labelled set."""

    name: str
    source: str
    speaker: str
    signal: LabelledSignal
    allphone: npt.NDArray[np.uint8]
    """Phone classes [rows] by free phone recognition."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Training or evaluation examples."""

    cepstra: Float32
    """Normalised cepstra [N, 58, 20]."""
    labels: npt.NDArray[np.uint8]
    """Phone classes [N, 58], IGNORED where unknown or beyond the recording."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """Numbers of windows from each source in an epoch."""

    stride_rows: int = 8
    copies: Mapping[str, float] = field(
        default_factory=lambda: {"vctk": 3.0, "ljspeech": 2.0, "jfk": 2.0, "grid": 0.35, "flite": 0.6}
    )
    """Mean number of draws of a recording in an epoch, by source (default 1). Every draw is augmented anew.

    GRID has 51 words and mostly one speaker, and the flite voices are synthetic. The few transcribed free sentences count more.
    """
    no_speech_share: float = 0.04
    """Number of rows of noise and music-like sound, as a share of the rows of speech."""


def load_recordings(path: Path, split: str) -> list[Recording]:
    """Return the recordings of one split (`train` or `val`) of the labelled set."""
    with np.load(path) as archive:
        data = {key: archive[key] for key in archive.files}
    sample_ends = np.cumsum(data["sample_counts"])
    row_ends = np.cumsum(data["row_counts"])
    recordings = []
    for index in np.flatnonzero(data["splits"] == split):
        samples = data["samples"][sample_ends[index] - data["sample_counts"][index] : sample_ends[index]]
        rows = slice(row_ends[index] - data["row_counts"][index], row_ends[index])
        recordings.append(
            Recording(
                name=str(data["names"][index]),
                source=str(data["sources"][index]),
                speaker=str(data["speakers"][index]),
                signal=LabelledSignal(samples.astype(np.float32) / 32767.0, data["labels"][rows]),
                allphone=data["allphone"][rows],
            )
        )
    return recordings


def windows_of(signal: LabelledSignal, first_row: int, stride_rows: int) -> Windows:
    """Return windows whose answered rows start at first_row, first_row + stride, ... up to the end of the signal."""
    rows = cepstra(spectral_rows(signal.samples))
    count = len(rows)
    padded = np.concatenate([silent_rows(MEAN_CONTEXT_ROWS), rows, silent_rows(ROWS_PER_VIDEO_FRAME + LOOK_AHEAD_ROWS)])
    labels = np.full(len(padded), IGNORED, np.uint8)
    labels[MEAN_CONTEXT_ROWS : MEAN_CONTEXT_ROWS + count] = signal.labels[:count]
    starts = np.arange(first_row, count, stride_rows)
    ends = starts + ROWS_PER_VIDEO_FRAME + LOOK_AHEAD_ROWS + MEAN_CONTEXT_ROWS
    if not len(ends):
        return Windows(np.zeros((0, WINDOW_ROWS, rows.shape[1]), np.float32), np.zeros((0, WINDOW_ROWS), np.uint8))
    return Windows(
        np.stack([normalise(padded[end - MEAN_CONTEXT_ROWS : end]) for end in ends]),
        np.stack([labels[end - WINDOW_ROWS : end] for end in ends]),
    )


def epoch_windows(recordings: list[Recording], sampling: SamplingConfig, augmentation: AugmentConfig, seed: int) -> Windows:
    """Return one epoch's shuffled windows, with every recording augmented anew. Equal seeds give equal windows."""
    random = np.random.default_rng(seed)
    parts = []
    total_rows = 0
    for recording in recordings:
        for _ in range(int(sampling.copies.get(recording.source, 1.0) + random.random())):
            signal = augment(recording.signal, augmentation, random)
            total_rows += len(signal.labels)
            parts.append(windows_of(signal, int(random.integers(sampling.stride_rows)), sampling.stride_rows))
    for _ in range(int(total_rows * sampling.no_speech_share) // _NO_SPEECH_ROWS):
        parts.append(windows_of(no_speech(random, _NO_SPEECH_ROWS), 0, sampling.stride_rows))
    order = random.permutation(sum(len(part.cepstra) for part in parts))
    return Windows(np.concatenate([part.cepstra for part in parts])[order], np.concatenate([part.labels for part in parts])[order])


def soft_targets(labels: npt.NDArray[np.uint8], neighbour: float, smoothing: float) -> Float32:
    """Return targets [N, W, 40] from labels [N, W]: a share `neighbour` for the label of either neighbouring row.

    An aligner's boundaries are right to about one row, so hard targets would be too precise. Rows with the label IGNORED get zeros.
    """
    table = np.concatenate([np.eye(NUM_PHONES, dtype=np.float32), np.zeros((1, NUM_PHONES), np.float32)])
    own = table[np.where(labels == IGNORED, NUM_PHONES, labels)]
    known = (labels != IGNORED)[..., None].astype(np.float32)
    before = np.concatenate([own[:, :1], own[:, :-1]], axis=1)
    after = np.concatenate([own[:, 1:], own[:, -1:]], axis=1)
    mixed = own * (1.0 - 2.0 * neighbour) + neighbour * (before + after)
    mixed /= np.maximum(mixed.sum(axis=2, keepdims=True), 1e-9)
    return np.asarray(known * ((1.0 - smoothing) * mixed + smoothing / NUM_PHONES), dtype=np.float32)


def row_weights(past_weight: float) -> Float32:
    """Return the loss weights of a window's rows, [58]: 1 on the answered rows, `past_weight` on the 24 rows before.

    The earlier rows have more look-ahead than in serving, so they only help the recurrence to learn.
    """
    weights = np.zeros(WINDOW_ROWS, np.float32)
    weights[PAST_ROWS - 24 : PAST_ROWS] = past_weight
    weights[PAST_ROWS : PAST_ROWS + ROWS_PER_VIDEO_FRAME] = 1.0
    return weights
