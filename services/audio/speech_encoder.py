"""Speech encoder: states of the first blocks of Whisper as kinds of features, in windows at fixed frames, on ONNX Runtime.

The input is Whisper's log mel on the acoustic grid:

    power   P[f] = |rfft(hann(400) * x)|^2, 400 points
    mel     M[b] = sum_f W[b, f] P[f], W from librosa.filters.mel: 80 triangles of equal area, Slaney's mel scale, 0 to 8 kHz
    log mel L[b] = log10(max(M[b], 1e-10))

Whisper centres a window on a multiple of 10 ms, the acoustic grid on the middle between two multiples: only the position of time
zero differs. The network cuts and scales L by the loudest band of its window (research/audio/speech_encoder.py), so L itself
needs no context.

A window answers its frames from frames before and after them. Windows lie at fixed frames of 40 ms of the acoustic grid, so the
same sound in other pieces gives the same bytes:

    kind                   answered frames   before   after   context ends at most
    speech_states                       50       75      15   2.6 s after its end (files: a window answers two seconds)
    speech_states_live                   2       26     1.5   100 ms after its end

and 10 ms more: half an analysis window (7.5 ms) and the resampler (less than 2.5 ms). The network makes two states of 20 ms for a
frame. A frame's features are their mean. Before and after the sound there is digital silence.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import numpy as np

from services.audio.spectral import SpectralStream, band_powers, power_spectra
from services.audio.types import NUM_MELS, ROWS_PER_VIDEO_FRAME, SAMPLE_RATE_HZ, FeatureKind, SoundRows
from services.common.array_types import Float32, Float64
from services.common.store.network_session import open_network

_FFT_POINTS: Final = 400
_FLOOR: Final = 1e-10
SILENCE: Final = -10.0
"""L of digital silence."""
NUM_STATES: Final = 192
"""Numbers of a state: 96 of block 2, then 96 of block 3, each the projection on the principal components of speech."""
STATE_ROWS: Final = 2
"""Rows of the acoustic grid that one state covers."""
MODEL_FILE: Final = "speech_encoder.onnx"


@functools.cache
def _filters() -> Float64:
    """Return the weights of the mel bands, [80, 201]."""
    from librosa.filters import mel

    return np.asarray(mel(sr=SAMPLE_RATE_HZ, n_fft=_FFT_POINTS, n_mels=NUM_MELS, dtype=np.float64), dtype=np.float64)


def log_mel(samples: Float32) -> Float32:
    """Return L of the windows that start every 160 samples: float32 [S] -> float32 [rows, 80]."""
    bands = band_powers(power_spectra(samples, _FFT_POINTS), _filters())
    return np.log10(np.maximum(bands, _FLOOR)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """One window.

    Attributes:
        past: frames of 40 ms before the answered frames.
        rows_ahead: rows of the acoustic grid (10 ms) after the answered frames; a multiple of STATE_ROWS.
    """

    past: int
    answered: int
    rows_ahead: int

    @property
    def rows(self) -> int:
        """Rows of the acoustic grid in a window."""
        return (self.past + self.answered) * ROWS_PER_VIDEO_FRAME + self.rows_ahead


FILES: Final = WindowPlan(past=75, answered=50, rows_ahead=60)
LIVE: Final = WindowPlan(past=26, answered=2, rows_ahead=6)


class EncoderNetwork:
    """The exported encoder. Both kinds of a process share it.

    Args:
        path: the ONNX file.
        threads: threads inside one run.

    Raises:
        ModelNotFoundError: the file is missing.
        ArtefactCorruptError: the file is damaged.
    """

    _loaded: Final[WeakValueDictionary[tuple[Path, int], EncoderNetwork]] = WeakValueDictionary()
    _lock: Final = threading.Lock()

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._session = open_network(path, threads)

    @classmethod
    def shared(cls, path: Path, threads: int) -> EncoderNetwork:
        """Return the network of a file, which is loaded once as long as somebody uses the network."""
        with cls._lock:
            network = cls._loaded.get((path, threads))
            if network is None:
                network = cls._loaded[path, threads] = cls(path, threads)
            return network

    def run(self, window: Float32) -> Float32:
        """Return the states of one window: float32 [R, 80], see log_mel; R even -> float32 [R / 2, 192]."""
        return np.asarray(self._session.run(["states"], {"log_mel": window[None]})[0][0], np.float32)


class SpeechStateModel:
    """The loaded encoder with a plan of windows. Further arguments and errors: see FeatureKind.load."""

    def __init__(self, plan: WindowPlan, weights: Path, threads: int = 1) -> None:
        self.plan = plan
        self._network = EncoderNetwork.shared(weights / MODEL_FILE, threads)

    @cached_property
    def silence(self) -> Float32:
        """Four rows of a window of digital silence, float32 [4, 192]."""
        return np.asarray(self.answered(np.full((self.plan.rows, NUM_MELS), SILENCE, np.float32))[0])

    def answered(self, window: Float32) -> Float32:
        """Return the answered frames of a window: float32 [plan.rows, 80] -> float32 [plan.answered, 4, 192].

        Each call runs one window: the bits of a batched matrix product may depend on the size of the batch. Two neighbouring rows
        share a state.
        """
        first, count = (frames * ROWS_PER_VIDEO_FRAME // STATE_ROWS for frames in (self.plan.past, self.plan.answered))
        rows = np.repeat(self._network.run(window)[first : first + count], STATE_ROWS, axis=0)
        return rows.reshape(self.plan.answered, ROWS_PER_VIDEO_FRAME, NUM_STATES)

    def new_source(self) -> SpeechStateRows:
        """Return the rows of a new stream."""
        return SpeechStateRows(self)


class SpeechStateRows:
    """States of one stream. Equal windows in a row (a long silence) are run once."""

    def __init__(self, model: SpeechStateModel) -> None:
        self._model = model
        self._spectral = SpectralStream(log_mel)
        # The rows begin at the next window.
        self._rows: Float32 = np.full((model.plan.past * ROWS_PER_VIDEO_FRAME, NUM_MELS), SILENCE, np.float32)
        self._ready: deque[Float32] = deque()
        self._last_window = b""
        self._last_answer: Float32 = np.zeros((0, ROWS_PER_VIDEO_FRAME, NUM_STATES), np.float32)

    def push(self, sound: SoundRows) -> None:
        """Take in new sound."""
        self._rows = np.concatenate([self._rows, self._spectral.push(sound.samples)])

    @property
    def num_ready(self) -> int:
        """Rows of whole windows that have not been taken yet."""
        plan = self._model.plan
        spare = len(self._rows) - plan.past * ROWS_PER_VIDEO_FRAME - plan.rows_ahead
        windows = max(0, spare // (plan.answered * ROWS_PER_VIDEO_FRAME))
        return (len(self._ready) + windows * plan.answered) * ROWS_PER_VIDEO_FRAME

    def take(self, blocks: int) -> Float32:
        """Return the next blocks, float32 [blocks, 4, 192]. A window is run when its first block is taken."""
        plan = self._model.plan
        while len(self._ready) < blocks:
            window = self._rows[: plan.rows]
            key = window.tobytes()
            if key != self._last_window:
                self._last_window, self._last_answer = key, self._model.answered(window)
            self._ready.extend(self._last_answer)
            self._rows = self._rows[plan.answered * ROWS_PER_VIDEO_FRAME :].copy()
        return np.stack([self._ready.popleft() for _ in range(blocks)])


def _mean(rows: Float32) -> Float32:
    return np.asarray(rows.mean(axis=0), np.float32)


SPEECH_STATES: Final = FeatureKind(
    name="speech_states", frame_shape=(NUM_STATES,), load=partial(SpeechStateModel, FILES), of_frame=_mean
)
"""States of the speech encoder for speech that is there as a whole."""
SPEECH_STATES_LIVE: Final = FeatureKind(
    name="speech_states_live", frame_shape=(NUM_STATES,), load=partial(SpeechStateModel, LIVE), of_frame=_mean
)
"""States of the speech encoder for speech that is still to come."""
