"""Trainer that all renderers share: Adam in two phases, averaged weights, and the order of one step.

The first phase has no discriminators. The exponential moving average of the weights is exported, because the average is steadier
than any one step of an adversarial training. A renderer's own trainer says how a batch is drawn, and which
discriminators see the pictures. Recipes hold the settings, checks measure quality on held-out clips.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from research.render.export import write_calibration
from research.render.held_out import Clip, Draw, HeldOut, base_pictures, blended, draw_sheet, measure
from research.render.people import MIN_FRAMES, BatchSource, PeopleSettings
from research.training.device import Device
from research.training.training import Check, LoopSettings, Stateful, Training, follow
from research.training.trainset import ClipRow, TrainSet, by_speaker
from services.common.array_types import Float32, UInt8
from services.common.errors import InvalidRequestError
from services.render.losses import ComposedPictures, Features, discriminator_view, perceptual_loss
from services.render.networks.unet import UNetTrunk
from services.render.networks.weights import to_tensor
from services.render.pairs import BASE, Pair

RecipeT = TypeVar("RecipeT", bound="Recipe")
CHECK_FRAMES: Final = 10
"""Frames that a check draws of each clip."""
_SHOWN: Final = 4
"""Frames of each clip on a contact sheet."""
_FULL_RATE_FAN_IN: Final = 216
"""Fan-in up to which a convolution has the full learning rate: that of the last layer, 24 channels of 3 x 3."""
_GRADIENT_NORM: Final = 5.0
NetworkT = TypeVar("NetworkT", bound=UNetTrunk)
BatchT = TypeVar("BatchT")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Recipe of a prior's training: a first phase without discriminators, then a second phase with discriminators.

    The recipe of a renderer adds its own settings. Its default values have the sizes of the committed prior.

    Attributes:
        loop: length, pace and machinery.
        warm_steps: steps of the first phase.
        warm_batch: examples of a batch in the first phase.
        batch: examples of a batch in the second phase.
        learning_rate: learning rate of the first phase (Adam).
        adversarial_learning_rate: learning rate at the beginning of the second phase. It falls by half a cosine.
        average_decay: decay of the moving average of the weights.
        people: which people are drawn how often, and how many of them are in memory.
        vgg: path of your own VGG-19 file (research.render.training) for the perceptual loss; empty: the perceptual network.
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


def check_rows(data: TrainSet, count: int, *, without: Collection[str] = ()) -> list[ClipRow]:
    """Return at most `count` clips of split `val`, spread over the speakers.

    Args:
        count: largest number of clips.
        without: speakers whose clips are left out.

    Raises:
        InvalidRequestError: there is no such clip, or all are too short.
    """
    groups = by_speaker(
        row for row in data.of("val", pixels=True) if row.usable_frames >= MIN_FRAMES and row.speaker not in without
    )
    turns = max((len(rows) for rows in groups.values()), default=0)
    # The first clip of every speaker, then the second clip of every speaker, and so on.
    ordered = [rows[turn] for turn in range(turns) for rows in groups.values() if turn < len(rows)]
    if not ordered:
        raise InvalidRequestError(
            f"{data.folder}: no clip of split 'val' can be drawn: a clip must show the mouth in at least {MIN_FRAMES} frames, and "
            "its person must have all that the network needs",
            field="data",
        )
    if len(groups) <= count:
        return ordered[:count]
    return [ordered[index] for index in np.unique(np.linspace(0, len(groups) - 1, count).round().astype(int))]


class HeldOutClips:
    """Held-out clips of a training, read at the first check.

    Args:
        learned: names of the people that the network learns from.
        read: returns a clip with a number of pairs, evenly spread.
    """

    def __init__(
        self, rows: Collection[ClipRow], data: TrainSet, learned: Collection[str], read: Callable[[Clip, int], HeldOut]
    ) -> None:
        self._rows, self._data, self._learned, self._read = tuple(rows), data, frozenset(learned), read

    def check(self, draw: Draw, path: Path) -> Check:
        """Return metrics by group of clips, without a score, and write a contact sheet.

        The groups are `known`, clips of people that the network learns from, and `new`, clips of other people. Figures that begin
        with `base` belong to the pictures that the network starts from. On the sheet, each column has such a picture, the drawn
        one, and the footage.

        Args:
            path: file of the contact sheet.
        """
        values: dict[str, list[float]] = {}
        columns = []
        for row, clip, base_db in self._clips:
            group = "known" if row.speaker in self._learned else "new"
            metrics = measure(clip, draw)
            for name, value in (
                (f"{group}_psnr_db", metrics.psnr_db),
                (f"{group}_sharpness", metrics.sharpness_ratio),
                (f"{group}_base_psnr_db", base_db),
            ):
                values.setdefault(name, []).append(value)
            some = clip.pairs[:: max(1, len(clip.pairs) // _SHOWN)][:_SHOWN]
            for pair, given, drawn in zip(some, base_pictures(some), draw(some), strict=True):
                columns.append([blended(pair, given), blended(pair, drawn), pair.target])
        draw_sheet(path, columns)
        return Check({name: float(np.mean(each)) for name, each in values.items()})

    @cached_property
    def _clips(self) -> list[tuple[ClipRow, HeldOut, float]]:
        clips = [(row, self._read(Clip(self._data, row), CHECK_FRAMES)) for row in self._rows]
        return [(row, clip, measure(clip, base_pictures).psnr_db) for row, clip in clips]


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Pictures that one pass has drawn.

    Attributes:
        composed: the pictures with mask and target.
    """

    composed: ComposedPictures


