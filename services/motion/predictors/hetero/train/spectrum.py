"""Random changes of relative mel spectra: other voices, microphones, rooms and noise than the few of the training set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.common.array_types import Float32
from services.motion.types import NUM_MELS


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectrumNoise:
    """Strength of the changes, in units of the relative mel power.

    Attributes:
        tract: standard deviation of the logarithm of the factor on the frequency axis (length of the vocal tract).
        gain: range of the factor on all bands.
        tilt: standard deviation of the smooth offset over bands (microphone).
        level: standard deviation of the offset of all bands (another history of the stream).
        noisy: share of stretches with background noise.
        noise_level: range of the level of the noise.
        smeared: share of stretches with an echo: power that dies away over rows.
        hidden: share of stretches with a hidden span of bands; as large is the share with a hidden span of rows.
    """

    tract: float = 0.07
    gain: tuple[float, float] = (0.7, 1.3)
    tilt: float = 0.35
    level: float = 0.25
    noisy: float = 0.5
    noise_level: tuple[float, float] = (-2.5, 0.2)
    smeared: float = 0.2
    hidden: float = 0.4


def changed_spectrum(mel: Float32, noise: SpectrumNoise, rng: np.random.Generator) -> Float32:
    """Return a changed spectrum: relative mel power, float32 [R, 80] -> [R, 80]."""
    bands = np.arange(NUM_MELS)
    place = np.clip(bands * np.exp(rng.normal(0.0, noise.tract)), 0.0, NUM_MELS - 1.001)
    low = place.astype(np.intp)
    share = (place - low).astype(np.float32)
    mel = (1.0 - share) * mel[:, low] + share * mel[:, low + 1]
    if rng.random() < noise.smeared:
        mel = _smeared(mel, float(rng.uniform(0.3, 0.8)))
    mel = mel * np.float32(rng.uniform(*noise.gain)) + _smooth(rng, noise.tilt, 6) + np.float32(rng.normal(0.0, noise.level))
    if rng.random() < noise.noisy:
        floor = np.float32(rng.uniform(*noise.noise_level)) + _smooth(rng, 0.4, 5)
        grain = rng.normal(0.0, 0.25, mel.shape).astype(np.float32)
        # One unit of relative power is about two of the logarithm of power.
        mel = np.logaddexp(2.0 * mel, 2.0 * (floor + grain)) / np.float32(2.0)
    mean = mel.mean()
    if rng.random() < noise.hidden:
        begin = int(rng.integers(0, NUM_MELS - 8))
        mel[:, begin : begin + int(rng.integers(2, 9))] = mean
    if rng.random() < noise.hidden:
        begin = int(rng.integers(0, len(mel) - 10))
        mel[begin : begin + int(rng.integers(3, 9))] = mean
    return np.asarray(mel, np.float32)


def _smooth(rng: np.random.Generator, strength: float, knots: int) -> Float32:
    """Return a random smooth offset over bands, float32 [80]."""
    return np.interp(np.arange(NUM_MELS), np.linspace(0, NUM_MELS - 1, knots), rng.normal(0.0, strength, knots)).astype(np.float32)


def _smeared(mel: Float32, decay: float) -> Float32:
    """Return the spectrum in a room: each row keeps at least what is left of the row before, a loss of `decay` a row."""
    smeared = mel.copy()
    for row in range(1, len(mel)):
        np.maximum(smeared[row], smeared[row - 1] - np.float32(decay), out=smeared[row])
    return smeared
