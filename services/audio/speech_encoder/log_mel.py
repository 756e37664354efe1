"""Input of the speech encoder: Whisper's log mel on the acoustic grid.

    power   P[f] = |rfft(hann(400) * x)|^2, 400 points
    mel     M[b] = sum_f W[b, f] P[f], W from librosa.filters.mel: 80 triangles of equal area, Slaney's mel scale, 0 to 8 kHz
    log mel L[b] = log10(max(M[b], 1e-10))

Whisper centres a window on a multiple of 10 ms, the acoustic grid on the middle between two multiples: only the position of time
zero differs. The network cuts and scales L by the loudest band of its window (network.py), so L itself needs no context.
"""

from __future__ import annotations

import functools
from typing import Final

import numpy as np

from services.audio.features import band_powers, power_spectra
from services.audio.types import NUM_MELS, SAMPLE_RATE_HZ
from services.common.array_types import Float32, Float64

_FFT_POINTS: Final = 400
_FLOOR: Final = 1e-10
SILENCE: Final = -10.0
"""L of digital silence."""


@functools.cache
def _filters() -> Float64:
    """Return the weights of the mel bands, [80, 201]."""
    from librosa.filters import mel

    return np.asarray(mel(sr=SAMPLE_RATE_HZ, n_fft=_FFT_POINTS, n_mels=NUM_MELS, dtype=np.float64), dtype=np.float64)


def log_mel(samples: Float32) -> Float32:
    """Return L of the windows that start every 160 samples: float32 [S] -> float32 [rows, 80]."""
    bands = band_powers(power_spectra(samples, _FFT_POINTS), _filters())
    return np.log10(np.maximum(bands, _FLOOR)).astype(np.float32)
