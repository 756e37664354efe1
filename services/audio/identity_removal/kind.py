"""ID-removed cepstra as a kind of feature: the exported network on ONNX Runtime."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from services.audio.identity_removal.normalise import (
    IDENTITY_AHEAD_ROWS,
    IDENTITY_PAST_ROWS,
    IDENTITY_REMOVED_WIDTH,
    IDENTITY_WINDOW_ROWS,
    RunningNormaliser,
    normal_silence,
)
from services.audio.kind import Heard, Kind
from services.audio.sessions import run_windows
from services.audio.types import ROWS_PER_VIDEO_FRAME
from services.common.array_types import Float32
from services.common.store.network_session import open_network


class IdentityRemovalModel:
    """The loaded Audio ID-Removing Network, id_removal.onnx. Arguments and errors: see Kind.load."""

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
    """ID-removed cepstra of one stream. A block hears four rows beyond the block."""

    def __init__(self, model: IdentityRemovalModel) -> None:
        self._model = model
        self._normaliser = RunningNormaliser()
        # Normalised rows from IDENTITY_PAST_ROWS before the next block on.
        self._rows = normal_silence(IDENTITY_PAST_ROWS)

    def push(self, heard: Heard) -> None:
        """Take in new sound."""
        self._rows = np.concatenate([self._rows, self._normaliser.push(heard.cepstra)])

    @property
    def num_known(self) -> int:
        """Rows whose look-ahead is there and that have not been taken yet."""
        return len(self._rows) - IDENTITY_PAST_ROWS - IDENTITY_AHEAD_ROWS

    def take(self, blocks: int) -> Float32:
        """Return the next blocks, float32 [blocks, 4, 20]."""
        starts = range(0, blocks * ROWS_PER_VIDEO_FRAME, ROWS_PER_VIDEO_FRAME)
        windows = np.stack([self._rows[start : start + IDENTITY_WINDOW_ROWS] for start in starts])
        self._rows = self._rows[blocks * ROWS_PER_VIDEO_FRAME :].copy()
        return self._model.run(windows)


IDENTITY_REMOVED: Final = Kind(
    name="identity_removed", frame_shape=(ROWS_PER_VIDEO_FRAME, IDENTITY_REMOVED_WIDTH), load=IdentityRemovalModel
)
"""Cepstra of the global speaker: what is said, without who says it."""
