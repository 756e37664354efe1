"""Measure how often the search sees a watermark in footage that has none, against the probability that it states.

Footage is tracked once. Then the key of this installation and many wrong keys are looked for. A stated probability is honest if, of
all readings, at most the share p states a probability of p or less.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from gateway.dub.watermark_reading import likeliest, responses_of_faces
from gateway.media.inspection import inspect_video
from gateway.provenance.watermark.detection import FALSE_ALARM_LOG10, STEP_S, Detector, ResponseSpan
from gateway.provenance.watermark.payload import watermark_key
from gateway.stages.interface import Stages
from services.common.array_types import Float64

ENDINGS: Final = frozenset({".mp4", ".mov", ".mkv", ".mpg", ".mxf", ".webm", ".avi"})
THRESHOLDS: Final = tuple(0.0 - 0.25 * step for step in range(25))


@dataclass(frozen=True, slots=True)
class Readings:
    """Stated probabilities of all footage.

    Attributes:
        films: number of films in which a face is seen for a second or longer.
        seconds: length of what was looked at, of all faces together.
        own: float64 [films], decimal logarithms, with the key of this installation.
        wrong: float64 [keys, films], with wrong keys.
    """

    films: int
    seconds: float
    own: Float64
    wrong: Float64

    @property
    def false_alarms(self) -> int:
        """Number of readings that would be called a watermark."""
        return int((self.own < FALSE_ALARM_LOG10).sum() + (self.wrong < FALSE_ALARM_LOG10).sum())


def films_below(paths: Sequence[Path]) -> list[Path]:
    """Return films: files as they are, and all files with the ending of a film below folders."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [file for file in inside if not path.is_dir() or file.suffix.lower() in ENDINGS]
    return found


async def faces_of_film(stages: Stages, film: Path, threads: int) -> list[list[ResponseSpan]]:
    """Return the responses of every face of a film.

    Raises:
        DubstageError: the film cannot be read.
    """
    return await responses_of_faces(stages, inspect_video(film), threads=threads, on_frame=lambda _: None)


def readings_of(films: Sequence[Sequence[Sequence[ResponseSpan]]], own: bytes, keys: int) -> Readings:
    """Look for the key of this installation and for wrong keys in the faces of films.

    Args:
        films: responses of every face of every film.
        own: key of this installation, 32 bytes.
        keys: number of wrong keys.
    """
    seen = [faces for faces in films if any(faces)]
    wrong = [watermark_key(f"wrong key {number}".encode()) for number in range(keys)]
    steps = sum(len(part.responses) for faces in seen for parts in faces for part in parts)
    return Readings(len(seen), steps * STEP_S, _chances(seen, own), np.array([_chances(seen, key) for key in wrong]))


def _chances(films: Sequence[Sequence[Sequence[ResponseSpan]]], key: bytes) -> Float64:
    detector = Detector(key)
    return np.array([found.log10_chance for faces in films if (found := likeliest(faces, detector)) is not None])


def write_readings(file: Path, readings: Readings) -> None:
    """Write how many readings state a probability of 10^threshold or less."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["log10_probability", "own_key", "own_key_of", "wrong_keys", "wrong_keys_of"])
        for threshold in THRESHOLDS:
            counts = [int((values <= threshold).sum()) for values in (readings.own, readings.wrong)]
            writer.writerow([threshold, counts[0], readings.own.size, counts[1], readings.wrong.size])
