"""Music and effects under speech: length, places, ducking, no clipping."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from gateway.media.mix import SoundMix, mixed
from gateway.media.sound import Speech

Samples = npt.NDArray[np.float32]
RATE = 16000


def sound(samples: Samples, rate: int = RATE, chunk: int = 5000) -> Speech:
    return Speech(rate, samples.shape[1], [samples[begin : begin + chunk] for begin in range(0, len(samples), chunk)])


def noise(seconds: float, rate: int = RATE, channels: int = 1, loud: float = 0.1) -> Samples:
    shape = (round(seconds * rate), channels)
    return np.asarray(loud * np.random.default_rng(len(shape)).uniform(-1, 1, shape), np.float32)


def silence(seconds: float, rate: int = RATE, channels: int = 1) -> Samples:
    return np.zeros((round(seconds * rate), channels), np.float32)


def heard(speech: Speech, stem: Speech, seconds: Fraction, level_db: float = 0.0, duck_db: float = 0.0) -> tuple[Samples, float]:
    """The whole mixed sound, and by how many decibels all sound is quieter."""
    found = mixed(speech, stem, SoundMix(file=Path("stem.wav"), level_db=level_db, duck_db=duck_db), seconds)
    first, second = (np.concatenate([*found.sound.chunks]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    return first, found.scale_db


@pytest.mark.parametrize("rates", [(16000, 48000), (44100, 22050), (48000, 48000)])
@pytest.mark.parametrize("seconds", [Fraction(1, 25), Fraction(1), Fraction(61, 24)])
def test_length_to_the_sample(rates: tuple[int, int], seconds: Fraction) -> None:
    """Sound ends with the video, whether speech and stem are shorter or longer."""
    for spoken, played in ((0.5, 2.0), (4.0, 0.7)):
        speech, stem = sound(noise(spoken, rates[0]), rates[0]), sound(noise(played, rates[1], 2), rates[1])
        samples, _ = heard(speech, stem, seconds)
        assert samples.shape == (round(seconds * max(rates)), 2)


def test_silent_stem_keeps_speech() -> None:
    speech = noise(1.3)
    samples, scale_db = heard(sound(speech), sound(silence(2)), Fraction(13, 10), duck_db=9)
    np.testing.assert_array_equal(samples, speech)
    assert scale_db == 0


def test_chunks_change_nothing() -> None:
    speech, stem = noise(2.2), noise(2.2, 48000, 2)
    whole, _ = heard(sound(speech), sound(stem, 48000), Fraction(2), duck_db=6)
    pieces, _ = heard(sound(speech, chunk=777), sound(stem, 48000, chunk=1234), Fraction(2), duck_db=6)
    np.testing.assert_allclose(pieces, whole, atol=1e-7)


def test_resampled_speech_stays_in_time() -> None:
    """A click of the speech sounds at its time at the rate of the stem."""
    speech = silence(1)
    speech[8000] = 0.9
    samples, _ = heard(sound(speech), sound(silence(1, 48000), 48000), Fraction(1))
    assert abs(int(np.abs(samples[:, 0]).argmax()) - 24000) <= 1


def test_level() -> None:
    stem = noise(1, 48000)
    samples, _ = heard(sound(silence(1)), sound(stem, 48000), Fraction(1), level_db=-20, duck_db=12)
    np.testing.assert_allclose(samples, 0.1 * stem, rtol=1e-5)


def test_ducking_under_speech() -> None:
    """The stem is quieter while somebody speaks, and comes back in pauses."""
    speech = np.concatenate([silence(1), noise(1, loud=0.2), silence(2)])
    stem = np.full((4 * RATE, 1), 0.1, np.float32)
    samples, _ = heard(sound(speech), sound(stem), Fraction(4), duck_db=12)
    under = (samples - speech)[:, 0] / 0.1
    np.testing.assert_allclose(under[:RATE], 1.0, atol=1e-5)
    decibels = 20 * np.log10(under)
    # Time constants of 50 ms and 400 ms: 1 - 1/e of the way.
    assert decibels[round(1.05 * RATE)] == pytest.approx(-12 * 0.63, abs=1.0)
    assert decibels[round(1.9 * RATE)] == pytest.approx(-12, abs=0.1)
    assert decibels[round(2.4 * RATE)] == pytest.approx(-12 * 0.37, abs=0.3)
    assert decibels[-1] == pytest.approx(0, abs=0.2)
    assert np.abs(np.diff(decibels)).max() < 0.05, "no steps"


def test_no_clipping() -> None:
    """A sum above full scale makes all sound quieter, speech and stem alike."""
    speech, stem = np.full((RATE, 1), 0.9, np.float32), np.full((RATE, 1), -0.1, np.float32)
    stem[5000:6000] = 0.7
    samples, scale_db = heard(sound(speech), sound(stem), Fraction(1))
    assert np.abs(samples).max() == pytest.approx(1.0, abs=1e-6)
    assert scale_db == pytest.approx(20 * np.log10(1.6), abs=1e-4)
    assert samples[0, 0] == pytest.approx(0.8 / 1.6)


@pytest.mark.parametrize(("speech", "stem", "shown"), [(1, 6, [2]), (2, 6, [0, 1]), (1, 2, [0, 1]), (2, 1, [0, 1]), (1, 3, [0, 1])])
def test_channels(speech: int, stem: int, shown: list[int]) -> None:
    """Speech of one channel goes to the centre of surround sound."""
    samples, _ = heard(sound(noise(0.5, channels=speech)), sound(silence(0.5, channels=stem)), Fraction(1, 2))
    assert samples.shape[1] == (6 if stem == 6 else 2)
    assert np.flatnonzero(np.abs(samples).max(axis=0)).tolist() == shown
