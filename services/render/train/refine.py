"""Train the prior of the refine network: `python -m services.render.train.refine --data FOLDER --perceptual FILE --out FOLDER`.

Two phases: reconstruction and perceptual loss alone, then all five losses (losses.py) with both discriminators. What is exported is
the exponential moving average of the weights, which is steadier than any one step of an adversarial training.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from services.render.losses import (
    Features,
    LossWeights,
    adversarial_loss,
    compose,
    critic_view,
    discriminator_loss,
    perceptual_loss,
    reconstruction_loss,
    total_variation_loss,
)
from services.render.networks.discriminators import SEQUENCE_FRAMES, PatchDiscriminator, stack_sequence
from services.render.networks.refine import RefineConfig, RefineNetwork
from services.render.networks.vgg import load_vgg
from services.render.networks.weights import load_perceptual, save_weights
from services.render.train.footage import Batch, PairSource, read_people
from services.render.train.held_out import read_held_out
from services.render.train.loop import parse_arguments, run
from services.render.train.trainer import Trainer, to_tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineRecipe:
    """How the committed prior was trained."""

    steps: int = 750
    warm_steps: int = 400
    warm_batch: int = 8
    singles_beside_sequence: int = 2
    learning_rate: float = 1e-3
    adversarial_learning_rate: float = 3e-4
    discriminator_learning_rate: float = 5e-4
    average_decay: float = 0.995
    max_clips: int = 16
    sharp_marks: tuple[str, ...] = ("s4_hq", "ls_demo2")
    sharp_share: float = 0.6
    network: RefineConfig = field(default_factory=RefineConfig)
    weights: LossWeights = field(default_factory=LossWeights)
    seed: int = 20262
    report_every: int = 50
    validate_every: int = 100


class RefineTrainer(Trainer[RefineRecipe, RefineNetwork, Batch]):
    """Networks, optimisers and one step of training."""

    parts = ("network", "average", "frame", "sequence", "optimiser", "judge_optimiser")

    def __init__(self, recipe: RefineRecipe, features: Features) -> None:
        torch.manual_seed(recipe.seed)
        self.features = features
        network = RefineNetwork(recipe.network)
        self.frame = PatchDiscriminator(3)
        self.sequence = PatchDiscriminator(3 * SEQUENCE_FRAMES)
        super().__init__(recipe, network, (self.frame, self.sequence))

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step of the network and, in the second phase, of both discriminators; returns the losses."""
        weights = self.recipe.weights
        inputs, targets = to_tensor(batch.pictures), to_tensor(batch.targets)
        states = self.network.default_state().expand(len(inputs), -1)
        with torch.autocast("cpu", torch.bfloat16):
            residual = self.network(inputs, states)
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
                    terms["sequence"] = weights.sequence * adversarial_loss(self.sequence(_sequence(drawn, batch)))
        report = self._descend(terms, self.network.parameters())
        if self.adversarial:
            report |= self._judge_step(drawn.detach(), wanted, batch)
        self.step += 1
        return report

    def _judge_step(self, drawn: torch.Tensor, wanted: torch.Tensor, batch: Batch) -> dict[str, float]:
        with torch.autocast("cpu", torch.bfloat16):
            frame = discriminator_loss(self.frame(wanted), self.frame(drawn))
            sequence = discriminator_loss(self.sequence(_sequence(wanted, batch)), self.sequence(_sequence(drawn, batch)))
        self._descend_judges((frame + sequence).float())
        return {"frame_judge": float(frame.detach()), "sequence_judge": float(sequence.detach())}

    def write(self, out: Path) -> None:
        """`refine.safetensors` and `frame_discriminator.safetensors`."""
        save_weights(out / "refine.safetensors", self.average, self.recipe.network.to_metadata(), **self._facts())
        save_weights(out / "frame_discriminator.safetensors", self.frame, {"in_channels": 3}, **self._facts())


def _sequence(pictures: torch.Tensor, batch: Batch) -> torch.Tensor:
    return stack_sequence(pictures[None, : batch.num_sequence])


def train(data: Path, features: Features, out: Path, recipe: RefineRecipe, held_out: Sequence[tuple[str, str]]) -> None:
    """Train, or go on training, and write `refine.safetensors` and `frame_discriminator.safetensors` into `out`.

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
    source = PairSource(people, sharp_share=recipe.sharp_share, seed=recipe.seed)
    clips = [read_held_out(data, name, use=use, num_frames=12) for name, use in held_out]

    def drawn(step: int) -> Batch:
        if step < recipe.warm_steps:
            return source.batch(step, num_sequence=0, num_single=recipe.warm_batch)
        return source.batch(step, num_sequence=SEQUENCE_FRAMES, num_single=recipe.singles_beside_sequence)

    run(RefineTrainer(recipe, features), drawn, out, clips, shown="texture")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set: a folder of *.safetensors")
    features = parser.add_mutually_exclusive_group(required=True)
    features.add_argument("--perceptual", type=Path, help="perceptual.safetensors of train.perceptual")
    features.add_argument("--vgg", type=Path, help="your own VGG-19 state dict in torchvision's layout")
    given = parse_arguments(parser, out="build/refine", recipe=RefineRecipe())
    chosen: Features = load_vgg(given.vgg) if given.vgg is not None else load_perceptual(given.perceptual).features
    recipe = RefineRecipe(steps=given.steps, warm_steps=given.warm_steps)
    train(given.data, chosen, given.out, recipe, [(name, use) for name, use in given.held_out])


if __name__ == "__main__":
    main()
