"""Settings that the trainings of all renderers have."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from services.render.train.people import PeopleSettings
from services.training.loop_settings import LoopSettings

RecipeT = TypeVar("RecipeT", bound="Recipe")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a prior is trained: a first phase without discriminators, then a second phase with discriminators.

    The recipe of a renderer adds its own settings. Its default values have the sizes of the committed prior.

    Attributes:
        loop: length, pace and machinery.
        warm_steps: steps of the first phase.
        warm_batch: examples of a batch in the first phase.
        batch: examples of a batch in the second phase.
        learning_rate: learning rate of the first phase (Adam).
        adversarial_learning_rate: learning rate at the beginning of the second phase. It falls by half a cosine.
        discriminator_learning_rate: learning rate of all discriminators.
        average_decay: decay of the moving average of the weights.
        people: which people are drawn how often, and how many of them are in memory.
        vgg: path of your own VGG-19 file (services.render.train.vgg) for the perceptual loss; empty: the perceptual network.
        check_clips: largest number of held-out clips that a check draws.
        calibration_pictures: inputs that the run keeps to calibrate the int8 file with.
    """

    loop: LoopSettings
    warm_steps: int
    warm_batch: int
    batch: int
    learning_rate: float = 1e-3
    adversarial_learning_rate: float
    discriminator_learning_rate: float = 5e-4
    average_decay: float = 0.99
    people: PeopleSettings = field(default_factory=PeopleSettings)
    vgg: str = ""
    check_clips: int = 6
    calibration_pictures: int = 64

    def batch_of(self, step: int) -> int:
        """Return the number of examples of a batch of one step (from 0)."""
        return self.batch if step >= self.warm_steps else self.warm_batch

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step (from 0), for the layers with the full rate."""
        if step < self.warm_steps:
            return self.learning_rate * min(1.0, (step + 1) / 50)
        done = (step - self.warm_steps) / max(1, self.loop.steps - self.warm_steps)
        return self.adversarial_learning_rate * (0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * done)))


def for_a_gpu(recipe: RecipeT, **own: Any) -> RecipeT:
    """Return a recipe with the lengths, batches and rates that the large presets of all renderers share.

    Args:
        recipe: the recipe of the committed prior. Its seed stays.
        own: settings of this renderer alone.
    """
    shared: dict[str, Any] = {
        "loop": replace(recipe.loop, steps=200_000, check_every=2_000, workers=8),
        "warm_steps": 60_000,
        "warm_batch": 32,
        "batch": 32,
        "learning_rate": 5e-4,
        "adversarial_learning_rate": 2e-4,
        "discriminator_learning_rate": 2e-4,
        "average_decay": 0.999,
        "people": replace(recipe.people, max_frames=600, pool_people=32, pool_steps=200),
        "check_clips": 16,
    }
    return replace(recipe, **(shared | own))
