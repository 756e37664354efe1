"""Parts that the trainings of motion share: batches from a sampler, the file of the run, the choice of the best step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from torch import nn

from research.motion.clips import Clips, batch_rng
from research.motion.protocol import Groups, Scores, may_choose, named_scores, selected_on, selection_score
from research.motion.run_files import load_network, read_arrays, write_best
from research.training.device import Device
from research.training.training import Check, LoopSettings, OptimiserSettings, Supervised
from services.common.array_types import Array

BatchT = TypeVar("BatchT")
DrawnT_co = TypeVar("DrawnT_co", covariant=True)


class Config(Protocol):
    """Base of the configurations of all trainings of motion."""

    @property
    def loop(self) -> LoopSettings:
        """Length and pace."""

    @property
    def optimiser(self) -> OptimiserSettings:
        """Rates."""


class Sampler(Protocol[DrawnT_co]):
    """Sampler of batches."""

    def draw(self, rng: np.random.Generator) -> DrawnT_co:
        """Draw a batch. The same generator state gives the same batch."""


class MotionTraining(Supervised[BatchT]):
    """Training of one network of motion.

    Args:
        device: where this process computes.
        clips: clips that the network learns from.
        sampler: sampler of batches.
    """

    def __init__(self, config: Config, device: Device, clips: Clips, network: nn.Module, sampler: Sampler[BatchT]) -> None:
        super().__init__(config.loop, device, clips.rows, network, config.optimiser)
        self._sampler = sampler

    @abstractmethod
    def constants(self) -> Mapping[str, Array]:
        """Return the arrays that the run's file holds beside the averaged network."""

    def facts(self) -> Mapping[str, str]:
        """Return the metadata of the run's file."""
        return {}

    def batch(self, step: int, index: int) -> BatchT:
        """Draw a batch."""
        return self._sampler.draw(batch_rng(self.settings.seed, step, index))

    def write(self, folder: Path) -> None:
        """Write the averaged network and its constants."""
        write_best(folder, self.average, self.constants(), **self.facts())

    def take_best(self, folder: Path) -> None:
        """Give the averaged network the weights of the best step, which lie in the folder."""
        load_network(self.average, read_arrays(folder))


class PredictorTraining(MotionTraining[BatchT]):
    """Training of a predictor.

    The step with the best scores on held-out clips is kept; the last step, if all of them are of narrow corpora (may_choose).

    Attributes:
        groups: held-out clips by group.
    """

    groups: Groups

    @abstractmethod
    def scores(self) -> Scores:
        """Return the scores of the averaged network on held-out clips."""

    def selection_score(self, scores: Scores) -> float:
        """Return the number to select on, from the scores of the groups that are selected on."""
        return selection_score(scores)

    def baseline(self) -> Scores:
        """Return the scores of what the network must beat; they are shown at step 0."""
        return {}

    def check(self, step: int, folder: Path) -> Check:
        """Score the averaged network on held-out clips."""
        scores = self.scores()
        shown = named_scores(scores)
        if step == 0:
            shown |= {f"baseline {name}": value for name, value in named_scores(self.baseline()).items()}
        return Check(shown, self.selection_score(selected_on(scores)) if may_choose(self.groups) else None)
