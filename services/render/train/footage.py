"""What the sources of all renderers' batches share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar

import numpy as np

from services.common.array_types import UInt8
from services.render.pairs import LandmarkNoise
from services.render.train.people import People


class Batch(Protocol):
    """Examples of a pass."""

    @property
    def pictures(self) -> UInt8:
        """Inputs of the network, uint8 [B, 160, 160, C]."""

    @property
    def targets(self) -> UInt8:
        """The footage, uint8 [B, 160, 160, 3]."""


SomeBatch_co = TypeVar("SomeBatch_co", bound=Batch, covariant=True)


class Source(ABC, Generic[SomeBatch_co]):
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
            step: step of the training.
            index: number of the batch within the step.
            size: number of examples.
        """

    def _rng(self, step: int, index: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, step, index))
