"""Sources of batches, and random colours for training pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import cv2
import numpy as np

from research.render.people import People
from services.common.array_types import Float32, UInt8
from services.render.key_pictures import KeyPictures
from services.render.pairs import LandmarkNoise


class RenderBatch(Protocol):
    """Examples of a pass."""

    @property
    def pictures(self) -> UInt8:
        """Inputs of the network, uint8 [B, 160, 160, C]."""

    @property
    def targets(self) -> UInt8:
        """The footage, uint8 [B, 160, 160, 3]."""


SomeBatch_co = TypeVar("SomeBatch_co", bound=RenderBatch, covariant=True)


class BatchSource(ABC, Generic[SomeBatch_co]):
    """Draws batches from people, each person as often as their share says.

    Args:
        people: the people to draw from.
        seed: random seed.
    """

    def __init__(self, people: People, *, seed: int) -> None:
        self.people = people
        self._noise = LandmarkNoise()
        self._seed = seed

    @abstractmethod
    def batch(self, step: int, index: int, size: int) -> SomeBatch_co:
        """Return a batch of single examples, always the same for the same seed, step and index.

        Args:
            index: number of the batch within the step.
            size: number of examples.
        """

    def _rng(self, step: int, index: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, step, index))


@dataclass(frozen=True, slots=True, eq=False)
class ColourChange:
    """Change of colours that is the same for all pictures of one example.

    Attributes:
        table: uint8 [256], new level for each level: gamma and gain.
        mixing: float32 [3, 3], saturation and white balance. Each row sums to the gain of its channel.
    """

    table: UInt8
    mixing: Float32

    def of(self, picture: UInt8) -> UInt8:
        """Return a picture in these colours: uint8 of the same shape.

        Args:
            picture: uint8 [H, W, 3].
        """
        mixed = cv2.transform(np.ascontiguousarray(picture), self.mixing)
        return np.asarray(cv2.LUT(mixed, self.table), dtype=np.uint8)

    def of_keys(self, keys: KeyPictures) -> KeyPictures:
        """Return key pictures in these colours. Empty key pictures, which have no landmarks, stay as they are."""
        if not keys.landmarks.any():
            return keys
        return KeyPictures(np.stack([self.of(picture) for picture in keys.pictures]), keys.landmarks)


def random_colours(rng: np.random.Generator) -> ColourChange:
    """Return random gamma, gain, saturation and white balance."""
    gamma, gain = np.exp(rng.normal(0.0, 0.25)), np.exp(rng.normal(0.0, 0.12))
    levels = np.linspace(0.0, 1.0, 256) ** gamma * gain
    saturation = np.exp(rng.normal(0.0, 0.25))
    mixing = saturation * np.eye(3) + (1.0 - saturation) * np.array([0.299, 0.587, 0.114])
    return ColourChange(
        np.asarray(np.clip(np.rint(levels * 255.0), 0, 255), dtype=np.uint8),
        np.asarray(np.exp(rng.normal(0.0, 0.06, 3))[:, None] * mixing, dtype=np.float32),
    )
