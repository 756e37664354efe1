"""Trainer that all renderers share: Adam in two phases, averaged weights, checkpoints, and the order of one step.

The first phase has no discriminators. The exponential moving average of the weights is exported, because the average is steadier
than any one step of an adversarial training. A renderer's own trainer says how a batch is drawn and judged.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from services.common.array_types import Float32
from services.render.losses import Features, Made, critic_view, perceptual_loss
from services.render.networks.tensors import to_tensor
from services.render.networks.unet import UNetTrunk
from services.render.pairs import BASE, Pair
from services.render.train.recipe import Recipe

_FULL_RATE_FAN_IN: Final = 216
"""Fan-in up to which a convolution has the full learning rate: that of the last layer, 24 channels of 3 x 3."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Pictures that one step has drawn.

    Attributes:
        made: the pictures with mask and target.
        report: figures for the log.
    """

    made: Made
    report: dict[str, float]


RecipeT = TypeVar("RecipeT", bound=Recipe)
NetworkT = TypeVar("NetworkT", bound=UNetTrunk)
BatchT = TypeVar("BatchT")
DrawnT = TypeVar("DrawnT", bound=Drawn)


class Trainer(ABC, Generic[RecipeT, NetworkT, BatchT, DrawnT]):
    """Network, discriminators and optimisers of a training.

    Args:
        recipe: all settings.
        network: the network to train. Its pictures are drawn from a default state.
        judges: discriminators by the names under which a checkpoint holds them.
        features: features of the perceptual loss.
    """

    more_parts: ClassVar[tuple[str, ...]] = ()
    """Attributes that a checkpoint holds beside network, average, optimisers and discriminators."""

    def __init__(self, recipe: RecipeT, network: NetworkT, judges: Mapping[str, nn.Module], features: Features) -> None:
        self.recipe = recipe
        self.network: NetworkT = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser = torch.optim.Adam(parameter_groups(self._trained()), recipe.learning_rate, betas=(0.9, 0.99))
        self.judges = dict(judges)
        judging = [value for judge in self.judges.values() for value in judge.parameters()]
        self.judge_optimiser = torch.optim.Adam(judging, recipe.discriminator_learning_rate, betas=(0.5, 0.99))
        self.step = 0
        self._features = features

    @abstractmethod
    def _drawn(self, batch: BatchT) -> DrawnT:
        """Draw the pictures of a batch. Everything that comes before the network's own step happens here."""

    @abstractmethod
    def _terms(self, drawn: DrawnT) -> dict[str, Tensor]:
        """Return the weighted losses of both phases, beside the perceptual loss."""

    @abstractmethod
    def _judged_terms(self, drawn: DrawnT, view: Tensor) -> dict[str, Tensor]:
        """Return the weighted adversarial losses of the network.

        Args:
            drawn: what `_drawn` returned.
            view: the part of the drawn pictures that discriminators see, float [B, 3, h, w].
        """

    @abstractmethod
    def _judge_losses(self, drawn: DrawnT, view: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Return the losses of the discriminators by their names in the log.

        Args:
            drawn: what `_drawn` returned.
            view: the part of the drawn pictures that discriminators see, float [B, 3, h, w], without gradient.
            wanted: the same part of the footage.
        """

    @abstractmethod
    def write(self, out: Path) -> None:
        """Write the averaged weights, and what else is exported, into the folder `out`."""

    @property
    @abstractmethod
    def perceptual_weight(self) -> float:
        """Weight of the perceptual loss."""

    def train_step(self, batch: BatchT) -> dict[str, float]:
        """Do one step of the network and, in the second phase, of the discriminators; return the losses for the log."""
        drawn = self._drawn(batch)
        view, wanted = critic_view(drawn.made.pictures), critic_view(drawn.made.target)
        terms = self._terms(drawn)
        with torch.autocast("cpu", torch.bfloat16):
            terms["perceptual"] = self.perceptual_weight * perceptual_loss(self._features, view, wanted)
            if self.adversarial:
                with self._frozen_judges():
                    terms |= self._judged_terms(drawn, view)
        report = {**drawn.report, **self._descend(terms), **self._after_descent(drawn)}
        if self.adversarial:
            report |= self._judge_step(drawn, view.detach(), wanted)
        self.step += 1
        return report

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed training needs."""
        return {**{name: part.state_dict() for name, part in self._parts().items()}, "step": self.step}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state` returned."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step = int(state["step"])

    @torch.no_grad()
    def draw(self, pairs: Sequence[Pair]) -> Float32:
        """Return faces by the averaged network and the default state: float32 [N, 160, 160, 3], grey levels."""
        pictures = np.stack([pair.picture for pair in pairs])
        states = self.average.default_state().expand(len(pairs), -1)
        residual = self.average(to_tensor(pictures), states).permute(0, 2, 3, 1).numpy()
        return np.asarray(pictures[..., BASE] + residual * 255.0, dtype=np.float32)

    @property
    def adversarial(self) -> bool:
        """Whether this step belongs to the second phase."""
        return self.step >= self.recipe.warm_steps

    def facts(self) -> dict[str, str]:
        """Return metadata for the header of weights files."""
        return {"steps": str(self.step), "seed": str(self.recipe.seed)}

    def _trained(self) -> Iterable[nn.Parameter]:
        """Return the parameters of the network that the optimiser moves."""
        return self.network.parameters()

    def _after_descent(self, drawn: DrawnT) -> dict[str, float]:
        """Do what follows the network's step; return figures for the log."""
        return {}

    def _judge_penalties(self, drawn: DrawnT, view: Tensor, wanted: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Return penalties of the discriminators' step by their names in the log: weight, value."""
        return {}

    def _parts(self) -> dict[str, Any]:
        names = ("network", "average", "optimiser", "judge_optimiser", *self.more_parts)
        return {**{name: getattr(self, name) for name in names}, **self.judges}

    @contextmanager
    def _frozen_judges(self) -> Iterator[None]:
        for judge in self.judges.values():
            judge.requires_grad_(False)
        yield
        for judge in self.judges.values():
            judge.requires_grad_(True)

    def _descend(self, terms: Mapping[str, Tensor]) -> dict[str, float]:
        """Take a step down the sum of the terms, and move the average; return the terms and the norm of the gradient."""
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate() * group["rate_scale"]
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack([term.float() for term in terms.values()]).sum())
        norm = nn.utils.clip_grad_norm_(self._clipped(), 5.0)
        self.optimiser.step()
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(value, 1.0 - min(self.recipe.average_decay, (1.0 + self.step) / (10.0 + self.step)))
        return {**{name: float(term.detach()) for name, term in terms.items()}, "gradient_norm": float(norm)}

    def _clipped(self) -> Iterable[nn.Parameter]:
        """Return the parameters whose gradient is clipped, in the order in which their norms are added."""
        return self._trained()

    def _judge_step(self, drawn: DrawnT, view: Tensor, wanted: Tensor) -> dict[str, float]:
        with torch.autocast("cpu", torch.bfloat16):
            losses = self._judge_losses(drawn, view, wanted)
        loss = torch.stack(list(losses.values())).sum().float()
        report = {name: float(value.detach()) for name, value in losses.items()}
        for name, (weight, penalty) in self._judge_penalties(drawn, view, wanted).items():
            loss = loss + weight * penalty
            report[name] = float(penalty.detach())
        self.judge_optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.judge_optimiser.step()
        return report

    def _learning_rate(self) -> float:
        recipe = self.recipe
        if not self.adversarial:
            return recipe.learning_rate * min(1.0, (self.step + 1) / 50)
        done = (self.step - recipe.warm_steps) / max(1, recipe.steps - recipe.warm_steps)
        return recipe.adversarial_learning_rate * (0.1 + 0.9 * 0.5 * (1.0 + float(np.cos(np.pi * done))))


def parameter_groups(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Return groups of parameters; the learning rate of a convolution falls with its fan-in (Yang et al. 2021).

    A step of Adam moves all weights by about the same amount. So the outputs of a convolution with 2000 inputs move ten times as
    far as the outputs of a convolution with 200 inputs. With one rate for all, the wide layers grow until a layer behind them gives
    zeros only, and stays so. Source: "Tensor Programs V".
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        scale = min(1.0, _FULL_RATE_FAN_IN / parameter[0].numel()) if parameter.ndim > 1 else 1.0
        groups.setdefault(scale, []).append(parameter)
    return [{"params": members, "rate_scale": scale} for scale, members in groups.items()]
