"""Log-mel spectrum, cepstra and their deltas on the acoustic grid, and both as kinds of features.

    power   P[f] = |rfft(hann(400) * x)|^2, zero-padded to 512 points
    mel     M[b] = log(sum_f W[b, f] P[f] + FLOOR), W from librosa.filters.mel: 80 triangles of height 1, HTK mel scale,
            20 Hz to 7600 Hz
    cepstra C[k] = orthonormal DCT-II of M, k = 0..19 (what librosa.feature.mfcc computes)
    delta   d[i] = sum_{n=1,2} n (C[i+n] - C[i-n]) / 10 (librosa.feature.delta of width 5)

The window of row i is centred on the row: samples [160 i - 120, 160 i + 280). The paper's features: 20 MFCC + 20 temporal
derivatives (Song et al., Sec. IV, Preprocessing), here on a 10 ms grid.

docs/decisions/0008-librosa.md lists the functions of librosa that are used, and the measurements behind those that are not.
librosa and scipy take a second to import, so they are imported by the first row and not by this module.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from services.audio.types import (
    HOP_SAMPLES,
    MFCC_WIDTH,
    NUM_CEPSTRA,
    NUM_MELS,
    ROWS_PER_VIDEO_FRAME,
    SAMPLE_RATE_HZ,
    FeatureKind,
    SoundRows,
)
from services.common.array_types import Float32, Float64, Floating

WINDOW_SAMPLES: Final = 400
WINDOW_LEAD_SAMPLES: Final = (WINDOW_SAMPLES - HOP_SAMPLES) // 2
"""Samples of the window before the row's own first sample, and after its last."""
DELTA_CONTEXT_ROWS: Final = 2
_FFT_POINTS: Final = 512
LOWEST_HZ: Final = 20.0
HIGHEST_HZ: Final = 7600.0
MEL_FLOOR: Final = 1e-6
"""Band power of white noise near -85 dB full scale. No speech lies below this power."""
_GATE: Final = 5.0
"""Nats of mean log-mel below the loudest row (about 22 dB) down to which rows count as speech."""
_QUIETEST: Final = -11.0
"""Mean log-mel below which a row never counts: nearly digital silence."""


@functools.cache
def _window() -> Float64:
    """Return the analysis window, [400]."""
    from librosa.filters import get_window

    return np.asarray(get_window("hann", WINDOW_SAMPLES), dtype=np.float64)


@functools.cache
def mel_filters() -> Float64:
    """Return the weights of the mel bands, [80, 257]."""
    from librosa import mel_frequencies
    from librosa.filters import mel

    filters = mel(
        sr=SAMPLE_RATE_HZ,
        n_fft=_FFT_POINTS,
        n_mels=NUM_MELS,
        fmin=LOWEST_HZ,
        fmax=HIGHEST_HZ,
        htk=True,
        norm="slaney",
        dtype=np.float64,
    )
    # This norm divides each band by half its width in Hz, and the last line undoes the division. norm=None would not divide, but
    # with None librosa imports a module that numba compiles for eleven seconds.
    edges_hz = mel_frequencies(NUM_MELS + 2, fmin=LOWEST_HZ, fmax=HIGHEST_HZ, htk=True)
    return np.asarray(filters * ((edges_hz[2:] - edges_hz[:-2]) / 2.0)[:, None], dtype=np.float64)


def power_spectra(samples: Float32, points: int = _FFT_POINTS) -> Float64:
    """Return power spectra of the windows that start every 160 samples, [rows, points / 2 + 1]."""
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), WINDOW_SAMPLES)[::HOP_SAMPLES]
    spectrum = np.fft.rfft(frames * _window(), points, axis=1)
    return np.asarray(spectrum.real**2 + spectrum.imag**2)


def band_powers(power: Float64, filters: Float64) -> Float64:
    """Return the power of each band, [rows, 80]: power [rows, F], filters [80, F]. A row's bits do not depend on the other rows."""
    # A sum along the last axis has one order of additions; a matrix product's depends on its shape.
    return np.stack([(row * filters).sum(axis=1) for row in power])


def _log_mel(samples: Float32) -> Float32:
    """Return the log-mel rows of the windows that start every 160 samples, float32 [rows, 80]."""
    return np.log(band_powers(power_spectra(samples), mel_filters()) + MEL_FLOOR).astype(np.float32)


