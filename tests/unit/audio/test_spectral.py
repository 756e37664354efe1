"""Log-mel rows, cepstra and deltas against their formulas, written out here, and published values."""

from __future__ import annotations

import numpy as np
import pytest

from services.audio.spectral import MEL_FLOOR, WINDOW_LEAD_SAMPLES, SpectralStream, cepstra, deltas, loud_rows
from services.common.array_types import Float32

RATE_HZ = 16_000
HANN = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
EDGES_HZ = 700.0 * (10.0 ** (np.linspace(2595 * np.log10(1 + 20 / 700), 2595 * np.log10(1 + 7600 / 700), 82) / 2595) - 1.0)
"""Lower edge, centre and upper edge of band b are EDGES_HZ[b], [b + 1] and [b + 2] (mel scale of the HTK Book)."""


def spectral_rows(samples: Float32) -> Float32:
    """Return the rows of a whole recording with silence after it, float32 [samples // 160, 80]."""
    return SpectralStream().push(np.concatenate([samples, np.zeros(WINDOW_LEAD_SAMPLES, np.float32)]))


def bands(samples: Float32) -> np.ndarray:
    """Power of the bands, without floor and logarithm."""
    return np.exp(spectral_rows(samples).astype(np.float64)) - MEL_FLOOR


def tone(hz: float) -> Float32:
    return np.sin(2 * np.pi * hz * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)


def by_definition(samples: Float32, row: int) -> np.ndarray:
    """One log-mel row by the sums of the definition: a slow Fourier transform, and triangles point by point."""
    begin = 160 * row - 120
    windowed = samples[begin : begin + 400].astype(np.float64) * HANN
    found = np.zeros(80)
    for frequency in range(257):
        angles = 2 * np.pi * frequency * np.arange(400) / 512
        power = (windowed @ np.cos(angles)) ** 2 + (windowed @ np.sin(angles)) ** 2
        hz = frequency * RATE_HZ / 512
        for band in range(80):
            lower, centre, upper = EDGES_HZ[band : band + 3]
            if lower < hz <= centre:
                found[band] += power * (hz - lower) / (centre - lower)
            elif centre < hz < upper:
                found[band] += power * (upper - hz) / (upper - centre)
    return np.log(found + 1e-6)


def test_rows_of_speech_are_those_of_the_definition(speech: Float32) -> None:
    rows = spectral_rows(speech)
    for row in (60, 150):
        np.testing.assert_allclose(rows[row], by_definition(speech, row), rtol=0.0, atol=1e-5)


def test_gain_shifts_every_band(speech: Float32) -> None:
    """A louder signal adds its gain to every band."""
    rows = spectral_rows(speech)
    louder = spectral_rows(speech * np.float32(10.0))
    loud = rows > np.log(MEL_FLOOR) + 7.0
    assert loud.mean() > 0.2
    assert np.allclose((louder - rows)[loud], np.log(100.0), atol=2e-3)


# On HTK's mel scale 1000 Hz are 1000 mel, and the bands lie between 31.7 mel (20 Hz) and 2787.0 mel (7600 Hz).
@pytest.mark.parametrize(("hz", "mel"), [(200, 283.2), (1000, 1000.0), (4000, 2146.1)])
def test_tone_peaks_in_its_band(hz: int, mel: float) -> None:
    """A tone peaks in the band of its frequency."""
    lowest, highest = 31.7, 2787.0
    nearest = round((mel - lowest) / (highest - lowest) * 81) - 1
    assert abs(int(spectral_rows(tone(hz))[50].argmax()) - nearest) <= 1
    assert EDGES_HZ[nearest] < hz < EDGES_HZ[nearest + 2]


def test_bands_preserve_power() -> None:
    """Neighbouring triangles sum to 1. By Parseval the power of a tone is half the points times the energy under the window."""
    whole = 512 / 2 * np.sum(HANN**2) / 2
    for hz in (300.0, 1010.0, 2500.0, 5000.0):
        assert np.isclose(bands(tone(hz))[50].sum(), whole, rtol=1e-3)


def test_a_flat_spectrum_gives_each_band_its_width() -> None:
    """The power spectrum of a click at the middle of a window is 1 everywhere, so a band holds the area of its triangle."""
    click = np.zeros(8000, np.float32)
    click[25 * 160 + 80] = 1.0
    area = (EDGES_HZ[2:] - EDGES_HZ[:-2]) / 2 / (RATE_HZ / 512)
    # From band 50 on a triangle is wide enough for its area to be the sum over its points.
    np.testing.assert_allclose(bands(click)[25, 50:], area[50:], rtol=0.03)


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


def test_each_cosine_over_the_bands_is_one_cepstrum() -> None:
    """The transform is orthonormal: row k is the k-th cosine of unit length, and its cepstra are the k-th unit vector."""
    cosines = np.cos(np.pi / 80 * np.outer(np.arange(24), np.arange(80) + 0.5)) * np.sqrt(2 / 80)
    cosines[0] /= np.sqrt(2)
    np.testing.assert_allclose(cepstra(cosines.astype(np.float32)), np.eye(24, 20), atol=1e-6)


def test_deltas_of_a_ramp_are_its_slope() -> None:
    ramp = np.arange(30, dtype=np.float32)[:, None] * np.ones((1, 20), np.float32)
    assert np.allclose(deltas(ramp), 1.0)


def test_deltas_are_two_row_regression() -> None:
    """The delta of the HTK Book, with a window of 2."""
    rows = np.random.default_rng(1).normal(0, 10, (40, 20)).astype(np.float32)
    expected = [sum(n * (rows[i + n].astype(np.float64) - rows[i - n]) for n in (1, 2)) / 10 for i in range(2, 38)]
    np.testing.assert_allclose(deltas(rows), np.array(expected), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("cut", [1, 3, 4, 7, 16])
def test_pieces_change_no_bit(speech: Float32, cut: int) -> None:
    samples = speech[:16_000]
    rows = SpectralStream().push(samples)
    stream = SpectralStream()
    pieces = [stream.push(samples[start : start + 160 * cut]) for start in range(0, len(samples), 160 * cut)]
    assert np.concatenate(pieces).tobytes() == rows.tobytes()
    still = cepstra(rows)
    assert np.concatenate([cepstra(rows[start : start + cut]) for start in range(0, len(rows), cut)]).tobytes() == still.tobytes()
    inner = len(still) - 4
    moved = [deltas(still[start : min(start + cut, inner) + 4]) for start in range(0, inner, cut)]
    assert np.concatenate(moved).tobytes() == deltas(still).tobytes()


@pytest.mark.parametrize(
    ("levels", "loud"), [([-2.0, -6.9, -7.1, 1.0], [1, 0, 0, 1]), ([-10.9, -11.1, -8.0], [1, 0, 1]), ([-11.1, -13.0], [0, 0])]
)
def test_loud_rows_are_near_the_loudest(levels: list[float], loud: list[int]) -> None:
    """Rows within 5 nats of the loudest row are loud, and no row whose mean log-mel is below -11."""
    rows = cepstra(np.repeat(np.array(levels, np.float32)[:, None], 80, axis=1))
    assert loud_rows(rows).tolist() == loud
