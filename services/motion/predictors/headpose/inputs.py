"""Network inputs of `headpose`: content rows, and cepstra of the speech (MFCC) against the voice's own mean.

    c = DCT-II(mel), orthonormal, coefficients 1 to 20;   c' = (c - mean) / SCALE

The mean covers the speech in the frame itself and at most 100 frames before the frame. So microphone and voice drop out, and a
stream needs none of its future. Coefficient 0 is loudness, which `features.relative_energy` tells.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32, Float64
from services.motion.features import ENERGY_PAST, NUM_CONTENT, ContentStream, content_before, content_rows, silence
from services.motion.types import NUM_MELS, ROWS_PER_FRAME, SpeechFeatures

NUM_COEFFICIENTS: Final = 20
SCALE: Final = 4.0
"""Approximate size of a coefficient in speech."""
_PAUSE_WEIGHT: Final = 0.02
_LIMIT: Final = 4.0


def _cosines() -> Float64:
    order = np.arange(1, NUM_COEFFICIENTS + 1)[:, None]
    return np.asarray(np.sqrt(2.0 / NUM_MELS) * np.cos(np.pi / NUM_MELS * order * (np.arange(NUM_MELS) + 0.5)))


_COSINES: Final = _cosines()


def cepstra(mel: Float32) -> Float32:
    """Return cepstral coefficients 1 to 20 of log-mel rows: float32 [T, 4, 80] -> [T, 4, 20]."""
    result = np.empty((len(mel), ROWS_PER_FRAME, NUM_COEFFICIENTS), np.float32)
    for row, frame in zip(result, mel, strict=True):  # one by one: the bits of a matrix product may depend on the number of rows
        row[:] = frame @ _COSINES.T
    return result


def relative_cepstra(rows: Float32, speech_probability: Float32, begin: int = 0) -> Float32:
    """Return cepstra of frames from `begin` on against the mean of the speech before: float32 [T - begin, 4, 20], within [-4, 4].

    Args:
        rows: float32 [T, 4, 20] from the start of the stream, or from 100 frames before `begin`.
        speech_probability: float32 [T].
        begin: first wanted frame.
    """
    result = np.empty((len(rows) - begin, *rows.shape[1:]), np.float32)
    weight = speech_probability.astype(np.float64) + _PAUSE_WEIGHT
    means = rows.astype(np.float64).mean(axis=1)
    for frame in range(begin, len(rows)):
        past = slice(max(0, frame - ENERGY_PAST), frame + 1)
        mean = (weight[past, None] * means[past]).sum(axis=0) / weight[past].sum()
        result[frame - begin] = (rows[frame] - mean) / SCALE
    return np.clip(result, -_LIMIT, _LIMIT)


def heard_rows(features: SpeechFeatures) -> Float32:
    """Return network inputs of a whole stream: float32 [T, 4, 64], content rows (features.content_rows) and relative cepstra."""
    return np.concatenate([content_rows(features), relative_cepstra(cepstra(features.mel), features.speech_probability)], axis=-1)


def heard_before(num_frames: int) -> Float32:
    """Return network inputs of the silence before a stream, float32 [T, 4, 64]."""
    silent = np.zeros((num_frames, ROWS_PER_FRAME, NUM_COEFFICIENTS), np.float32)
    return np.concatenate([content_before(num_frames), silent], axis=-1)


def heard_clip(features: SpeechFeatures, past: int, ahead: int) -> Float32:
    """Return network inputs of a whole clip of T frames with the silence around the clip: float32 [past + T + ahead, 4, 64]."""
    return np.concatenate([heard_before(past), heard_rows(SpeechFeatures.joined([features, silence(ahead)]))])


def content_of(rows: Float32) -> Float32:
    """Return the content rows in network inputs: [..., 64] -> [..., 44]."""
    return rows[..., :NUM_CONTENT]


class HeardStream:
    """Network inputs of a stream that comes in pieces: the same bytes as `heard_rows` of the whole stream."""

    def __init__(self) -> None:
        self._content = ContentStream()
        self._rows = np.zeros((0, ROWS_PER_FRAME, NUM_COEFFICIENTS), np.float32)
        self._speaking = np.zeros(0, np.float32)

    def push(self, features: SpeechFeatures) -> Float32:
        """Return the rows of the next frames."""
        begin = len(self._rows)
        rows = np.concatenate([self._rows, cepstra(features.mel)])
        speaking = np.concatenate([self._speaking, features.speech_probability])
        relative = relative_cepstra(rows, speaking, begin)
        keep = slice(max(0, len(rows) - ENERGY_PAST), None)
        self._rows, self._speaking = rows[keep], speaking[keep]
        return np.concatenate([self._content.push(features), relative], axis=-1)
