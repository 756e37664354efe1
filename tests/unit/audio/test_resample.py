import tracemalloc

import numpy as np
import pytest

from services.audio.resample import MonoResampler
from services.common.array_types import Float32
from services.common.errors import InvalidRequest


def converted(samples: Float32, rate_hz: int, channels: int, cut: int) -> Float32:
    resampler = MonoResampler(rate_hz, channels)
    step = cut * channels
    parts = [resampler.push(samples[start : start + step]) for start in range(0, len(samples), step)]
    return np.concatenate([*parts, resampler.finish()])


def tone(rate_hz: int, hz: float, seconds: float = 0.3) -> Float32:
    return np.sin(2 * np.pi * hz * np.arange(int(rate_hz * seconds)) / rate_hz).astype(np.float32)


@pytest.mark.parametrize("rate_hz", [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000])
def test_a_tone_keeps_its_pitch_phase_and_level_at_every_rate(rate_hz: int) -> None:
    result = converted(tone(rate_hz, 1000.0), rate_hz, 1, rate_hz)
    expected = tone(16000, 1000.0)
    assert abs(len(result) - len(expected)) <= 1
    assert np.abs(result[200:4000] - expected[200:4000]).max() < 1e-3


@pytest.mark.parametrize("rate_hz", [44100, 48000, 96000])
def test_tones_that_16_khz_cannot_hold_are_removed(rate_hz: int) -> None:
    result = converted(tone(rate_hz, 9500.0), rate_hz, 1, rate_hz)
    assert np.sqrt(np.mean(result[200:-200] ** 2)) < 1e-3


@pytest.mark.parametrize("rate_hz", [8000, 16000, 44100, 96000])
def test_chunks_change_no_bit(rate_hz: int) -> None:
    noise = np.random.default_rng(1).standard_normal(2 * int(0.05 * rate_hz)).astype(np.float32)
    whole = converted(noise, rate_hz, 2, len(noise))
    for cut in (1 if rate_hz == 8000 else 23, 160, 1013):
        assert converted(noise, rate_hz, 2, cut).tobytes() == whole.tobytes()


def test_eight_channels_are_averaged() -> None:
    mono = tone(96000, 440.0)
    channels = np.zeros((len(mono), 8), np.float32)
    channels[:, 2] = 8.0 * mono
    assert np.allclose(converted(channels.reshape(-1), 96000, 8, 500), converted(mono, 96000, 1, 500), atol=1e-6)


def test_the_look_ahead_is_under_two_and_a_half_milliseconds() -> None:
    for rate_hz in (8000, 44100, 48000, 96000):
        resampler = MonoResampler(rate_hz, 1)
        given = len(resampler.push(np.zeros(rate_hz, np.float32)))
        assert 16000 - given <= 0.0025 * 16000


def test_a_sample_that_is_no_number_is_named() -> None:
    resampler = MonoResampler(48000, 2)
    resampler.push(np.zeros(200, np.float32))
    bad = np.zeros(20, np.float32)
    bad[7] = np.nan
    with pytest.raises(InvalidRequest, match="sample 103 of channel 1") as caught:
        resampler.push(bad)
    assert caught.value.field == "chunk.pcm_f32"


@pytest.mark.parametrize(("rate_hz", "channels", "field"), [(4000, 1, "sample_rate_hz"), (48000, 0, "channels")])
def test_rates_and_channels_out_of_range_are_refused(rate_hz: int, channels: int, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        MonoResampler(rate_hz, channels)
    assert caught.value.field == f"config.{field}"


def test_filters_of_odd_rates_are_made_in_little_memory() -> None:
    tracemalloc.start()
    try:
        resampler = MonoResampler(47_999, 1)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert resampler.num_emitted == 0
    assert held > 16_000 * 100 * 8, "a phase of taps for every output sample of a second"
    assert peak < 1.5 * held + 10e6


@pytest.mark.parametrize(("value", "says"), [(np.nan, "nan"), (-np.inf, "-inf"), (2e6, "is 2e[+]06, beyond 1e[+]06")])
def test_a_sample_that_is_none_is_named_with_its_value(value: float, says: str) -> None:
    samples = np.zeros(20, np.float32)
    samples[13] = value
    resampler = MonoResampler(16000, 2)
    resampler.push(np.zeros(8, np.float32))
    with pytest.raises(InvalidRequest, match=rf"sample 10 of channel 1 .*{says}"):
        resampler.push(samples)


@pytest.mark.parametrize(("rate_hz", "channels", "says"), [(1, 1, "8000 to 192000 Hz, got 1"), (16000, 24, "1 to 16, got 24")])
def test_a_rate_or_channels_out_of_range_are_told_with_the_range(rate_hz: int, channels: int, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        MonoResampler(rate_hz, channels)
