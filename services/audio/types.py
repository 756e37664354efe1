"""Types and the time grid of the audio stage.

Acoustic grid: 100 rows a second; row i is centred at (i + 0.5) * 10 ms, so it covers samples [160 i, 160 (i + 1)) of the
16 kHz mono signal. Rows before the first and after the last sample see digital silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.common.array_types import Float32

SAMPLE_RATE_HZ: Final = 16_000
HOP_SAMPLES: Final = 160
ROWS_PER_SECOND: Final = 100
ROWS_PER_VIDEO_FRAME: Final = 4
NUM_MELS: Final = 80
NUM_CEPSTRA: Final = 20
MFCC_WIDTH: Final = 2 * NUM_CEPSTRA
"""20 cepstra, then their 20 deltas."""


@dataclass(frozen=True, slots=True)
class FeatureBlock:
    """Features of one video frame.

    The four rows are the acoustic grid interpolated at t + (j + 0.5) * 10 ms, j = 0..3, where t is the frame's time.

    Attributes:
        frame_index: number of the frame in its timeline.
        features: float32 arrays of the kinds that were asked for, by name; models.py lists the kinds.
    """

    frame_index: int
    features: Mapping[str, Float32]
