"""Log-mel spectrum, cepstra and their deltas on the acoustic grid; used by training and by serving.

    power   P[f] = |rfft(hann(400) * x)|^2, zero-padded to 512 points
    mel     M[b] = log(sum_f W[b, f] P[f] + FLOOR), 80 triangular bands, 20 Hz to 7600 Hz (HTK mel scale)
    cepstra C[k] = orthonormal DCT-II of M, k = 0..19
    delta   d[i] = sum_{n=1,2} n (C[i+n] - C[i-n]) / 10

The window of row i is centred on the row: samples [160 i - 120, 160 i + 280). The paper's features: 20 MFCC + 20 temporal
derivatives (Song et al., Sec. IV, Preprocessing), here on a 10 ms grid.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from services.audio.types import HOP_SAMPLES, NUM_CEPSTRA, NUM_MELS, SAMPLE_RATE_HZ
from services.common.array_types import Float32

WINDOW_SAMPLES: Final = 400
WINDOW_LEAD_SAMPLES: Final = (WINDOW_SAMPLES - HOP_SAMPLES) // 2
"""Samples of the window before the row's own first sample, and after its last."""
DELTA_CONTEXT_ROWS: Final = 2
_FFT_POINTS: Final = 512
MEL_FLOOR: Final = 1e-6
"""Band power of white noise near -85 dB full scale. No speech lies below this power."""


def _mel_filters() -> npt.NDArray[np.float64]:
    def to_mel(hz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0))

    lowest, highest = to_mel(np.array([20.0, 7600.0])).tolist()
    edges_mel = np.linspace(lowest, highest, NUM_MELS + 2)
    bins_mel = to_mel(np.arange(_FFT_POINTS // 2 + 1) * SAMPLE_RATE_HZ / _FFT_POINTS)
    rising = (bins_mel[None] - edges_mel[:-2, None]) / (edges_mel[1:-1] - edges_mel[:-2])[:, None]
    falling = (edges_mel[2:, None] - bins_mel[None]) / (edges_mel[2:] - edges_mel[1:-1])[:, None]
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)).T)


def _dct() -> npt.NDArray[np.float64]:
    angles = np.pi / NUM_MELS * (np.arange(NUM_MELS)[:, None] + 0.5) * np.arange(NUM_CEPSTRA)[None]
    basis = np.cos(angles) * np.sqrt(2.0 / NUM_MELS)
    basis[:, 0] *= np.sqrt(0.5)
    return np.asarray(basis)


_WINDOW: Final = np.hanning(WINDOW_SAMPLES + 1)[:-1]
_MEL_ROWS: Final = np.ascontiguousarray(_mel_filters().T)
_DCT_ROWS: Final = np.ascontiguousarray(_dct().T)


def _power(samples: Float32) -> npt.NDArray[np.float64]:
    """Return power spectra of the windows that start every 160 samples, [rows, 257]."""
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), WINDOW_SAMPLES)[::HOP_SAMPLES]
    spectrum = np.fft.rfft(frames * _WINDOW, _FFT_POINTS, axis=1)
    return np.asarray(spectrum.real**2 + spectrum.imag**2)


def cepstra(mel: Float32) -> Float32:
    """Return cepstra of log-mel rows, [rows, 80] -> [rows, 20] float32."""
    return np.asarray((mel.astype(np.float64)[:, None, :] * _DCT_ROWS).sum(axis=2), dtype=np.float32)


def silent_rows(rows: int) -> Float32:
    """Return the cepstra of digital silence, float32 [rows, 20]."""
    silence = np.zeros((rows, NUM_CEPSTRA), np.float32)
    silence[:, 0] = np.float32(np.log(MEL_FLOOR) * np.sqrt(NUM_MELS))
    return silence


def deltas(rows: Float32) -> Float32:
    """Return deltas of cepstral rows that carry two rows of margin at both ends, [2 + rows + 2, 20] -> [rows, 20] float32."""
    inner = len(rows) - 2 * DELTA_CONTEXT_ROWS
    near = rows[3 : 3 + inner] - rows[1 : 1 + inner]
    far = rows[4 : 4 + inner] - rows[:inner]
    return np.asarray((near + 2.0 * far) / 10.0, dtype=np.float32)


class SpectralStream:
    """16 kHz samples in, log-mel rows out as soon as each is complete: 120 samples (7.5 ms) after its last sample."""

    def __init__(self) -> None:
        self._pending: Float32 = np.zeros(WINDOW_LEAD_SAMPLES, np.float32)

    def push(self, samples: Float32) -> Float32:
        """Return the rows that new samples complete, float32 [rows, 80]. A row has the same bits for all cuts into chunks."""
        self._pending = np.concatenate([self._pending, samples])
        rows = max(0, (len(self._pending) - 2 * WINDOW_LEAD_SAMPLES) // HOP_SAMPLES)
        if not rows:
            return np.zeros((0, NUM_MELS), np.float32)
        power = _power(self._pending[: rows * HOP_SAMPLES + 2 * WINDOW_LEAD_SAMPLES])
        self._pending = self._pending[rows * HOP_SAMPLES :].copy()
        # A sum along the last axis has one order of additions; a matrix product's depends on its shape.
        bands = np.stack([(row * _MEL_ROWS).sum(axis=1) for row in power])
        return np.log(bands + MEL_FLOOR).astype(np.float32)


def spectral_rows(samples: Float32) -> Float32:
    """Return log-mel of a whole recording with silence around it, [samples // 160, 80] float32.

    For training sets. The rows equal the stream's rows up to the last bits of rounding.
    """
    rows = len(samples) // HOP_SAMPLES
    margin = np.zeros(WINDOW_LEAD_SAMPLES, np.float32)
    power = _power(np.concatenate([margin, samples[: rows * HOP_SAMPLES], margin]))
    return np.log(power @ _MEL_ROWS.T + MEL_FLOOR).astype(np.float32)
