"""The phonetic posteriorgram as a kind of feature: the phone network on ONNX Runtime, and the windows that the network sees.

Block k answers rows 4 k to 4 k + 3 and sees rows 4 k - 49 to 4 k + 8: five rows of look-ahead. An analysis window
exceeds its row by 7.5 ms, and the resampler adds less than 2.5 ms: the network's window ends at most 60 ms after the answered rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from services.audio.spectral import loud_rows, silent_rows
from services.audio.types import ROWS_PER_VIDEO_FRAME, FeatureKind, SoundRows, run_windows
from services.common.array_types import Float32
from services.common.store.network_session import open_network
from services.common.wire.phones import NUM_PHONES, SILENCE

PAST_ROWS: Final = 49
LOOK_AHEAD_ROWS: Final = 5
WINDOW_ROWS: Final = PAST_ROWS + ROWS_PER_VIDEO_FRAME + LOOK_AHEAD_ROWS
MEAN_CONTEXT_ROWS: Final = 300
"""Rows up to the window's last one from which the cepstral mean is taken: three seconds."""

_PRIOR_ROWS: Final = 50.0
"""Weight of the prior mean, so that a stream's first syllables are not normalised by themselves."""
_PRIOR_MEAN: Final = np.array(
    [
        0.0,
        12.1,
        1.0,
        3.5,
        -2.1,
        -1.5,
        -1.7,
        -1.2,
        -0.4,
        -0.9,
        -0.3,
        -0.9,
        -0.3,
        -0.7,
        -1.0,
        -0.6,
        -0.4,
        -0.2,
        -0.3,
        -0.1,
    ]
)
"""Mean of the cepstra of speech rows over the training set, rounded; C0 is not normalised."""


def normalise(context: Float32) -> Float32:
    """Return cepstra of the window at the end of `context`, minus the mean of the context's loud rows.

    C0 keeps its absolute level, which says whether a person speaks. Subtracting the means of C1 to C19 removes the microphone's
    colour. Only the last 300 rows count, so the result does not depend on the cut of a stream.

    Args:
        context: [300, 20] float32, the rows up to the window's last row. Rows before the stream are silence.

    Returns:
        [WINDOW_ROWS, 20] float32.
    """
    loud = loud_rows(context)
    # This is an elementwise product and a sum over rows: the order of additions in a matrix product could vary.
    total = (context.astype(np.float64) * loud[:, None]).sum(axis=0) + _PRIOR_ROWS * _PRIOR_MEAN
    mean = total / (loud.sum() + _PRIOR_ROWS)
    mean[0] = 0.0
    return np.asarray(context[-WINDOW_ROWS:] - mean, dtype=np.float32)


class PosteriorgramModel:
    """The loaded phone network, ppg.onnx. Arguments and errors: see FeatureKind.load."""

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
    """Phone probabilities of one stream. The window of a block ends five rows after the block."""

    def __init__(self, model: PosteriorgramModel) -> None:
        self._model = model
        # The cepstra begin MEAN_CONTEXT_ROWS before the next block.
        self._cepstra = silent_rows(MEAN_CONTEXT_ROWS)
        self._last_window = b""
        self._last_block: Float32 = np.zeros((0, NUM_PHONES), np.float32)

    def push(self, sound: SoundRows) -> None:
        """Take in new sound."""
        self._cepstra = np.concatenate([self._cepstra, sound.cepstra])

    @property
    def num_ready(self) -> int:
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
        probabilities = np.stack([self._last_block if index < 0 else fresh[index] for index in position])
        self._last_block = probabilities[-1]
        self._cepstra = self._cepstra[blocks * ROWS_PER_VIDEO_FRAME :].copy()
        return probabilities


POSTERIORGRAM: Final = FeatureKind(name="posteriorgram", frame_shape=(ROWS_PER_VIDEO_FRAME, NUM_PHONES), load=PosteriorgramModel)
"""Phone probabilities, class order of `services.common.wire.phones.PHONES`."""