DrawnT = TypeVar("DrawnT", bound=Drawn)


@dataclass(frozen=True, slots=True, eq=False)
class TrainerInputs:
    """Everything that a trainer works with beside its recipe.

    Attributes:
        device: where the process computes.
        source: source of batches.
        held_out: clips for the checks.
        features: features of the perceptual loss, on the device.
    """

    device: Device
    source: BatchSource[Any]
    held_out: HeldOutClips
    features: Features


class Trainer(Training[BatchT], Generic[RecipeT, NetworkT, BatchT, DrawnT]):
    """Network, discriminators and optimisers of a training.

    Args:
        inputs: device, source of batches, held-out clips and features.
        network: the network to train. Its pictures are drawn from a default state.
        judges: discriminators by the names under which a checkpoint holds them.
    """

    more_parts: ClassVar[tuple[str, ...]] = ()
    """Attributes that a checkpoint holds beside network, average, optimisers and discriminators."""

    def __init__(self, recipe: RecipeT, inputs: TrainerInputs, network: NetworkT, judges: Mapping[str, nn.Module]) -> None:
        super().__init__(recipe.loop, inputs.device, inputs.source.people.rows)
        self.recipe, self._inputs = recipe, inputs
        device = inputs.device.torch_device
        self.network: NetworkT = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser = torch.optim.Adam(parameter_groups(self._trained()), recipe.learning_rate, betas=(0.9, 0.99))
        self.judges = nn.ModuleDict(dict(judges)).to(device)
        self.judge_optimiser = torch.optim.Adam(self.judges.parameters(), recipe.discriminator_learning_rate, betas=(0.5, 0.99))
        with self._only(self._trained()):
            self._objective = inputs.device.parallel(self.network, self._losses)
        self._discriminator_step = inputs.device.parallel(self.judges, self._discriminated)
        self._steps_done = 0

    @abstractmethod
    def _drawn(self, batch: BatchT) -> DrawnT:
        """Draw the pictures of a batch."""

    @abstractmethod
    def _terms(self, drawn: DrawnT) -> dict[str, Tensor]:
        """Return the weighted losses of both phases, beside the perceptual loss."""

    @abstractmethod
    def _adversarial_terms(self, drawn: DrawnT, view: Tensor) -> dict[str, Tensor]:
        """Return the weighted adversarial losses of the network.

        Args:
            drawn: what `_drawn` returned.
            view: the part of the drawn pictures that discriminators see, float [B, 3, h, w].
        """

    @abstractmethod
    def _discriminator_losses(self, drawn: DrawnT, view: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the losses of the discriminators by their names in the log.

        Args:
            drawn: what `_drawn` returned, without gradients.
            view: the part of the drawn pictures that discriminators see, float [B, 3, h, w], without gradient.
            target: the same part of the footage.
        """

    @property
    @abstractmethod
    def perceptual_weight(self) -> float:
        """Weight of the perceptual loss."""

    def parts(self) -> Mapping[str, Stateful]:
        """Return network, average, discriminators and optimisers."""
        names = ("network", "average", "optimiser", "judges", "judge_optimiser", *self.more_parts)
        return {name: getattr(self, name) for name in names}

    def batch(self, step: int, index: int) -> BatchT:
        """See Training.batch."""
        drawn: BatchT = self._inputs.source.batch(step, index, self.recipe.batch_of(step))
        return drawn

    def learn(self, step: int, batches: Sequence[BatchT]) -> Mapping[str, float]:
        """Do one step of the network and, in the second phase, of the discriminators; return the means of the losses."""
        adversarial = step >= self.recipe.warm_steps
        report = self._before_descent(step, batches)
        drawings: list[DrawnT] = []
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate_at(step) * group["rate_scale"]
        self.optimiser.zero_grad(set_to_none=True)
        for number, batch in enumerate(batches):
            self.seed_pass(step, number)
            with self.device.without_exchange(self._objective, last=number == len(batches) - 1):
                terms, drawn = self._objective(batch, adversarial)
                torch.autograd.backward(torch.stack(list(terms.values())).sum() / len(batches))
            drawings.append(drawn)
            add_mean(report, terms, len(batches))
        report["gradient_norm"] = float(nn.utils.clip_grad_norm_(list(self._trained()), _GRADIENT_NORM))
        self.optimiser.step()
        follow(self.average, self.network, self.recipe.average_decay, step)
        report |= self._after_descent(drawings)
        if adversarial:
            self.judge_optimiser.zero_grad(set_to_none=True)
            for number, drawn in enumerate(drawings):
                self.seed_pass(step, number)
                with self.device.without_exchange(self._discriminator_step, last=number == len(batches) - 1):
                    losses = self._discriminator_step(drawn, step)
                    torch.autograd.backward(torch.stack(list(losses.values())).sum() / len(batches))
                add_mean(report, losses, len(batches))
            self.judge_optimiser.step()
        return report

    def check(self, step: int, folder: Path) -> Check:
        """Draw the held-out clips, and write the contact sheet held_out_STEP.png. There is no score: the last step is kept."""
        self._steps_done = step
        return self._inputs.held_out.check(self.draw, folder / f"held_out_{step:06d}.png")

    def finish(self, folder: Path) -> None:
        """Write the inputs that the export calibrates the int8 file with."""
        write_calibration(folder, self._inputs.source.batch(0, 0, self.recipe.calibration_pictures).pictures)

    @torch.no_grad()
    def draw(self, pairs: Sequence[Pair]) -> Float32:
        """Return faces by the averaged network and the default state: float32 [N, 160, 160, 3], grey levels."""
        pictures = np.stack([pair.picture for pair in pairs])
        residual = self.average(self._tensor(pictures), self._default_states(len(pairs))).permute(0, 2, 3, 1).cpu().numpy()
        return np.asarray(pictures[..., BASE] + residual * 255.0, dtype=np.float32)

    def facts(self) -> dict[str, str]:
        """Return metadata for the header of weights files."""
        return {"steps": str(self._steps_done), "seed": str(self.settings.seed)}

    def _trained(self) -> Iterable[nn.Parameter]:
        """Return the parameters of the network that the optimiser moves."""
        return self.network.parameters()

    def _before_descent(self, step: int, batches: Sequence[BatchT]) -> dict[str, float]:
        """Do what comes before the network's step; return metrics for the curves."""
        return {}

    def _after_descent(self, drawings: Sequence[DrawnT]) -> dict[str, float]:
        """Do what follows the network's step; return metrics for the curves."""
        return {}

    def _discriminator_penalties(self, drawn: DrawnT, view: Tensor, target: Tensor, step: int) -> dict[str, Tensor]:
        """Return weighted penalties of the discriminators' step by their names in the log."""
        return {}

    def _tensor(self, pictures: UInt8) -> Tensor:
        return to_tensor(pictures, self.device.torch_device)

    def _default_states(self, count: int) -> Tensor:
        return self.network.default_state().to(self.device.torch_device).expand(count, -1)

    def _autocast(self) -> torch.autocast:
        return self.device.autocast(bfloat16=self.settings.bfloat16)

    def _losses(self, batch: BatchT, adversarial: bool) -> tuple[dict[str, Tensor], DrawnT]:
        """Return the weighted losses of the network, and what was drawn without gradients."""
        drawn = self._drawn(batch)
        view, target = discriminator_view(drawn.composed.pictures), discriminator_view(drawn.composed.target)
        terms = self._terms(drawn)
        with self._autocast():
            terms["perceptual"] = self.perceptual_weight * perceptual_loss(self._inputs.features, view, target)
            if adversarial:
                with self._frozen_judges():
                    terms |= self._adversarial_terms(drawn, view)
        kept = {each.name: _detached(getattr(drawn, each.name)) for each in fields(drawn)}
        return {name: term.float() for name, term in terms.items()}, replace(drawn, **kept)

    def _discriminated(self, drawn: DrawnT, step: int) -> dict[str, Tensor]:
        """Return the losses and penalties of the discriminators."""
        view, target = discriminator_view(drawn.composed.pictures), discriminator_view(drawn.composed.target)
        with self._autocast():
            losses = self._discriminator_losses(drawn, view, target)
        losses |= self._discriminator_penalties(drawn, view, target, step)
        return {name: loss.float() for name, loss in losses.items()}

    @contextmanager
    def _frozen_judges(self) -> Iterator[None]:
        self.judges.requires_grad_(False)
        yield
        self.judges.requires_grad_(True)

    @contextmanager
    def _only(self, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
        """Freeze all other parameters of the network."""
        learning = {id(value) for value in parameters}
        others = [value for value in self.network.parameters() if value.requires_grad and id(value) not in learning]
        for value in others:
            value.requires_grad_(False)
        yield
        for value in others:
            value.requires_grad_(True)


def add_mean(report: dict[str, float], values: Mapping[str, Tensor], count: int) -> None:
    """Add a pass's values to the means over `count` passes of a step."""
    for name, value in values.items():
        report[name] = report.get(name, 0.0) + float(value.detach()) / count


def parameter_groups(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Return groups of parameters; the learning rate of a convolution falls with its fan-in (Yang et al. 2021).

    A step of Adam moves all weights by about the same amount. So the outputs of a convolution with 2000 inputs move ten times as
    far as the outputs of a convolution with 200 inputs. With one rate for all, the wide layers grow until a layer behind them gives
    zeros only, and stays so. Source: "Tensor Programs V".
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        scale = min(1.0, _FULL_RATE_FAN_IN / parameter.shape[1:].numel()) if parameter.ndim > 1 else 1.0
        groups.setdefault(scale, []).append(parameter)
    return [{"params": members, "rate_scale": scale} for scale, members in groups.items()]


def _detached(value: Any) -> Any:
    """Return a tensor, or a named tuple of tensors, without gradients; another value as it is."""
    if isinstance(value, Tensor):
        return value.detach()
    return type(value)(*map(_detached, value)) if isinstance(value, tuple) else value
