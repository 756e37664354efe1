"""The phonetic posteriorgram as a kind of feature: the phone network on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from services.audio.features import silent_rows
from services.audio.kind import Heard, Kind
from services.audio.sessions import run_windows
from services.audio.types import ROWS_PER_VIDEO_FRAME
from services.audio.windows import LOOK_AHEAD_ROWS, MEAN_CONTEXT_ROWS, normalise
from services.common.array_types import Float32
from services.common.store.network_session import open_network
from services.common.wire.phones import NUM_PHONES, SILENCE


class PosteriorgramModel:
    """The loaded phone network, ppg.onnx. Arguments and errors: see Kind.load."""

    def __init__(self, weights: Path, threads: int = 1) -> None:
        self._session = open_network(weights / "ppg.onnx", threads)

    @property
    def silence(self) -> Float32:
        """Four rows before time zero, float32 [4, 40]: silence is certain."""
        rows = np.zeros((ROWS_PER_VIDEO_FRAME, NUM_PHONES), np.float32)
        rows[:, SILENCE] = 1.0
        return rows

    def run(self, windows: Float32) -> Float32:
        """Return phone probabilities: float32 [N, 58, 20] normalised cepstra, N >= 1 -> float32 [N, 4, 40], rows sum to 1."""
        return run_windows(self._session, "probabilities", windows)

    def new_source(self) -> PosteriorgramRows:
        """Return the rows of a new stream."""
        return PosteriorgramRows(self)


class PosteriorgramRows:
    """Phone probabilities of one stream. A block hears five rows beyond the block."""

    def __init__(self, model: PosteriorgramModel) -> None:
        self._model = model
        # Cepstra from MEAN_CONTEXT_ROWS before the next block on.
        self._cepstra = silent_rows(MEAN_CONTEXT_ROWS)
        self._last_window = b""
        self._last_block: Float32 = np.zeros((0, NUM_PHONES), np.float32)

    def push(self, heard: Heard) -> None:
        """Take in new sound."""
        self._cepstra = np.concatenate([self._cepstra, heard.cepstra])

    @property
    def num_known(self) -> int:
        """Rows whose look-ahead is there and that have not been taken yet."""
        return len(self._cepstra) - MEAN_CONTEXT_ROWS - LOOK_AHEAD_ROWS

    def take(self, blocks: int) -> Float32:
        """Return the next blocks, float32 [blocks, 4, 40]. Equal windows in a row (a long silence) are run once."""
        windows: list[Float32] = []
        position: list[int] = []
        for block in range(blocks):
            end = MEAN_CONTEXT_ROWS + (block + 1) * ROWS_PER_VIDEO_FRAME + LOOK_AHEAD_ROWS
            window = normalise(self._cepstra[end - MEAN_CONTEXT_ROWS : end])
            key = window.tobytes()
            if key != self._last_window:
                self._last_window = key
                windows.append(window)
            position.append(len(windows) - 1)
        fresh = self._model.run(np.stack(windows)) if windows else self._last_block[None][:0]
        found = np.stack([self._last_block if index < 0 else fresh[index] for index in position])
        self._last_block = found[-1]
        self._cepstra = self._cepstra[blocks * ROWS_PER_VIDEO_FRAME :].copy()
        return found


POSTERIORGRAM: Final = Kind(name="posteriorgram", frame_shape=(ROWS_PER_VIDEO_FRAME, NUM_PHONES), load=PosteriorgramModel)
"""Phone probabilities, class order of `services.common.wire.phones.PHONES`."""
