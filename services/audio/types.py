"""Types and the time grid of the audio stage.

Acoustic grid: 100 rows a second; row i is centred at (i + 0.5) * 10 ms, so it covers samples [160 i, 160 (i + 1)) of the
16 kHz mono signal. Rows before the first and after the last sample see digital silence.

Interface of one kind of feature: the model that computes rows, the shape of a frame's features, and runs of networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from services.common.array_types import Float32

if TYPE_CHECKING:
    from services.common.store.network_session import NetworkSession


SAMPLE_RATE_HZ: Final = 16_000
HOP_SAMPLES: Final = 160
ROWS_PER_SECOND: Final = 100
ROWS_PER_VIDEO_FRAME: Final = 4
NUM_MELS: Final = 80
NUM_CEPSTRA: Final = 20
MFCC_WIDTH: Final = 2 * NUM_CEPSTRA
"""20 cepstra, then their 20 deltas."""
_MAX_WINDOWS: Final = 64
"""Windows in one run of a network. The number bounds memory; more windows bring no speed."""


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


@dataclass(frozen=True, slots=True)
class SoundRows:
    """New sound of a stream: 16 kHz samples, and the rows of the acoustic grid that these samples complete.

    Attributes:
        samples: float32 [S].
        mel: float32 [R, 80], log-mel rows.
        cepstra: float32 [R, 20].
    """

    samples: Float32
    mel: Float32
    cepstra: Float32


class RowSource(Protocol):
    """Rows of one kind of feature in one stream. Rows are taken in blocks of four, in order and without gap."""

    def push(self, sound: SoundRows) -> None:
        """Take in new sound."""

    @property
    def num_ready(self) -> int:
        """Rows that can be computed from the sound so far and have not been taken yet."""

    def take(self, blocks: int) -> Float32:
        """Return the next blocks, float32 [blocks, 4, ...]; `num_ready` is at least 4 * `blocks`, and `blocks` at least 1."""


class FeatureModel(Protocol):
    """Model of one kind of feature. All streams of a process share the model."""

    @property
    def silence(self) -> Float32:
        """Four rows of digital silence, float32 [4, ...]: the rows before time zero."""

    def new_source(self) -> RowSource:
        """Return the rows of a new stream."""


def unchanged(rows: Float32) -> Float32:
    """Return the four rows of a frame as they are."""
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureKind:
    """One kind of feature.

    Attributes:
        name: name of the tensor in AudioFeatureBlock; FEATURE_KIND_<NAME> is the number in the contract.
        frame_shape: shape of one video frame's features, such as (4, 80).
        load: returns the loaded model, given the folder with the networks and the number of threads inside one run of a network.
            The number of threads does not change a bit of the answer. Raises ModelNotFoundError if the network's file is missing,
            and ArtefactCorruptError if the file is damaged.
        of_frame: makes a frame's features from the frame's four rows, float32 [4, ...].
    """

    name: str
    frame_shape: tuple[int, ...]
    load: Callable[[Path, int], FeatureModel]
    of_frame: Callable[[Float32], Float32] = unchanged


def run_windows(session: NetworkSession, output: str, windows: Float32) -> Float32:
    """Run a network of the input `cepstra` over windows, float32 [N, W, 20] with N >= 1, and return its output [N, 4, C].

    The exports refuse a network whose bits depend on the number of windows in a run, so batches may follow a stream's chunks.
    """
    parts = [
        session.run([output], {"cepstra": windows[start : start + _MAX_WINDOWS]})[0]
        for start in range(0, len(windows), _MAX_WINDOWS)
    ]
    return np.concatenate(parts)
