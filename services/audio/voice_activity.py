"""Speech probability as a kind of feature: Silero VAD 6.2.3 (MIT licence, weights/silero_vad.LICENSE) on ONNX Runtime."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from services.audio.types import HOP_SAMPLES, ROWS_PER_VIDEO_FRAME, SAMPLE_RATE_HZ, FeatureKind, SoundRows
from services.common.array_types import Float32
from services.common.store.network_session import NetworkSession, open_network

CHUNK_SAMPLES: Final = 512
"""Samples of one decision of the voice activity detector: 32 ms."""
_CONTEXT_SAMPLES: Final = 64
STATE_SHAPE: Final = (1, 1, 128)
STATE_CHUNKS: Final = 125
"""Chunks from one state to the next: 4 s, which is a whole number of chunks, of rows and of windows of the speech encoder."""
STATE_S: Final = STATE_CHUNKS * CHUNK_SAMPLES // SAMPLE_RATE_HZ
"""Seconds from one state to the next."""


class VoiceState(NamedTuple):
    """State of the detector.

    Attributes:
        second: instant of the state, a multiple of STATE_S.
        hidden, cell: float32 [1, 1, 128], recurrent state of the network.
    """

    second: int
    hidden: Float32
    cell: Float32


class VoiceDetector:
    """Speech probability of consecutive chunks of 512 samples; keeps the network's recurrent state for one stream."""

    def __init__(self, session: NetworkSession) -> None:
        self._session = session
        self.hidden = np.zeros(STATE_SHAPE, np.float32)
        self.cell = np.zeros(STATE_SHAPE, np.float32)
        self._context = np.zeros(_CONTEXT_SAMPLES, np.float32)

    def chunks(self, samples: Float32) -> Float32:
        """Return probabilities of the next chunks: float32 [n * 512] at 16 kHz -> float32 [n] in [0, 1], n >= 1."""
        probabilities = []
        for chunk in samples.reshape(-1, CHUNK_SAMPLES):
            if not chunk.any() and not self._context.any():
                # Digital silence is no speech. The state stays, so that the silence does not change how later speech is judged.
                probabilities.append(np.zeros(1, np.float32))
                continue
            window = np.concatenate([self._context, chunk])[None]
            probability, self.hidden, self.cell = self._session.run(
                ["speech_probs", "hn", "cn"], {"input": window, "h": self.hidden, "c": self.cell}
            )
            self._context = chunk[-_CONTEXT_SAMPLES:].copy()
            probabilities.append(probability)
        return np.concatenate(probabilities)

    def skip(self, chunk: Float32) -> None:
        """Take in a chunk, float32 [512], that the recurrent state knows already."""
        self._context = chunk[-_CONTEXT_SAMPLES:].copy()


class VoiceRows:
    """Speech probability of the rows of one stream. A chunk's probability is given to the rows whose centre lies in the chunk.

    Attributes:
        states: the last states of the detector at multiples of STATE_S, ascending. A reader takes them out.
    """

    def __init__(self, session: NetworkSession) -> None:
        self._detector = VoiceDetector(session)
        self._pending: Float32 = np.zeros(0, np.float32)
        self._rows: deque[float] = deque()
        self._chunks = 0
        self._next_row = 0
        self._first_chunk = self._num_skipped = 0
        self.states: deque[VoiceState] = deque(maxlen=4)

    def resume(self, state: VoiceState) -> None:
        """Go on from a state. The sound begins STATE_S before the state, and the rows before the state are 0."""
        self._detector.hidden, self._detector.cell = state.hidden, state.cell
        self._num_skipped = STATE_CHUNKS
        self._first_chunk = (state.second // STATE_S - 1) * STATE_CHUNKS

    def push(self, sound: SoundRows) -> None:
        """Take in new sound."""
        self._pending = np.concatenate([self._pending, sound.samples])
        whole = len(self._pending) // CHUNK_SAMPLES
        if not whole:
            return
        cut = whole * CHUNK_SAMPLES
        for chunk in self._pending[:cut].reshape(-1, CHUNK_SAMPLES):
            probability = self._probability(chunk)
            while self._next_row * HOP_SAMPLES + HOP_SAMPLES // 2 < self._chunks * CHUNK_SAMPLES:
                self._rows.append(probability)
                self._next_row += 1
        self._pending = self._pending[cut:].copy()

    def _probability(self, chunk: Float32) -> float:
        self._chunks += 1
        if self._chunks <= self._num_skipped:
            self._detector.skip(chunk)
            return 0.0
        probability = float(self._detector.chunks(chunk)[0])
        if self._chunks % STATE_CHUNKS == 0:
            second = (self._first_chunk + self._chunks) // STATE_CHUNKS * STATE_S
            self.states.append(VoiceState(second, self._detector.hidden, self._detector.cell))
        return probability

    @property
    def num_ready(self) -> int:
        """Rows that have not been taken yet."""
        return len(self._rows)

    def take(self, blocks: int) -> Float32:
        """Return the next blocks, float32 [blocks, 4]."""
        rows = [self._rows.popleft() for _ in range(blocks * ROWS_PER_VIDEO_FRAME)]
        return np.array(rows, np.float32).reshape(blocks, ROWS_PER_VIDEO_FRAME)


class VoiceModel:
    """The loaded detector.

    Args:
        weights: folder with silero_vad.onnx.

    Raises:
        ModelNotFoundError: the file is missing.
        ArtefactCorruptError: the file is damaged.
    """

    silence: Final[Float32] = np.zeros(ROWS_PER_VIDEO_FRAME, np.float32)

    def __init__(self, weights: Path) -> None:
        # A chunk is too small for more than one thread.
        self._session = open_network(weights / "silero_vad.onnx", 1)

    def new_source(self) -> VoiceRows:
        """Return the rows of a new stream."""
        return VoiceRows(self._session)


def _load(weights: Path, threads: int) -> VoiceModel:
    return VoiceModel(weights)


def _mean(rows: Float32) -> Float32:
    return np.asarray(rows.mean())


SPEECH_PROBABILITY: Final = FeatureKind(name="speech_probability", frame_shape=(), load=_load, of_frame=_mean)
"""Probability that somebody speaks, one number per frame: the mean of the frame's four rows."""
