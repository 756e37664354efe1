"""Random recording conditions (speed, room, microphone, bandwidth, noise, level), and sounds that are not speech."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.signal
import soxr

from services.audio.train.recordings import LabelledSignal
from services.audio.types import HOP_SAMPLES, SAMPLE_RATE_HZ
from services.common.array_types import Float32
from services.common.wire.phones import SILENCE

_MU: Final = 255.0


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """Probabilities and ranges of the augmentation. Every draw of a recording is augmented anew."""

    speed: tuple[float, float] = (0.85, 1.2)
    gain_db: tuple[float, float] = (-18.0, 8.0)
    room_chance: float = 0.35
    band_limit_chance: float = 0.25
    noise_chance: float = 0.6
    snr_db: tuple[float, float] = (5.0, 35.0)
    clean_chance: float = 0.2
    """Probability that the sound keeps its recording: only level, vocal tract and hidden spans change."""
    telephone_chance: float = 0.1
    """Probability of a telephone's band and 8-bit mu-law samples."""
    vocal_tract: tuple[float, float] = (0.85, 1.15)
    """Length of the vocal tract relative to the speaker's own. The frequencies of the spectrum are divided by this factor
    (windows.windows_of), so formants and pitch move and the speed of the speech stays. See Jaitly and Hinton, "Vocal tract length
    perturbation improves speech recognition" (ICML workshop 2013)."""
    mask_chance: float = 0.2
    """Probability that a span of a window is hidden (windows.with_hidden_spans)."""


def noise(random: np.random.Generator, count: int) -> Float32:
    """Return `count` samples of unit-power noise: coloured noise, hum, or chords with a beat (a stand-in for music)."""
    kind = random.integers(4)
    if kind <= 1:
        points = scipy.fft.next_fast_len(count, real=True)
        spectrum = scipy.fft.rfft(random.standard_normal(points))
        hz = np.maximum(scipy.fft.rfftfreq(points, 1 / SAMPLE_RATE_HZ), 20.0)
        signal = scipy.fft.irfft(spectrum * hz ** (-random.uniform(0.0, 1.2)), points)[:count]
    elif kind == 2:
        time_s = np.arange(count) / SAMPLE_RATE_HZ
        base_hz = random.choice([50.0, 60.0, 100.0, 120.0])
        signal = _harmonics(2 * np.pi * base_hz * time_s, [1.0 / k for k in range(1, 6)])
        signal = signal + 0.2 * random.standard_normal(count)
    else:
        signal = chords(random, count)
    return np.asarray(signal / max(float(np.sqrt(np.mean(signal**2))), 1e-9), dtype=np.float32)


