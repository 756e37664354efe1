from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from services.audio.extract import extract_features
from services.audio.models import WEIGHTS, AudioModels
from services.audio.posteriorgram import PosteriorgramModel, normalise
from services.audio.spectral import silent_rows
from services.common.array_types import Float32
from services.common.errors import ModelNotFoundError
from services.common.wire.timeline import Timeline

VOICE = frozenset({"speech_probability"})


def speech_probability(models: AudioModels, samples: Float32, rate_hz: int = 16000) -> Float32:
    return extract_features(samples, rate_hz, Timeline(rate=Fraction(25)), VOICE, models=models)["speech_probability"]


def plucked_chords() -> Float32:
    """Three seconds of decaying harmonic notes with a beat."""
    time_s = np.arange(8000) / 16000
    bars = []
    for root_hz in (110.0, 146.8, 164.8, 110.0, 130.8, 98.0):
        notes = sum(np.sin(2 * np.pi * root_hz * interval * k * time_s) / k for interval in (1, 1.26, 1.5) for k in range(1, 7))
        bars.append(notes * np.exp(-time_s / 0.3) * 0.08)
    return np.concatenate(bars).astype(np.float32)


def test_first_loud_row_has_mean_of_training() -> None:
    """The network knows rows without this mean: another mean needs other weights."""
    context = silent_rows(300)
    context[-1] = 0.0
    expected = [0.0, -11.863, -0.98, -3.431, 2.059, 1.471, 1.667, 1.176, 0.392, 0.882]
    expected += [0.294, 0.882, 0.294, 0.686, 0.98, 0.588, 0.392, 0.196, 0.294, 0.098]
    np.testing.assert_allclose(normalise(context)[-1], expected, atol=6e-4)


def test_the_batch_changes_no_bit_of_the_posteriorgram() -> None:
    model = PosteriorgramModel(WEIGHTS)
    windows = (np.random.default_rng(2).standard_normal((21, 58, 20)) * 8).astype(np.float32)
    whole = model.run(windows)
    for batch in (1, 2, 5, 8):
        parts = [model.run(windows[start : start + batch]) for start in range(0, 21, batch)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_threads_change_no_bit_of_the_posteriorgram() -> None:
    windows = (np.random.default_rng(2).standard_normal((8, 58, 20)) * 8).astype(np.float32)
    assert PosteriorgramModel(WEIGHTS, 2).run(windows).tobytes() == PosteriorgramModel(WEIGHTS).run(windows).tobytes()


def test_speech_is_heard(models: AudioModels, speech: Float32) -> None:
    assert np.mean(speech_probability(models, speech)[5:] > 0.5) > 0.7


def test_silence_is_not_speech(models: AudioModels) -> None:
    assert speech_probability(models, np.zeros(48000, np.float32)).max() == 0.0


@pytest.mark.parametrize("level_db", [-60, -40, -20])
def test_noise_is_not_speech(models: AudioModels, level_db: int) -> None:
    noise = np.random.default_rng(6).standard_normal(48000) * 10 ** (level_db / 20)
    assert speech_probability(models, noise.astype(np.float32)).max() < 0.5


def test_plucked_chords_are_hardly_ever_taken_for_speech(models: AudioModels) -> None:
    """A lone voiced note can pass for a vowel for a moment; never for longer."""
    probability = speech_probability(models, plucked_chords())
    assert np.mean(probability > 0.5) <= 0.05
    assert probability.mean() < 0.1


def test_speech_after_silence_at_once(models: AudioModels, speech: Float32) -> None:
    """Speech after a long silence is heard at once."""
    late = np.concatenate([np.zeros(48000, np.float32), speech])
    assert np.mean(speech_probability(models, late)[80:] > 0.5) > 0.7


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"ppg\.onnx"):
        AudioModels(tmp_path)
