"""What the trainings of all renderers do alike: Adam in two phases, the averaged weights, what a checkpoint holds.

The first phase has no discriminators. What is exported is the exponential moving average of the weights, which is steadier than any
one step of an adversarial training.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from services.render.adapt.pairs import Pair
from services.render.drawn_face import RENDERED
from services.render.networks.refine import UNetTrunk

_FULL_RATE_FAN_IN: Final = 216
"""That of the last layer, 24 channels of 3 x 3."""


class Recipe(Protocol):
    """Settings that all recipes have."""

    @property
    def steps(self) -> int:
        """In all."""

    @property
    def warm_steps(self) -> int:
        """Of them without discriminators."""

    @property
    def learning_rate(self) -> float:
        """Of the first phase (Adam)."""

    @property
    def adversarial_learning_rate(self) -> float:
        """At the beginning of the second, falling by half a cosine."""

    @property
    def discriminator_learning_rate(self) -> float:
        """Of all discriminators."""

    @property
    def average_decay(self) -> float:
        """Of the moving average."""

    @property
    def seed(self) -> int:
        """Of everything."""

    @property
    def report_every(self) -> int:
        """Steps between lines of the log."""

    @property
    def validate_every(self) -> int:
        """Steps between validations and checkpoints."""


RecipeT = TypeVar("RecipeT", bound=Recipe)
NetworkT = TypeVar("NetworkT", bound=UNetTrunk)
BatchT = TypeVar("BatchT")


class Trainer(ABC, Generic[RecipeT, NetworkT, BatchT]):
    """Network, discriminators and optimisers of a training.

    Args:
        recipe: all settings.
        network: is trained; its pictures are drawn from a default state.
        judges: the discriminators.
    """

    parts: ClassVar[tuple[str, ...]]
    """Attributes that a checkpoint holds."""

    def __init__(self, recipe: RecipeT, network: NetworkT, judges: Sequence[nn.Module]) -> None:
        self.recipe = recipe
        self.network: NetworkT = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser = torch.optim.Adam(parameter_groups(self._trained()), recipe.learning_rate, betas=(0.9, 0.99))
        self._judges = judges
        judging = [value for judge in judges for value in judge.parameters()]
        self.judge_optimiser = torch.optim.Adam(judging, recipe.discriminator_learning_rate, betas=(0.5, 0.99))
        self.step = 0

    @abstractmethod
    def train_step(self, batch: BatchT) -> dict[str, float]:
        """One step of the network and, in the second phase, of the discriminators; returns the losses."""

    @abstractmethod
    def write(self, out: Path) -> None:
        """Write the averaged weights, and what else is exported, into `out`."""

    def state(self) -> dict[str, Any]:
        """All that a resumed training needs."""
        return {**{name: getattr(self, name).state_dict() for name in self.parts}, "step": self.step}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        for name in self.parts:
            getattr(self, name).load_state_dict(state[name])
        self.step = int(state["step"])

    @torch.no_grad()
    def draw(self, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
        """Faces by the averaged network and the default state: float32 [N, 160, 160, 3], grey levels."""
        pictures = np.stack([pair.picture for pair in pairs])
        states = self.average.default_state().expand(len(pairs), -1)
        residual = self.average(to_tensor(pictures), states).permute(0, 2, 3, 1).numpy()
        return np.asarray(pictures[..., RENDERED] + residual * 255.0, dtype=np.float32)

    @property
    def adversarial(self) -> bool:
        """Whether this step is one of the second phase."""
        return self.step >= self.recipe.warm_steps

    def _trained(self) -> Iterable[nn.Parameter]:
        return self.network.parameters()

    @contextmanager
    def _frozen_judges(self) -> Iterator[None]:
        for judge in self._judges:
            judge.requires_grad_(False)
        yield
        for judge in self._judges:
            judge.requires_grad_(True)

    def _descend(self, terms: Mapping[str, torch.Tensor], clipped: Iterable[nn.Parameter]) -> dict[str, float]:
        """A step down the terms' sum, and of the average; returns the terms and the norm of the gradient of `clipped`."""
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate() * group["rate_scale"]
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack([term.float() for term in terms.values()]).sum())
        norm = nn.utils.clip_grad_norm_(clipped, 5.0)
        self.optimiser.step()
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(value, 1.0 - min(self.recipe.average_decay, (1.0 + self.step) / (10.0 + self.step)))
        return {**{name: float(term.detach()) for name, term in terms.items()}, "gradient_norm": float(norm)}

    def _descend_judges(self, loss: torch.Tensor) -> None:
        self.judge_optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.judge_optimiser.step()

    def _learning_rate(self) -> float:
        recipe = self.recipe
        if not self.adversarial:
            return recipe.learning_rate * min(1.0, (self.step + 1) / 50)
        done = (self.step - recipe.warm_steps) / max(1, recipe.steps - recipe.warm_steps)
        return recipe.adversarial_learning_rate * (0.1 + 0.9 * 0.5 * (1.0 + float(np.cos(np.pi * done))))

    def _facts(self) -> dict[str, str]:
        return {"steps": str(self.step), "seed": str(self.recipe.seed)}


def parameter_groups(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Weights of each convolution with a learning rate that falls with its fan-in (Yang et al. 2021, "Tensor Programs V").

    A step of Adam moves all weights by about the same amount, so the outputs of a convolution with 2000 inputs move ten times
    as far as those of one with 200. Without this the wide layers grow until a layer behind them gives zeros only, and stays so.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        scale = min(1.0, _FULL_RATE_FAN_IN / parameter[0].numel()) if parameter.ndim > 1 else 1.0
        groups.setdefault(scale, []).append(parameter)
    return [{"params": members, "rate_scale": scale} for scale, members in groups.items()]


def to_tensor(pictures: npt.NDArray[np.uint8]) -> torch.Tensor:
    """uint8 [B, H, W, C] to float32 [B, C, H, W] in [0, 1], channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div_(255.0)