def chords(random: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Return plucked or sustained harmonic notes with a steady beat, and hiss on the off-beats."""
    signal = np.zeros(count)
    beat = int(SAMPLE_RATE_HZ * random.uniform(0.2, 0.6))
    root_hz = random.uniform(80.0, 330.0)
    decay_s = random.uniform(0.1, 1.0)
    for start in range(0, count, beat):
        time_s = np.arange(min(2 * beat, count - start)) / SAMPLE_RATE_HZ
        note = np.zeros(len(time_s))
        for step in random.choice([0, 2, 4, 5, 7, 9, 12, 16], size=3):
            hz = root_hz * 2.0 ** (step / 12.0)
            levels = [np.exp(1j * random.uniform(0, 6)) / k**1.3 for k in range(1, 8)]
            note += _harmonics(2 * np.pi * hz * time_s, levels)
        signal[start : start + len(time_s)] += note * np.exp(-time_s / decay_s)
        if random.random() < 0.5:
            hiss = random.standard_normal(len(time_s)) * np.exp(-time_s / 0.04)
            signal[start : start + len(time_s)] += 1.5 * hiss
    return signal


def _harmonics(angle: npt.NDArray[np.float64], levels: Sequence[complex]) -> npt.NDArray[np.float64]:
    """Return sum over k = 1, 2, ... of Im(levels[k - 1] exp(i k angle)): one exponential, then products (Horner's rule)."""
    turned = np.exp(1j * angle)
    total = np.zeros(len(angle), np.complex128)
    for level in reversed(levels):
        total += level
        total *= turned
    return np.asarray(total.imag)


def no_speech(random: np.random.Generator, rows: int) -> LabelledSignal:
    """Return noise, music-like sound or near silence at a random level, every row labelled silence."""
    level = 10.0 ** (random.uniform(-90.0, -15.0) / 20.0)
    return LabelledSignal(noise(random, rows * HOP_SAMPLES) * np.float32(level), np.full(rows, SILENCE, np.uint8))


def augment(signal: LabelledSignal, config: AugmentConfig, random: np.random.Generator) -> LabelledSignal:
    """Return the signal as another device in another room might record the signal. Labels follow a change of speed."""
    samples, labels = signal.samples, signal.labels
    if random.random() >= config.clean_chance:
        speed = random.uniform(*config.speed)
        samples = soxr.resample(samples, SAMPLE_RATE_HZ * speed, SAMPLE_RATE_HZ, quality="MQ")
        rows = len(samples) // HOP_SAMPLES
        labels = labels[np.minimum(((np.arange(rows) + 0.5) * speed).astype(np.int64), len(labels) - 1)]
        if random.random() < config.room_chance:
            samples = _in_a_room(samples, random)
        samples = scipy.signal.lfilter([1.0, random.uniform(-0.6, 0.5)], [1.0, random.uniform(-0.3, 0.3)], samples)
        if random.random() < config.band_limit_chance:
            low_hz, high_hz = random.uniform(20.0, 300.0), random.uniform(3200.0, 7500.0)
            sections = scipy.signal.butter(4, [low_hz, high_hz], "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
            samples = scipy.signal.sosfilt(sections, samples)
        if random.random() < config.telephone_chance:
            samples = _by_telephone(samples, random)
        if random.random() < config.noise_chance:
            power = float(np.sqrt(np.mean(samples**2)))
            samples = samples + noise(random, len(samples)) * power * 10.0 ** (-random.uniform(*config.snr_db) / 20.0)
    samples = samples * 10.0 ** (random.uniform(*config.gain_db) / 20.0)
    return LabelledSignal(np.clip(samples, -1.0, 1.0).astype(np.float32), labels)


def _by_telephone(samples: Float32, random: np.random.Generator) -> Float32:
    """Return the samples in a telephone's band, with each sample rounded to 8 bits of mu-law (ITU-T G.711, continuous form)."""
    band_hz = [random.uniform(200.0, 350.0), random.uniform(3000.0, 3800.0)]
    samples = scipy.signal.sosfilt(scipy.signal.butter(4, band_hz, "bandpass", fs=SAMPLE_RATE_HZ, output="sos"), samples)
    peak = max(float(np.abs(samples).max()), 1e-9) / random.uniform(0.1, 1.0)
    compressed = np.sign(samples) * np.log1p(_MU * np.abs(samples) / peak) / np.log1p(_MU)
    rounded = np.round(compressed * 127.0) / 127.0
    return np.asarray(np.sign(rounded) * np.expm1(np.abs(rounded) * np.log1p(_MU)) / _MU * peak, dtype=np.float32)


def _in_a_room(samples: Float32, random: np.random.Generator) -> Float32:
    """Return the samples convolved with a direct path and an exponentially decaying tail of noise."""
    seconds = random.uniform(0.05, 0.35)
    length = int(seconds * SAMPLE_RATE_HZ)
    tail = random.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    tail *= 10.0 ** (-random.uniform(4.0, 16.0) / 20.0) / np.sqrt(np.sum(tail**2))
    tail[0] += 1.0
    return np.asarray(scipy.signal.fftconvolve(samples, tail)[: len(samples)], dtype=np.float32)
