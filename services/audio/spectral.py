"""Log-mel rows and cepstra with their deltas as kinds of features: no network is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from services.audio.features import DELTA_CONTEXT_ROWS, MEL_FLOOR, deltas, silent_rows
from services.audio.kind import Heard, Kind
from services.audio.types import MFCC_WIDTH, NUM_CEPSTRA, NUM_MELS, ROWS_PER_VIDEO_FRAME
from services.common.array_types import Float32


class MelRows:
    """Log-mel rows of one stream."""

    def __init__(self) -> None:
        self._rows: Float32 = np.zeros((0, NUM_MELS), np.float32)

    def push(self, heard: Heard) -> None:
        """Take in new sound."""
        self._rows = np.concatenate([self._rows, heard.mel])

    @property
    def num_known(self) -> int:
        """Rows that have not been taken yet."""
        return len(self._rows)

    def take(self, blocks: int) -> Float32:
        """Return the next blocks, float32 [blocks, 4, 80]."""
        count = blocks * ROWS_PER_VIDEO_FRAME
        taken, self._rows = self._rows[:count], self._rows[count:].copy()
        return taken.reshape(blocks, ROWS_PER_VIDEO_FRAME, NUM_MELS)


class MfccRows:
    """Cepstra and deltas of one stream. A row's delta hears two rows beyond the row."""

    def __init__(self) -> None:
        # Cepstra from two rows before the next block on.
        self._rows = silent_rows(DELTA_CONTEXT_ROWS)

    def push(self, heard: Heard) -> None:
        """Take in new sound."""
        self._rows = np.concatenate([self._rows, heard.cepstra])

    @property
    def num_known(self) -> int:
        """Rows whose deltas can be computed and that have not been taken yet."""
        return len(self._rows) - 2 * DELTA_CONTEXT_ROWS

    def take(self, blocks: int) -> Float32:
        """Return the next blocks, float32 [blocks, 4, 40]."""
        count = blocks * ROWS_PER_VIDEO_FRAME
        rows = self._rows[: count + 2 * DELTA_CONTEXT_ROWS]
        still = rows[DELTA_CONTEXT_ROWS : DELTA_CONTEXT_ROWS + count]
        self._rows = self._rows[count:].copy()
        return np.concatenate([still, deltas(rows)], axis=1).reshape(blocks, ROWS_PER_VIDEO_FRAME, MFCC_WIDTH)


class MelModel:
    """Log-mel rows."""

    silence: Final[Float32] = np.full((ROWS_PER_VIDEO_FRAME, NUM_MELS), np.log(MEL_FLOOR), np.float32)

    def new_source(self) -> MelRows:
        """Return the rows of a new stream."""
        return MelRows()


class MfccModel:
    """Cepstra and their deltas. The deltas of silence are 0."""

    silence: Final[Float32] = np.concatenate(
        [silent_rows(ROWS_PER_VIDEO_FRAME), np.zeros((ROWS_PER_VIDEO_FRAME, NUM_CEPSTRA), np.float32)], axis=1
    )

    def new_source(self) -> MfccRows:
        """Return the rows of a new stream."""
        return MfccRows()


def _mel(weights: Path, threads: int) -> MelModel:
    return MelModel()


def _mfcc(weights: Path, threads: int) -> MfccModel:
    return MfccModel()


MEL: Final = Kind(name="mel", frame_shape=(ROWS_PER_VIDEO_FRAME, NUM_MELS), load=_mel)
"""Natural logarithm of mel band power."""
MFCC: Final = Kind(name="mfcc", frame_shape=(ROWS_PER_VIDEO_FRAME, MFCC_WIDTH), load=_mfcc)
"""20 cepstra, then their 20 deltas."""