def cepstra(mel: Float32) -> Float32:
    """Return cepstra of log-mel rows, [rows, 80] -> [rows, 20] float32."""
    from scipy.fft import dct

    coefficients = np.empty((len(mel), NUM_CEPSTRA), np.float32)
    # Rows are transformed one at a time: scipy transforms groups of rows with vector instructions and the remaining rows without
    # them.
    for index, row in enumerate(mel.astype(np.float64)):
        coefficients[index] = dct(row, type=2, norm="ortho")[:NUM_CEPSTRA]
    return coefficients


def silent_rows(rows: int) -> Float32:
    """Return the cepstra of digital silence, float32 [rows, 20]."""
    silence = np.zeros((rows, NUM_CEPSTRA), np.float32)
    silence[:, 0] = np.float32(np.log(MEL_FLOOR) * np.sqrt(NUM_MELS))
    return silence


def loud_rows(context: Floating) -> Float64:
    """Return which rows of cepstra [N, 20] count as speech: 1 where the mean log-mel is near that of the loudest row, else 0."""
    level = context[:, 0] / np.sqrt(float(NUM_MELS))
    return np.asarray(level > max(float(level.max()) - _GATE, _QUIETEST), np.float64)


def deltas(rows: Float32) -> Float32:
    """Return deltas of cepstral rows that carry two rows of margin at both ends, [2 + rows + 2, 20] -> [rows, 20] float32."""
    from librosa.feature import delta

    moved = delta(rows, width=2 * DELTA_CONTEXT_ROWS + 1, axis=0, mode="nearest")
    # The rows of the margin lack neighbours.
    return np.asarray(moved[DELTA_CONTEXT_ROWS:-DELTA_CONTEXT_ROWS], dtype=np.float32)


class SpectralStream:
    """16 kHz samples in, spectral rows out as soon as each is complete: 120 samples (7.5 ms) after its last sample.

    Args:
        rows: returns the rows of the windows that start every 160 samples, float32 [S] -> float32 [rows, 80]; a row's bits do not
            depend on the other rows.
    """

    def __init__(self, rows: Callable[[Float32], Float32] = _log_mel) -> None:
        self._rows = rows
        self._pending: Float32 = np.zeros(WINDOW_LEAD_SAMPLES, np.float32)

    def push(self, samples: Float32) -> Float32:
        """Return the rows that new samples complete, float32 [rows, 80]. A row has the same bits for all cuts into chunks."""
        self._pending = np.concatenate([self._pending, samples])
        rows = max(0, (len(self._pending) - 2 * WINDOW_LEAD_SAMPLES) // HOP_SAMPLES)
        if not rows:
            return np.zeros((0, NUM_MELS), np.float32)
        mel = self._rows(self._pending[: rows * HOP_SAMPLES + 2 * WINDOW_LEAD_SAMPLES])
        self._pending = self._pending[rows * HOP_SAMPLES :].copy()
        return mel


class MelRows:
    """Log-mel rows of one stream."""

    def __init__(self) -> None:
        self._rows: Float32 = np.zeros((0, NUM_MELS), np.float32)

    def push(self, sound: SoundRows) -> None:
        """Take in new sound."""
        self._rows = np.concatenate([self._rows, sound.mel])

    @property
    def num_ready(self) -> int:
        """Rows that have not been taken yet."""
        return len(self._rows)

    def take(self, blocks: int) -> Float32:
        """Return the next blocks, float32 [blocks, 4, 80]."""
        count = blocks * ROWS_PER_VIDEO_FRAME
        taken, self._rows = self._rows[:count], self._rows[count:].copy()
        return taken.reshape(blocks, ROWS_PER_VIDEO_FRAME, NUM_MELS)


class MfccRows:
    """Cepstra and deltas of one stream. A row's delta needs two rows after the row."""

    def __init__(self) -> None:
        # The cepstra begin two rows before the next block.
        self._rows = silent_rows(DELTA_CONTEXT_ROWS)

    def push(self, sound: SoundRows) -> None:
        """Take in new sound."""
        self._rows = np.concatenate([self._rows, sound.cepstra])

    @property
    def num_ready(self) -> int:
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


MEL: Final = FeatureKind(name="mel", frame_shape=(ROWS_PER_VIDEO_FRAME, NUM_MELS), load=_mel)
"""Natural logarithm of mel band power."""
MFCC: Final = FeatureKind(name="mfcc", frame_shape=(ROWS_PER_VIDEO_FRAME, MFCC_WIDTH), load=_mfcc)
"""20 cepstra, then their 20 deltas."""
