"""Speech for the Audio ID-Removing Network: normalised cepstra with the speaker and each row's phone.

The speech of every speaker in training is divided into a part that is learned from and a held-out part. If a speaker has a single
recording, the recording is cut after 60 %, with a gap of half a second. Otherwise whole recordings are held out. Copies at other
speeds count as other speakers, because pitch and formants move with the speed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import soxr

from research.audio.recordings import IGNORED, read_recording, scaled, spectral_rows
from research.training.trainset import BoundedCache, ClipRow, TrainSet, by_speaker
from services.audio.identity_removal import RunningNormaliser
from services.audio.spectral import cepstra
from services.audio.types import HOP_SAMPLES, NUM_CEPSTRA, ROWS_PER_SECOND, SAMPLE_RATE_HZ
from services.common.array_types import Float32
from services.common.wire.phones import NUM_PHONES

TRAIN_SHARE: Final = 0.6
GAP_ROWS: Final = 50
HELD_OUT_EVERY: Final = 3
"""Every third recording of a speaker is held out."""
CACHE_BYTES: Final = 512 << 20
"""Memory that each worker process keeps of speech: 18 hours."""

_LEAST_PHONE_ROWS: Final = 4
"""Rows of a phone below which a speaker does not count for this phone."""

Half = Literal["train", "held_out"]


@dataclass(frozen=True, slots=True)
class SpeechPart:
    """Consecutive rows of one clip.

    Attributes:
        row: the clip.
        half: `train`, or `held_out`: speech that is not learned from.
        begin, end: first row and row behind the last as shares of the clip. Where `begin` is above 0, GAP_ROWS rows are skipped.
        speed: speed of the copy.
    """

    row: ClipRow
    half: Half
    begin: float = 0.0
    end: float = 1.0
    speed: float = 1.0

    @property
    def speaker(self) -> str:
        """Name of the speaker. The name of a copy at another speed contains the speed."""
        return self.row.speaker if self.speed == 1.0 else f"{self.row.speaker}@{self.speed}"

    @property
    def num_rows(self) -> int:
        """Number of rows, from the length that the manifest states."""
        return len(range(*self.rows(int(self.row.seconds / self.speed * ROWS_PER_SECOND)).indices(10**9)))

    def rows(self, clip_rows: int) -> slice:
        """Return the rows of this part in a clip of `clip_rows` rows."""
        first = int(self.begin * clip_rows) + (GAP_ROWS if self.begin > 0.0 else 0)
        return slice(first, max(first, int(self.end * clip_rows)))


class SpeechRows(NamedTuple):
    """Rows of a clip: cepstra and normalised cepstra float32 [R, 20], phone classes uint8 [R], IGNORED where unknown."""

    cepstra: Float32
    rows: Float32
    labels: npt.NDArray[np.uint8]

    def cut(self, part: SpeechPart) -> SpeechRows:
        """Return the rows of a part."""
        rows = part.rows(len(self.rows))
        return SpeechRows(self.cepstra[rows], self.rows[rows], self.labels[rows])


def divided(rows: Sequence[ClipRow], speeds: Sequence[float] = (1.0,)) -> list[SpeechPart]:
    """Return the parts of all clips at all speeds, ordered by speaker, transcript and name.

    Clips with the same transcript tend to have the same index among each speaker's clips, so speakers who read the same sentences
    have the same sentences held out.
    """
    parts: list[SpeechPart] = []
    for clips in by_speaker(rows).values():
        ordered = sorted(clips, key=lambda row: (row.transcript, row.name))
        for index, row in enumerate(ordered):
            whole = SpeechPart(row, "held_out" if index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else "train")
            if len(ordered) == 1:
                halves = [SpeechPart(row, "train", end=TRAIN_SHARE), SpeechPart(row, "held_out", begin=TRAIN_SHARE)]
            else:
                halves = [whole]
            parts += [replace(half, speed=speed) for half in halves for speed in speeds]
    return parts


def read_speech_rows(data: TrainSet, row: ClipRow, speed: float = 1.0) -> SpeechRows:
    """Return the rows of a clip at a speed.

    Raises:
        InvalidRequestError: a file of the clip is missing or damaged.
    """
    stored, labels = read_recording(data, row)
    samples = scaled(stored)
    if speed != 1.0:
        samples = np.asarray(soxr.resample(samples, SAMPLE_RATE_HZ * speed, SAMPLE_RATE_HZ, quality="MQ"), np.float32)
        num_rows = len(samples) // HOP_SAMPLES
        labels = labels[np.minimum(((np.arange(num_rows) + 0.5) * speed).astype(np.int64), len(labels) - 1)]
    raw = cepstra(spectral_rows(samples))
    return SpeechRows(raw, RunningNormaliser().push(raw), labels)


class TrainingSpeech:
    """Rows of clips at all speeds, read when they are needed, with bounded memory."""

    def __init__(self, data: TrainSet) -> None:
        self._held = BoundedCache[tuple[ClipRow, float], tuple[Float32, npt.NDArray[np.uint8]]](
            lambda key: read_speech_rows(data, *key)[1:], lambda held: held[0].nbytes + held[1].nbytes, CACHE_BYTES
        )

    def of_clip(self, row: ClipRow) -> Float32:
        """Return the normalised cepstra of a clip, float32 [R, 20]."""
        return self._held[row, 1.0][0]

    def of(self, part: SpeechPart) -> tuple[Float32, npt.NDArray[np.uint8]]:
        """Return normalised cepstra float32 [R, 20] and phone classes uint8 [R] of a part."""
        rows, labels = self._held[part.row, part.speed]
        span = part.rows(len(rows))
        return rows[span], labels[span]

    def some_of(self, parts: Sequence[SpeechPart], count: int) -> Iterator[tuple[str, Float32, npt.NDArray[np.uint8]]]:
        """Yield speaker, rows and phone classes of at most `count` parts, ordered by speaker and evenly spread."""
        ordered = sorted(parts, key=lambda part: (part.speaker, part.row.name))
        step = max(1.0, len(ordered) / count)
        for number in range(min(count, len(ordered))):
            part = ordered[int(number * step)]
            yield (part.speaker, *self.of(part))


class SpeechBatch(NamedTuple):
    """N segments: rows float32 [N, W, 20], labels int64 [N, W] phone classes (-1 unknown), speakers int64 [N]."""

    rows: Float32
    labels: npt.NDArray[np.int64]
    speakers: npt.NDArray[np.int64]


class SegmentSampler:
    """Sampler of segments with nearly equal shares of all speakers. Equal generator states give equal batches.

    Args:
        speech: rows of the clips.
        parts: parts to draw from, at least one, each of at least `segment_rows` rows.
        segment_rows: W, rows of a segment.
        exponent: a speaker's share follows the length of the speaker's speech to this power.
    """

    def __init__(self, speech: TrainingSpeech, parts: Sequence[SpeechPart], segment_rows: int, exponent: float) -> None:
        self._speech, self._segment_rows = speech, segment_rows
        self.parts = tuple(parts)
        self.speakers, speaker = np.unique([part.speaker for part in self.parts], return_inverse=True)
        self._speaker = speaker
        sizes = np.bincount(speaker, [part.num_rows for part in self.parts], len(self.speakers)) ** exponent
        weights = np.array([max(part.row.weight, 1e-9) for part in self.parts])
        values = (sizes / np.bincount(speaker, weights, len(self.speakers)))[speaker] * weights
        self._cumulative = np.cumsum(values) / values.sum()

    def draw(self, rng: np.random.Generator, count: int) -> SpeechBatch:
        """Return `count` segments."""
        chosen = np.minimum(np.searchsorted(self._cumulative, rng.random(count), side="right"), len(self.parts) - 1)
        rows, labels = [], []
        for index in chosen:
            some, classes = self._speech.of(self.parts[index])
            start = int(rng.integers(max(1, len(some) - self._segment_rows + 1)))
            missing = max(0, self._segment_rows - len(some))
            rows.append(np.pad(some[start : start + self._segment_rows], ((0, missing), (0, 0)), mode="edge"))
            labels.append(np.pad(classes[start : start + self._segment_rows], (0, missing), constant_values=IGNORED))
        targets = np.stack(labels).astype(np.int64)
        targets[targets == IGNORED] = -1
        return SpeechBatch(np.stack(rows), targets, self._speaker[chosen].astype(np.int64))


def global_speaker(speech: Iterable[tuple[str, Float32, npt.NDArray[np.uint8]]]) -> Float32:
    """Return the mean normalised cepstra of each phone over the speakers, float32 [40, 20]. Every speaker has the same weight.

    Args:
        speech: name of the speaker, rows float32 [R, 20] and phone classes uint8 [R], with all speech of one speaker together.
    """
    total, speakers = np.zeros((NUM_PHONES, NUM_CEPSTRA)), np.zeros((NUM_PHONES, 1))
    for _, parts in groupby(speech, itemgetter(0)):
        sums, counts = np.zeros((NUM_PHONES, NUM_CEPSTRA)), np.zeros((NUM_PHONES, 1))
        for _, rows, labels in parts:
            for phone in range(NUM_PHONES):
                mine = rows[labels == phone]
                sums[phone] += mine.sum(axis=0, dtype=np.float64)
                counts[phone] += len(mine)
        enough = counts >= _LEAST_PHONE_ROWS
        total += np.where(enough, sums / np.maximum(counts, 1.0), 0.0)
        speakers += enough
    return (total / np.maximum(speakers, 1.0)).astype(np.float32)
