"""Train the prior of `everybody`: `python -m services.render.train.everybody --data FOLDER --perceptual FILE --out FOLDER`.

Eq. 4 of the paper: L1, LSGAN with gradient penalty against the discriminator of table 8 (at a smaller size), perceptual and total
variation, in the units of services/render/losses.py. Beside the discriminator of windows, which sees six filmed frames and the
seventh, filmed or made, a patch discriminator of single frames judges fine detail, which an average over the picture overlooks.
Two phases as in train/trainer.py; the exponential moving average of the weights is served.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from services.render.losses import (
    Features,
    LossWeights,
    adversarial_loss,
    compose,
    critic_view,
    discriminator_loss,
    gradient_penalty,
    perceptual_loss,
    reconstruction_loss,
    total_variation_loss,
)
from services.render.networks.discriminators import PatchDiscriminator
from services.render.networks.everybody import EverybodyConfig, EverybodyNetwork
from services.render.networks.everybody_full import WindowDiscriminator, WindowDiscriminatorConfig
from services.render.networks.weights import load_perceptual, save_weights
from services.render.train.everybody_footage import WindowBatch, WindowSource
from services.render.train.everybody_held_out import read_windows
from services.render.train.footage import read_people
from services.render.train.loop import parse_arguments, run
from services.render.train.trainer import Trainer, to_tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class EverybodyRecipe:
    """How the committed prior was trained.

    Attributes:
        steps: in all.
        warm_steps: of them without discriminators.
        warm_batch: windows a step in the first phase.
        batch: likewise in the second.
        learning_rate: of the first phase (Adam).
        adversarial_learning_rate: at the beginning of the second, falling by half a cosine.
        discriminator_learning_rate: of both discriminators.
        average_decay: of the moving average.
        max_clips: of one person.
        sharp_marks: parts of clip names that mark footage of full resolution.
        sharp_share: of the examples from such clips.
        penalty: weight of L_gp.
        penalty_every: steps from one gradient penalty to the next; it counts so many times as much instead.
        network: what is trained.
        windows: discriminator of windows.
        weights: of the other losses.
        seed: of everything.
        report_every: steps between lines of the log.
        validate_every: steps between validations and checkpoints.
    """

    steps: int = 700
    warm_steps: int = 400
    warm_batch: int = 6
    batch: int = 5
    learning_rate: float = 1e-3
    adversarial_learning_rate: float = 4e-4
    discriminator_learning_rate: float = 5e-4
    average_decay: float = 0.99
    max_clips: int = 16
    sharp_marks: tuple[str, ...] = ("s4_hq", "ls_demo2")
    sharp_share: float = 0.55
    penalty: float = 0.1
    penalty_every: int = 4
    network: EverybodyConfig = field(default_factory=EverybodyConfig)
    windows: WindowDiscriminatorConfig = field(
        default_factory=lambda: WindowDiscriminatorConfig(widths=(32, 64, 96, 128), scores=1)
    )
    weights: LossWeights = field(default_factory=LossWeights)
    seed: int = 20265
    report_every: int = 25
    validate_every: int = 100


class EverybodyTrainer(Trainer[EverybodyRecipe, EverybodyNetwork, WindowBatch]):
    """Networks, optimisers and one step of training."""

    parts = ("network", "average", "frame", "windows", "optimiser", "judge_optimiser")

    def __init__(self, recipe: EverybodyRecipe, features: Features) -> None:
        torch.manual_seed(recipe.seed)
        self.features = features
        network = EverybodyNetwork(recipe.network)
        self.frame = PatchDiscriminator(3)
        self.windows = WindowDiscriminator(recipe.windows)
        super().__init__(recipe, network, (self.frame, self.windows))

    def train_step(self, batch: WindowBatch) -> dict[str, float]:
        """One step of the network and, in the second phase, of both discriminators; returns the losses."""
        weights = self.recipe.weights
        inputs, targets, past = to_tensor(batch.pictures), to_tensor(batch.targets), critic_view(to_tensor(batch.past))
        with torch.autocast("cpu", torch.bfloat16):
            residual = self.network(inputs, self.network.default_state().expand(len(inputs), -1))
        made = compose(inputs, residual.float(), targets)
        drawn, wanted = critic_view(made.pictures), critic_view(targets)
        terms = {
            "reconstruction": weights.reconstruction * reconstruction_loss(made),
            "total_variation": weights.total_variation * total_variation_loss(made),
        }
        with torch.autocast("cpu", torch.bfloat16):
            terms["perceptual"] = weights.perceptual * perceptual_loss(self.features, drawn, wanted)
            if self.adversarial:
                with self._frozen_judges():
                    terms["frame"] = weights.frame * adversarial_loss(self.frame(drawn))
                    terms["windows"] = weights.sequence * adversarial_loss(self.windows(torch.cat([past, drawn], dim=1)))
        report = self._descend(terms, self.network.parameters())
        if self.adversarial:
            report |= self._judge_step(drawn.detach(), wanted, past)
        self.step += 1
        return report

    def _judge_step(self, drawn: torch.Tensor, wanted: torch.Tensor, past: torch.Tensor) -> dict[str, float]:
        recipe = self.recipe
        filmed, made = torch.cat([past, wanted], dim=1), torch.cat([past, drawn], dim=1)
        with torch.autocast("cpu", torch.bfloat16):
            frame = discriminator_loss(self.frame(wanted), self.frame(drawn))
            windows = discriminator_loss(self.windows(filmed), self.windows(made))
        loss = (frame + windows).float()
        report = {"frame_judge": float(frame.detach()), "windows_judge": float(windows.detach())}
        if self.step % recipe.penalty_every == 0:
            shares = torch.from_numpy(np.random.default_rng((recipe.seed, self.step)).random((len(drawn), 1, 1, 1), np.float32))
            penalty = gradient_penalty(self.windows, filmed, made, shares)
            loss = loss + recipe.penalty * recipe.penalty_every * penalty
            report["penalty"] = float(penalty.detach())
        self._descend_judges(loss)
        return report

    def write(self, out: Path) -> None:
        """`everybody.safetensors` and `everybody_discriminator.safetensors`."""
        save_weights(out / "everybody.safetensors", self.average, self.recipe.network.to_metadata(), **self._facts())
        save_weights(out / "everybody_discriminator.safetensors", self.frame, {"in_channels": 3}, **self._facts())


def train(data: Path, features: Features, out: Path, recipe: EverybodyRecipe, held_out: Sequence[tuple[str, str]]) -> None:
    """Train, or go on training, and write `everybody.safetensors` and `everybody_discriminator.safetensors` into `out`.

    A run that was killed goes on, as train/loop.py says.

    Args:
        data: training set.
        features: of the perceptual loss.
        out: folder of the run.
        recipe: all settings.
        held_out: clips to validate on: part of the name, use.

    Raises:
        ValueError: `out` holds a run with another recipe.
    """
    people = read_people(data, use="train", max_clips=recipe.max_clips, sharp_marks=recipe.sharp_marks)
    source = WindowSource(people, sharp_share=recipe.sharp_share, seed=recipe.seed)
    clips = [read_windows(data, name, use=use, num_frames=10) for name, use in held_out]

    def drawn(step: int) -> WindowBatch:
        return source.batch(step, recipe.batch if step >= recipe.warm_steps else recipe.warm_batch)

    run(EverybodyTrainer(recipe, features), drawn, out, clips, shown="first key picture")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set: a folder of *.safetensors")
    parser.add_argument("--perceptual", type=Path, required=True, help="perceptual.safetensors of train.perceptual")
    given = parse_arguments(parser, out="build/everybody", recipe=EverybodyRecipe())
    recipe = EverybodyRecipe(steps=given.steps, warm_steps=given.warm_steps)
    held_out = [(name, use) for name, use in given.held_out]
    train(given.data, load_perceptual(given.perceptual).features, given.out, recipe, held_out)


if __name__ == "__main__":
    main()
