"""Types and the time grid of the audio stage.

Acoustic grid: 100 rows a second; row i is centred at (i + 0.5) * 10 ms, so it covers samples [160 i, 160 (i + 1)) of the
16 kHz mono signal. Rows before the first and after the last sample see digital silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]

SAMPLE_RATE_HZ: Final = 16_000
HOP_SAMPLES: Final = 160
ROWS_PER_SECOND: Final = 100
ROWS_PER_VIDEO_FRAME: Final = 4
NUM_MELS: Final = 80
NUM_CEPSTRA: Final = 20
MFCC_WIDTH: Final = 2 * NUM_CEPSTRA
"""20 cepstra, then their 20 deltas."""


class FeatureKind(StrEnum):
    """What a caller may ask for."""

    MEL = "mel"
    MFCC = "mfcc"
    PPG = "ppg"
    SPEECH_PROBABILITY = "speech_probability"
    IDENTITY_REMOVED = "identity_removed"


ALL_KINDS: Final = frozenset(FeatureKind)


@dataclass(frozen=True, slots=True)
class FeatureBlock:
    """Features of one video frame; kinds that were not asked for are None. All arrays are float32.

    The four rows are the acoustic grid interpolated at t + (j + 0.5) * 10 ms, j = 0..3, t the frame's time.
    """

    frame_index: int
    mel: FloatArray | None
    """[4, 80] natural log of mel band power."""
    mfcc: FloatArray | None
    """[4, 40] 20 cepstra, then their deltas a row."""
    ppg: FloatArray | None
    """[4, 40] phone probabilities, rows sum to 1, class order of `phones.PHONES`."""
    speech_probability: float | None
    """In [0, 1]: mean over the four rows of the probability that somebody speaks."""
    identity_removed: FloatArray | None
    """[4, 20] cepstra of the global speaker: what is said, without who says it."""


@dataclass(frozen=True, slots=True)
class AudioFeatures:
    """Features of T video frames; kinds that were not asked for are None. All arrays are float32."""

    mel: FloatArray | None
    """[T, 4, 80]"""
    mfcc: FloatArray | None
    """[T, 4, 40]"""
    ppg: FloatArray | None
    """[T, 4, 40]"""
    speech_probability: FloatArray | None
    """[T]"""
    identity_removed: FloatArray | None
    """[T, 4, 20]"""
