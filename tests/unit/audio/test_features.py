import numpy as np

from services.audio.features import MEL_FLOOR, SpectralStream, cepstra, deltas, spectral_rows
from services.common.array_types import Float32


def test_a_louder_signal_adds_its_gain_to_every_band(speech: Float32) -> None:
    rows = spectral_rows(speech)
    louder = spectral_rows(speech * np.float32(10.0))
    loud = rows > np.log(MEL_FLOOR) + 7.0
    assert loud.mean() > 0.2
    assert np.allclose((louder - rows)[loud], np.log(100.0), atol=2e-3)


def test_a_tone_peaks_in_the_band_of_its_frequency() -> None:
    time_s = np.arange(16000) / 16000
    peaks = [int(spectral_rows(np.sin(2 * np.pi * hz * time_s).astype(np.float32))[50].argmax()) for hz in (200, 1000, 4000)]
    mel = 2595 * np.log10(1 + np.array([20, 7600, 200, 1000, 4000]) / 700)
    expected = (mel[2:] - mel[0]) / (mel[1] - mel[0]) * 81 - 1
    assert np.abs(np.array(peaks) - expected).max() <= 1.0


def test_digital_silence_lies_on_the_floor() -> None:
    rows = spectral_rows(np.zeros(3200, np.float32))
    assert np.allclose(rows, np.log(MEL_FLOOR))
    assert np.allclose(cepstra(rows)[:, 1:], 0.0, atol=1e-5)


def test_rows_are_centred_on_their_time() -> None:
    click = np.zeros(8000, np.float32)
    click[25 * 160 + 80] = 1.0
    energy = np.exp(spectral_rows(click)).sum(axis=1)
    assert int(energy.argmax()) == 25
    assert np.isclose(energy[24], energy[26], rtol=0.05)


def test_deltas_of_a_ramp_are_its_slope() -> None:
    ramp = np.arange(30, dtype=np.float32)[:, None] * np.ones((1, 20), np.float32)
    assert np.allclose(deltas(ramp), 1.0)


def test_the_stream_gives_the_rows_of_the_whole(speech: Float32) -> None:
    stream = SpectralStream()
    rows = np.concatenate([stream.push(speech[start : start + 777]) for start in range(0, len(speech), 777)])
    assert len(rows) >= 290
    assert np.allclose(rows, spectral_rows(speech)[: len(rows)], atol=1e-4)
