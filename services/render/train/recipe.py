"""Settings that the trainings of all renderers have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a prior is trained: a first phase without discriminators, then a second phase with discriminators.

    The recipe of a renderer adds its own settings. Its default values are those that the committed prior was trained with.

    Attributes:
        steps: steps of both phases together.
        warm_steps: steps of the first phase.
        warm_batch: examples per step in the first phase.
        batch: examples per step in the second phase.
        learning_rate: learning rate of the first phase (Adam).
        adversarial_learning_rate: learning rate at the beginning of the second phase. It falls by half a cosine.
        discriminator_learning_rate: learning rate of all discriminators.
        average_decay: decay of the moving average of the weights.
        max_clips: largest number of clips of one person.
        sharp_marks: parts of clip names that mark footage of full resolution.
        sharp_share: share of the examples that comes from such clips.
        seed: random seed of the whole training.
        report_every: steps between lines of the log.
        validate_every: steps between validations and checkpoints.
    """

    steps: int
    warm_steps: int
    warm_batch: int
    batch: int
    learning_rate: float = 1e-3
    adversarial_learning_rate: float
    discriminator_learning_rate: float = 5e-4
    average_decay: float = 0.99
    max_clips: int = 16
    sharp_marks: tuple[str, ...] = ("s4_hq", "ls_demo2")
    sharp_share: float = 0.55
    seed: int
    report_every: int = 25
    validate_every: int = 100

    def batch_of(self, step: int) -> int:
        """Return the number of examples of one step (from 0)."""
        return self.batch if step >= self.warm_steps else self.warm_batch
