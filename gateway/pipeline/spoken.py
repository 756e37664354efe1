"""Speech of a film as renderers take it: the posteriorgram around the time of each frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.pipeline.records import RecordFile
from services.common.array_types import Float32, Float64, Int64
from services.common.face.mouth_bank import SPEECH_SHAPE

ROWS_PER_FRAME: Final = 4
"""Rows of the posteriorgram per frame of the motion grid: one row per 10 ms."""
FRAMES_AROUND: Final = 2
"""Frames of the motion grid that a renderer hears before and after a frame."""
SPEECH_ROWS: Final = (2 * FRAMES_AROUND + 1) * ROWS_PER_FRAME
"""Rows of the speech features of one frame: 200 ms."""
_ROWS_PER_S: Final = 100


@dataclass(frozen=True, slots=True)
class Spoken:
    """Speech that belongs to the frames of a film.

    Attributes:
        features: FEATURE_RECORDs of the speech. Record 0 begins at time 0 of the film.
        seconds: float64 [T], presentation time of every frame of the film from the first frame.
        lag_frames: frames of 40 ms by which the sound comes after the picture.
    """

    features: RecordFile
    seconds: Float64
    lag_frames: int = 0

    def around(self, frames: Int64) -> Float32:
        """Return the speech features of frames of the film, float32 [N, 20, 40].

        A frame at time n / 25 s gets the posteriorgram rows of frames n - 2 to n + 2 of the motion grid. A frame at another time
        gets the rows that begin in the 200 ms around it, to the nearest 10 ms. Rows outside the speech are 0.

        Args:
            frames: int64 [N], frames of the film.
        """
        nearest = np.floor(self.seconds[frames] * _ROWS_PER_S + 0.5).astype(np.int64)
        begins = nearest + (self.lag_frames - FRAMES_AROUND) * ROWS_PER_FRAME
        return np.array([self._rows(int(begin)) for begin in begins], np.float32).reshape(-1, *SPEECH_SHAPE)

    def _rows(self, begin: int) -> Float32:
        """Return the posteriorgram rows begin to begin + 19 of the speech. The records are read frame by frame: films have gaps."""
        rows: Float32 = np.zeros(SPEECH_SHAPE, np.float32)
        first = max(0, begin // ROWS_PER_FRAME)
        read = self.features.read(first, (begin + SPEECH_ROWS - 1) // ROWS_PER_FRAME + 1)["posteriorgram"].reshape(
            -1, SPEECH_SHAPE[1]
        )
        shift = first * ROWS_PER_FRAME - begin
        known = read[max(0, -shift) : SPEECH_ROWS - shift]
        rows[max(0, shift) : max(0, shift) + len(known)] = known
        return rows
