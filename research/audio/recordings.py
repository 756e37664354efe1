"""Recordings of a training set with the phone of each row, and how often each recording is drawn."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from research.training.trainset import ClipRow, TrainSet, part_path
from services.audio.spectral import MEL_FLOOR, WINDOW_LEAD_SAMPLES, mel_filters, power_spectra
from services.audio.types import HOP_SAMPLES, ROWS_PER_SECOND
from services.common.array_types import Float32, Float64
from services.common.errors import InvalidRequestError

IGNORED: Final = 255
"""Label of a row whose phone is too uncertain for training and measurement."""
GUESSED: Final = frozenset({"allphone", "network"})
"""Origins of labels that no known or recognised words support."""
_FULL_SCALE: Final = 32767.0


@dataclass(frozen=True, slots=True)
class LabelledSignal:
    """Samples at 16 kHz, and the phone class of each row, IGNORED where unknown."""

    samples: Float32
    labels: npt.NDArray[np.uint8]


class WordSpan(NamedTuple):
    """Word with given times in seconds from the first sample."""

    word: str
    start_s: float
    end_s: float


class Sound(NamedTuple):
    """Sound of a clip: samples float32 [N] at 16 kHz, and the word times that came with the clip, perhaps none."""

    samples: Float32
    words: tuple[WordSpan, ...]


def read_sound(folder: Path, row: ClipRow) -> Sound:
    """Return the sound of a clip. Times come from the file's metadata `words`, a JSON list of [word, start in s, end in s].

    Raises:
        InvalidRequestError: the file is missing or damaged. The message names the file.
    """
    path = part_path(folder, row.shard, row.name, "sound")
    try:
        with safe_open(path, "numpy") as file:
            samples, metadata = np.asarray(file.get_tensor("samples")), file.metadata() or {}
        words = tuple(
            WordSpan(str(word), float(start), float(end)) for word, start, end in json.loads(metadata.get("words") or "[]")
        )
    except (OSError, SafetensorError, ValueError, TypeError) as problem:
        raise InvalidRequestError(
            f"{path}: {problem}; make the clip again: delete the file and call `dubstage trainset`", field="data"
        ) from problem
    return Sound(scaled(samples), words)


def read_recording(data: TrainSet, row: ClipRow) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Return samples int16 [N] and labels uint8 [N // 160] of a clip, as small as they lie in the set.

    Raises:
        InvalidRequestError: a file of the clip is missing or damaged.
    """
    samples = data.arrays(row, "sound", ["samples"])["samples"].astype(np.int16, copy=False)
    labels = np.full(len(samples) // HOP_SAMPLES, IGNORED, np.uint8)
    stored = data.arrays(row, "phones", ["labels"])["labels"][: len(labels)]
    labels[: len(stored)] = stored
    return samples, labels


def scaled(samples: npt.NDArray[np.int16]) -> Float32:
    """Return samples float32 in [-1, 1] from int16, 32767 is 1."""
    return np.asarray(samples, np.float32) / np.float32(_FULL_SCALE)


def excerpt(
    samples: npt.NDArray[np.int16], labels: npt.NDArray[np.uint8], max_rows: int, rng: np.random.Generator | None = None
) -> LabelledSignal:
    """Return at most `max_rows` rows of a recording, from a random row, or from the first where there is no generator."""
    first = 0
    if rng is not None and len(labels) > max_rows:
        first = int(rng.integers(len(labels) - max_rows + 1))
    rows = slice(first, first + max_rows)
    return LabelledSignal(scaled(samples[first * HOP_SAMPLES : (first + max_rows) * HOP_SAMPLES]), labels[rows])


def chances(rows: Sequence[ClipRow], *, speaker_exponent: float, guessed_weight: float) -> Float64:
    """Return the cumulative probabilities to draw each clip, float64 [clips].

    A speaker's share follows the length of the speaker's speech to the power `speaker_exponent`: 1 draws every minute alike, 0
    every speaker. Inside a speaker, clips are drawn by length times weight.

    Args:
        rows: the clips, at least one.
        speaker_exponent: the exponent, 0..1.
        guessed_weight: further weight of clips whose labels are guessed (GUESSED).
    """
    lengths = np.array([row.seconds for row in rows])
    names, speaker = np.unique([row.speaker for row in rows], return_inverse=True)
    spoken = np.bincount(speaker, lengths, minlength=len(names))
    weights = np.array([row.weight * (guessed_weight if row.phones in GUESSED else 1.0) for row in rows])
    values = np.maximum(weights * lengths, 1e-9) * np.maximum(spoken, 1e-9)[speaker] ** (speaker_exponent - 1.0)
    return np.asarray(np.cumsum(values) / values.sum())


def drawn(cumulative: Float64, rng: np.random.Generator) -> int:
    """Return a random index by cumulative probabilities."""
    return min(int(np.searchsorted(cumulative, rng.random(), side="right")), len(cumulative) - 1)


def evenly(rows: Sequence[ClipRow], count: int) -> list[ClipRow]:
    """Return at most `count` clips, evenly spread over the speakers and over each speaker's clips."""
    ordered = sorted(rows, key=lambda row: (row.speaker, row.name))
    if len(ordered) <= count:
        return ordered
    return [ordered[int(position)] for position in (np.arange(count) + 0.5) * len(ordered) / count]


def long_enough(rows: Iterable[ClipRow], least_rows: int, *, folder: Path, purpose: str) -> list[ClipRow]:
    """Return the clips of at least `least_rows` rows of 10 ms.

    Raises:
        InvalidRequestError: there is none.
    """
    kept = [row for row in rows if row.seconds * ROWS_PER_SECOND >= least_rows]
    if not kept:
        raise InvalidRequestError(
            f"{folder}: no clip for {purpose} has {least_rows / ROWS_PER_SECOND:.1f} s of sound; add longer clips", field="data"
        )
    return kept


def grouped(values: Iterable[tuple[str, float]]) -> Mapping[str, list[float]]:
    """Return values by their group, in the order of the groups' names."""
    groups: dict[str, list[float]] = {}
    for name, value in values:
        groups.setdefault(name, []).append(value)
    return dict(sorted(groups.items()))


def spectral_rows(samples: Float32) -> Float32:
    """Return log-mel of a whole recording with silence around it, [samples // 160, 80] float32.

    For training sets. The rows equal the stream's rows up to the last bits of rounding.
    """
    rows = len(samples) // HOP_SAMPLES
    margin = np.zeros(WINDOW_LEAD_SAMPLES, np.float32)
    power = power_spectra(np.concatenate([margin, samples[: rows * HOP_SAMPLES], margin]))
    return np.log(power @ mel_filters().T + MEL_FLOOR).astype(np.float32)
