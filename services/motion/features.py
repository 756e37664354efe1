"""Network inputs from speech features: phone probabilities and relative band energies. Training and serving share this module.

The energy of a vowel tells how far the jaw drops, but the level of the energy depends on microphone and voice. So the energies of a
frame are measured against the four seconds before that frame. A stream needs none of its future for this.

Pooled speech is a window of content rows, pooled over time to the input of a person's correction (correction.py).

    c' = c + C p,     p = 5 Gaussian means over time of 21 articulations and 4 band energies, and 1

Sounds that look alike on the lips share a channel. The means are wide in the past and narrow about the frame. So p has so few
numbers that ten seconds of a person determine C.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import numpy as np

from services.common.array_types import Float32, Float64
from services.common.wire.phones import PHONES, SILENCE
from services.motion.types import NUM_MELS, NUM_PHONES, ROWS_PER_FRAME, SpeechFeatures

ARTICULATIONS: Final[tuple[tuple[str, ...], ...]] = (
    ("SIL",),
    ("P", "B", "M"),
    ("F", "V"),
    ("TH", "DH"),
    ("T", "D", "N", "L"),
    ("S", "Z"),
    ("SH", "ZH", "CH", "JH"),
    ("K", "G", "NG", "HH"),
    ("R", "ER"),
    ("W",),
    ("UW", "UH"),
    ("OW", "OY"),
    ("AO",),
    ("AA",),
    ("AH",),
    ("AE",),
    ("AY", "AW"),
    ("EH",),
    ("EY",),
    ("IH",),
    ("IY", "Y"),
)
"""Groups of phones that look alike on the lips; each group shares one channel."""
BANDS: Final[tuple[tuple[int, int], ...]] = ((0, 14), (14, 30), (30, 52), (52, NUM_MELS))
"""Mel bands whose mean log energies are channels too: about 0-0.4, 0.4-1.1, 1.1-2.9 and 2.9-7.6 kHz."""
NUM_CONTENT: Final = NUM_PHONES + len(BANDS)
"""Content channels of one 10 ms row: phones, then relative band energies."""
NUM_SYNC: Final = len(ARTICULATIONS) + len(BANDS)
"""Channels of one row of the sync network: articulations, then band energies."""
ENERGY_PAST: Final = 100
"""Frames before a frame against which the frame's energies are measured: 4 s."""
_PAUSE_WEIGHT: Final = 0.02
_ENERGY_LIMIT: Final = 3.0
_ENERGY_BEFORE: Final = -1.5
"""Relative energy of the silence before a stream: the typical value of quiet frames in speech."""
BILABIAL: Final = 1

_LOG_FLOOR: Final = float(np.log(1e-6))
"""Log-mel power of digital silence (the floor of the audio stage's spectrum)."""
_CENTRES: Final = np.array([-4.0, -2.25, -0.75, 0.75, 2.25])[:, None]
_WIDTHS: Final = np.array([1.5, 0.8, 0.7, 0.7, 0.8])[:, None]
"""Centres of the means in frames from the predicted frame, and standard deviations in frames."""
_ENERGY_SCALE: Final = np.float32(0.5)
POOLED_PAST: Final = 6
"""Frames before the predicted frame that the means of a person's correction cover."""
NUM_MEANS: Final = len(_CENTRES)
"""Means over time that a person's correction takes of each channel."""
NUM_POOLED: Final = NUM_MEANS * (len(ARTICULATIONS) + len(BANDS)) + 1


def _articulation_matrix() -> Float32:
    matrix = np.zeros((NUM_PHONES, len(ARTICULATIONS)), np.float32)
    for group, members in enumerate(ARTICULATIONS):
        for phone in members:
            matrix[PHONES.index(phone), group] = 1.0
    return matrix


_ARTICULATION: Final = _articulation_matrix()
LOOK_ALIKE: Final[Float32] = (_ARTICULATION / _ARTICULATION.sum(axis=0)) @ _ARTICULATION.T
"""float32 [40, 40]: matrix that spreads a phone's probability evenly over the phones that look like that phone."""


def band_energy(features: SpeechFeatures) -> Float32:
    """Return the mean log energy of each band, float32 [T, 4, 4] (frame, row, band)."""
    return np.stack([features.mel[..., low:high].mean(axis=-1) for low, high in BANDS], axis=-1).astype(np.float32)


def relative_energy(energy: Float32, speech_probability: Float32, begin: int = 0) -> Float32:
    """Return band energies of frames from `begin` on, relative to speech in the frame itself and at most 100 frames before.

        e'_b = (e_b - mean_b) / sqrt(variance + 1),   mean, variance: weighted by speech probability + 0.02

    Pauses hardly count, so the level is the level of the voice and does not depend on the share of silence.

    Args:
        energy: float32 [T, 4, 4] from the start of the stream, or from 100 frames before `begin`.
        speech_probability: float32 [T].
        begin: first target frame.

    Returns:
        float32 [T - begin, 4, 4], within [-3, 3].
    """
    result = np.empty((len(energy) - begin, *energy.shape[1:]), np.float32)
    weight = speech_probability.astype(np.float64) + _PAUSE_WEIGHT
    for frame in range(begin, len(energy)):
        past = slice(max(0, frame - ENERGY_PAST), frame + 1)
        seen, share = energy[past].astype(np.float64), weight[past] / weight[past].sum()
        mean = share @ seen.mean(axis=1)
        variance = share @ ((seen - mean) ** 2).mean(axis=(1, 2))
        result[frame - begin] = (energy[frame] - mean) / np.sqrt(variance + 1.0)
    return np.clip(result, -_ENERGY_LIMIT, _ENERGY_LIMIT)


