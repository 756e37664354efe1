"""The features against an independent implementation, on real speech."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from services.audio.features import WINDOW_LEAD_SAMPLES, cepstra, spectral_rows
from services.audio.types import HOP_SAMPLES, NUM_CEPSTRA, NUM_MELS, SAMPLE_RATE_HZ

SPEECH = Path(__file__).parents[2] / "assets" / "demo_speech.wav"
FFT_POINTS = 512


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    samples, rate = soundfile.read(SPEECH, dtype="float32")
    assert rate == SAMPLE_RATE_HZ
    return samples[: 3 * SAMPLE_RATE_HZ]


@pytest.fixture(scope="module")
def log_mel(speech: np.ndarray) -> np.ndarray:
    """librosa's log-mel on the same windows: it centres the 400-sample window in the FFT's 512 points."""
    lead = WINDOW_LEAD_SAMPLES + (FFT_POINTS - 400) // 2
    power = librosa.feature.melspectrogram(
        y=np.pad(speech, (lead, lead)),
        sr=SAMPLE_RATE_HZ,
        n_fft=FFT_POINTS,
        win_length=400,
        hop_length=HOP_SAMPLES,
        center=False,
        n_mels=NUM_MELS,
        fmin=20.0,
        fmax=7600.0,
        htk=True,
        norm=None,
    )
    return np.log(power.T + 1e-6)


def test_the_mel_spectrogram_agrees_but_for_the_shape_of_the_triangles(speech: np.ndarray, log_mel: np.ndarray) -> None:
    # Ours are straight on the mel axis, as HTK's, librosa's on the frequency axis; where a band is narrower than a bin that counts.
    ours = spectral_rows(speech)
    assert ours.shape == log_mel[: len(ours)].shape
    wide = slice(30, None)
    difference = np.abs(ours - log_mel[: len(ours)])[:, wide]
    assert np.median(difference) < 0.05
    assert np.corrcoef(ours[:, wide].ravel(), log_mel[: len(ours), wide].ravel())[0, 1] > 0.999


def test_the_cepstra_are_librosa_s_of_the_same_mel_spectrogram(speech: np.ndarray) -> None:
    ours = spectral_rows(speech)
    expected = librosa.feature.mfcc(S=ours.T, n_mfcc=NUM_CEPSTRA, dct_type=2, norm="ortho").T
    np.testing.assert_allclose(cepstra(ours), expected, atol=2e-3)
