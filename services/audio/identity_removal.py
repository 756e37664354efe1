"""Identity removal: cepstra that keep the words and lose the speaker, by the Audio ID-Removing Network on ONNX Runtime.

Mean and size of a cepstral channel show voice and microphone. So each row is normalised by the loud rows of the three seconds up
to the row. Block k (rows 4 k to 4 k + 3) follows only from rows 4 k - 56 to 4 k + 7: four rows of look-ahead (the
posteriorgram has five). The result does not depend on the cut of a stream.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from services.audio.spectral import loud_rows, silent_rows
from services.audio.types import NUM_CEPSTRA, ROWS_PER_VIDEO_FRAME, FeatureKind, SoundRows, run_windows
from services.common.array_types import Float32
from services.common.store.network_session import open_network

IDENTITY_REMOVED_WIDTH: Final = NUM_CEPSTRA
"""Numbers per row of the result."""
IDENTITY_PAST_ROWS: Final = 56
"""Rows before a block that the network reads."""
IDENTITY_AHEAD_ROWS: Final = 4
"""Rows after a block that the network reads."""
IDENTITY_WINDOW_ROWS: Final = IDENTITY_PAST_ROWS + ROWS_PER_VIDEO_FRAME + IDENTITY_AHEAD_ROWS
"""Rows that the network reads for one block."""
STATISTICS_ROWS: Final = 300
"""Rows up to the first row of a block that give mean and deviation of the block: three seconds."""
RANGE: Final = 5.0
"""Normalised cepstra are kept within this many deviations."""

_PRIOR_ROWS: Final = np.array([10.0] + [60.0] * (NUM_CEPSTRA - 1))
"""Weight of the typical mean and deviation, in rows: small for the level (C0), which differs between recordings."""
_PRIOR_MEAN: Final = np.array(
    [-23.6, 16.9, 4.6, 8.2, -0.9, -2.2, -0.9, -1.9, -0.8, -0.1, -0.1, -0.5, -0.8, -0.5, -1.4, -1.1, -0.4, -0.6, -0.8, -0.5]
)
"""Mean over the speech rows of the training set; _PRIOR_DEVIATION is the deviation over the same rows."""
_PRIOR_DEVIATION: Final = np.array(
    [11.0, 13.4, 6.0, 5.9, 4.3, 4.2, 3.0, 2.9, 2.5, 2.5, 2.0, 1.9, 2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4, 1.4]
)


class RunningNormaliser:
    """Normaliser of the cepstra of a stream, row by row. Other pieces of the same stream give the same bits."""

    def __init__(self) -> None:
        self._past = silent_rows(STATISTICS_ROWS)
        self._row = 0
        self._mean = _PRIOR_MEAN
        self._deviation = _PRIOR_DEVIATION

    def push(self, cepstra: Float32) -> Float32:
        """Return the next rows normalised: [n, 20] -> float32 [n, 20] within [-5, 5]."""
        rows = np.concatenate([self._past, cepstra])
        normal = np.empty(cepstra.shape, np.float32)
        for index in range(len(cepstra)):
            at = STATISTICS_ROWS + index
            if self._row % ROWS_PER_VIDEO_FRAME == 0:
                self._measure(rows[at + 1 - STATISTICS_ROWS : at + 1].astype(np.float64))
            normal[index] = np.clip((rows[at] - self._mean) / self._deviation, -RANGE, RANGE)
            self._row += 1
        self._past = rows[-STATISTICS_ROWS:].copy()
        return normal

    def _measure(self, context: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> None:
        loud = loud_rows(context)[:, None]
        count = loud.sum() + _PRIOR_ROWS
        self._mean = ((context * loud).sum(axis=0) + _PRIOR_ROWS * _PRIOR_MEAN) / count
        squares = ((context - self._mean) ** 2 * loud).sum(axis=0) + _PRIOR_ROWS * _PRIOR_DEVIATION**2
        self._deviation = np.sqrt(squares / count)


def normal_silence(rows: int) -> Float32:
    """Return normalised cepstra of the digital silence before a stream, [rows, 20]."""
    normal = np.clip((silent_rows(rows) - _PRIOR_MEAN) / _PRIOR_DEVIATION, -RANGE, RANGE)
    return np.asarray(normal, dtype=np.float32)


class IdentityRemovalModel:
    """The loaded Audio ID-Removing Network, id_removal.onnx. Arguments and errors: see FeatureKind.load."""

    def __init__(self, weights: Path, threads: int = 1) -> None:
        self._session = open_network(weights / "id_removal.onnx", threads)

    @cached_property
    def silence(self) -> Float32:
        """Four rows that the network makes of digital silence, float32 [4, 20]."""
        return np.asarray(self.run(normal_silence(IDENTITY_WINDOW_ROWS)[None])[0])

    def run(self, windows: Float32) -> Float32:
        """Return cepstra of the global speaker: float32 [N, 64, 20] normalised cepstra, N >= 1 -> float32 [N, 4, 20]."""
        return run_windows(self._session, "removed", windows)

    def new_source(self) -> IdentityRemovedRows:
        """Return the rows of a new stream."""
        return IdentityRemovedRows(self)


class IdentityRemovedRows:
    """ID-removed cepstra of one stream. A block needs the four rows after the block."""

    def __init__(self, model: IdentityRemovalModel) -> None:
        self._model = model
        self._normaliser = RunningNormaliser()
        # Normalised rows from IDENTITY_PAST_ROWS before the next block on.
        self._rows = normal_silence(IDENTITY_PAST_ROWS)

    def push(self, sound: SoundRows) -> None:
        """Take in new sound."""
        self._rows = np.concatenate([self._rows, self._normaliser.push(sound.cepstra)])

    @property
    def num_ready(self) -> int:
        """Rows whose look-ahead is there and that have not been taken yet."""
        return len(self._rows) - IDENTITY_PAST_ROWS - IDENTITY_AHEAD_ROWS

    def take(self, blocks: int) -> Float32:
        """Return the next blocks, float32 [blocks, 4, 20]."""
        starts = range(0, blocks * ROWS_PER_VIDEO_FRAME, ROWS_PER_VIDEO_FRAME)
        windows = np.stack([self._rows[start : start + IDENTITY_WINDOW_ROWS] for start in starts])
        self._rows = self._rows[blocks * ROWS_PER_VIDEO_FRAME :].copy()
        return self._model.run(windows)


IDENTITY_REMOVED: Final = FeatureKind(
    name="identity_removed", frame_shape=(ROWS_PER_VIDEO_FRAME, IDENTITY_REMOVED_WIDTH), load=IdentityRemovalModel
)
"""Cepstra of the global speaker: what is said, without who says it."""
