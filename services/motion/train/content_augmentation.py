"""Augmentation of content rows: other moments, phones that look alike, sharpness, blur, and energy of other recordings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.common.array_types import Float32
from services.motion.features import LOOK_ALIKE
from services.motion.types import NUM_PHONES


@dataclass(frozen=True, kw_only=True, slots=True)
class ContentAugmentation:
    """Settings of the augmentation of content rows."""

    sharpness_range: tuple[float, float] = (0.7, 1.5)
    confusion: float = 0.15
    """Largest share of another moment's posteriorgram that is mixed in."""
    grouping: float = 0.6
    """Largest share of a phone's probability that is spread over phones that look like that phone."""
    blur: float = 0.3
    """Chance that a posteriorgram is blurred in time."""
    band_tilt: float = 0.3
    """Standard deviation of the offset of each relative energy band."""
    band_gain: tuple[float, float] = (0.6, 1.4)
    level: float = 0.4
    """Standard deviation of the common offset of all bands, which stands for another history of the stream."""


def augmented(content: Float32, rows: Float32, settings: ContentAugmentation, rng: np.random.Generator) -> Float32:
    """Return augmented content rows, float32 [R, 44].

    Args:
        content: float32 [R, 44], rows of a stretch of speech, see features.content_rows.
        rows: float32 [S, 44], S > R, all rows of the clip.
        settings: strength of the augmentation.
        rng: random numbers. The same state gives the same rows.
    """
    phones = content[:, :NUM_PHONES]
    other = rows[rng.integers(len(rows) - len(content)) :][: len(content), :NUM_PHONES]
    phones = phones + np.float32(rng.uniform(0.0, settings.confusion)) * (other - phones)
    phones = phones + np.float32(rng.uniform(0.0, settings.grouping)) * (phones @ LOOK_ALIKE - phones)
    phones = np.maximum(phones, np.float32(1e-4)) ** np.float32(rng.uniform(*settings.sharpness_range))
    phones = phones / phones.sum(axis=1, keepdims=True)
    if rng.random() < settings.blur:
        phones[1:-1] = 0.25 * phones[:-2] + 0.5 * phones[1:-1] + 0.25 * phones[2:]
    tilt = rng.normal(0.0, settings.band_tilt, content.shape[1] - NUM_PHONES) + rng.normal(0.0, settings.level)
    energy = content[:, NUM_PHONES:] * rng.uniform(*settings.band_gain) + tilt
    return np.concatenate([phones, energy], axis=1).astype(np.float32)