def content_rows(features: SpeechFeatures) -> Float32:
    """Return the content rows of a whole stream: float32 [T, 4, 44], phone probabilities and relative energies."""
    return np.concatenate([features.posteriorgram, relative_energy(band_energy(features), features.speech_probability)], axis=-1)


def content_before(num_frames: int) -> Float32:
    """Return the content rows of the silence before a stream, float32 [T, 4, 44]."""
    rows = np.full((num_frames, ROWS_PER_FRAME, NUM_CONTENT), _ENERGY_BEFORE, np.float32)
    rows[..., :NUM_PHONES] = silence(num_frames).posteriorgram
    return rows


def sync_rows(features: SpeechFeatures) -> Float32:
    """Return the inputs of the sync network: float32 [T, 4, 25], articulation probabilities and absolute log band energies.

    A sync network cannot learn 39 phones from a few minutes, so phones that look alike on the lips share a channel.
    """
    return np.concatenate([features.posteriorgram @ _ARTICULATION, band_energy(features)], axis=-1).astype(np.float32)


def articulation_rows(content: Float32) -> Float32:
    """Return content rows with one channel per group of phones that look alike: [..., 44] -> float32 [..., 25], energies last."""
    phones = content[..., :NUM_PHONES] @ _ARTICULATION
    return np.concatenate([phones, content[..., NUM_PHONES:]], axis=-1).astype(np.float32)


class RelativeStream:
    """Rows relative to the speech before, of a stream that comes in pieces: the same bytes as of the whole stream.

    Args:
        relative: returns rows of frames from `begin` on, of the rows and the speech probability of the stream (relative_energy).
        shape: shape of a frame's rows.
    """

    def __init__(self, relative: Callable[[Float32, Float32, int], Float32], shape: tuple[int, ...]) -> None:
        self._relative = relative
        self._rows = np.zeros((0, *shape), np.float32)
        self._speaking = np.zeros(0, np.float32)

    def push(self, rows: Float32, speech_probability: Float32) -> Float32:
        """Return the relative rows of the next frames."""
        begin = len(self._rows)
        rows, speaking = np.concatenate([self._rows, rows]), np.concatenate([self._speaking, speech_probability])
        relative = self._relative(rows, speaking, begin)
        keep = slice(max(0, len(rows) - ENERGY_PAST), None)
        self._rows, self._speaking = rows[keep], speaking[keep]
        return relative


class ContentStream:
    """Content rows of a stream that comes in pieces: the same bytes as `content_rows` of the whole stream."""

    def __init__(self) -> None:
        self._energies = RelativeStream(relative_energy, (ROWS_PER_FRAME, len(BANDS)))

    def push(self, features: SpeechFeatures) -> Float32:
        """Return the content rows of the next frames."""
        relative = self._energies.push(band_energy(features), features.speech_probability)
        return np.concatenate([features.posteriorgram, relative], axis=-1)


def bilabial_probability(features: SpeechFeatures) -> Float32:
    """Return the highest probability of p, b or m among the four rows of each frame, float32 [T]."""
    columns = [PHONES.index(phone) for phone in ARTICULATIONS[BILABIAL]]
    return np.asarray(features.posteriorgram[..., columns].sum(axis=-1).max(axis=-1), dtype=np.float32)


def silence(num_frames: int) -> SpeechFeatures:
    """Return features of digital silence, which surrounds every stream."""
    posteriorgram = np.zeros((num_frames, ROWS_PER_FRAME, NUM_PHONES), np.float32)
    posteriorgram[..., SILENCE] = 1.0
    mel = np.full((num_frames, ROWS_PER_FRAME, NUM_MELS), _LOG_FLOOR, np.float32)
    return SpeechFeatures(posteriorgram, mel, np.zeros(num_frames, np.float32))


def pooled_speech(window: Float32, past: int) -> Float32:
    """Return the pooled speech of content rows [W, 4, 44] whose frame `past` is predicted: float32 [126], the last number 1."""
    rows = articulation_rows(window)
    rows[..., len(ARTICULATIONS) :] *= _ENERGY_SCALE
    return pooled_rows(rows, past)


def pooled_rows(window: Float32, past: int) -> Float32:
    """Return the means over time of rows [W, 4, C] whose frame `past` is predicted: float32 [5 C + 1], the last number 1."""
    pooling = _pooling(len(window) * ROWS_PER_FRAME, past)
    return np.append(pooling @ window.reshape(pooling.shape[1], -1), 1.0).astype(np.float32)


@lru_cache
def _pooling(num_rows: int, past: int) -> Float64:
    """Return the weights of rows in each mean, float64 [5, num_rows]; the same for every frame."""
    rows = (np.arange(num_rows) + 0.5) / ROWS_PER_FRAME - 0.5 - past
    bumps = np.exp(-0.5 * ((rows - _CENTRES) / _WIDTHS) ** 2)
    return np.asarray(bumps / bumps.sum(axis=1, keepdims=True))
