"""Train `headpose`: `python -m services.render.train.headpose --data SET --identities FOLDER --perceptual FILE --out FOLDER`.

Eq. 4 of the paper, in the units of services/render/losses.py: adversarial (least squares, for the reason given there) with a patch
discriminator that sees the window of rendered frames and the frame to judge, L1, and size and smoothness of the attention mask.
Added are the perceptual loss of the other renderers, a discriminator of single frames, and a loss of detail's strength. As
footnote 5 says, memory and generator take turns: first the threshold triplet loss and the memory's items, then the GAN. Two phases
as in train/trainer.py; the exponential moving average of the weights is served.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from services.render.backends.registry import WEIGHTS_FOLDER
from services.render.drawn_face import DRAWN_WINDOW, RENDERED, RENDERED_BEFORE
from services.render.identity_features import EMBEDDING, IdentityFeatures, read_identity_features
from services.render.losses import (
    adversarial_loss,
    compose,
    critic_view,
    detail_loss,
    discriminator_loss,
    perceptual_loss,
    reconstruction_loss,
)
from services.render.networks.discriminators import PatchDiscriminator
from services.render.networks.headpose import (
    HeadposeConfig,
    HeadposeNetwork,
    attention_loss,
    attention_smoothness_loss,
    refined,
)
from services.render.networks.perceptual import PerceptualNetwork
from services.render.networks.weights import load_perceptual, save_weights
from services.render.train.footage import read_people
from services.render.train.headpose_footage import DrawnBatch, DrawnSource, read_drawings
from services.render.train.headpose_held_out import read_drawn
from services.render.train.loop import parse_arguments, run
from services.render.train.trainer import Trainer, to_tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadposeWeights:
    """Weights of Eq. 4, then of what is added. The paper has 1 : 100 : 2 : 1e-5 in its units.

    With a heavier conditional discriminator and a lighter attention loss the generator soon hands the drawn face through, whose
    low-frequency albedo is smooth: A went from .28 to .74 within a hundred steps.
    """

    adversarial: float = 0.25
    reconstruction: float = 10.0
    attention: float = 0.4
    smoothness: float = 0.1
    perceptual: float = 1.0
    frame: float = 1.0
    detail: float = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadposeRecipe:
    """How the committed prior was trained.

    Attributes:
        steps: in all.
        warm_steps: of them without discriminators.
        warm_batch: windows a step in the first phase.
        batch: likewise in the second.
        learning_rate: of the first phase (Adam).
        adversarial_learning_rate: at the beginning of the second, falling by half a cosine.
        discriminator_learning_rate: of both discriminators.
        memory_learning_rate: of the spatial features' layer.
        average_decay: of the moving average.
        max_clips: of one person.
        sharp_marks: parts of clip names that mark footage of full resolution.
        sharp_share: of the examples from such clips.
        embedding: digest of the identity embedding's file.
        network: what is trained.
        weights: of the losses.
        seed: of everything.
        report_every: steps between lines of the log.
        validate_every: steps between validations and checkpoints.
    """

    steps: int = 600
    warm_steps: int = 300
    warm_batch: int = 6
    batch: int = 5
    learning_rate: float = 1e-3
    adversarial_learning_rate: float = 3e-4
    discriminator_learning_rate: float = 5e-4
    memory_learning_rate: float = 2e-3
    average_decay: float = 0.99
    max_clips: int = 16
    sharp_marks: tuple[str, ...] = ("s4_hq", "ls_demo2")
    sharp_share: float = 0.55
    embedding: str = ""
    network: HeadposeConfig = field(default_factory=HeadposeConfig)
    weights: HeadposeWeights = field(default_factory=HeadposeWeights)
    seed: int = 20269
    report_every: int = 25
    validate_every: int = 100


class HeadposeTrainer(Trainer[HeadposeRecipe, HeadposeNetwork, DrawnBatch]):
    """Networks, optimisers and one step of training."""

    parts = ("network", "average", "judge", "frame", "optimiser", "memory_optimiser", "judge_optimiser")

    def __init__(self, recipe: HeadposeRecipe, perceptual: PerceptualNetwork, identity: IdentityFeatures) -> None:
        torch.manual_seed(recipe.seed)
        self.features = perceptual.features
        self.identity = identity
        network = HeadposeNetwork(recipe.network)
        network.spatial.load_base(perceptual)
        self.judge = PatchDiscriminator(3 * (DRAWN_WINDOW + 1))
        self.frame = PatchDiscriminator(3)
        super().__init__(recipe, network, (self.judge, self.frame))
        self.memory_optimiser = torch.optim.Adam([self.network.spatial.weight], recipe.memory_learning_rate)

    def _trained(self) -> list[nn.Parameter]:
        memory = {id(value) for value in self.network.spatial.parameters()}
        return [value for value in self.network.parameters() if id(value) not in memory]

    def write(self, out: Path) -> None:
        """`headpose.safetensors`."""
        facts = {**self._facts(), EMBEDDING: self.identity.sha256}
        save_weights(out / "headpose.safetensors", self.average, self.recipe.network.to_metadata(), **facts)

    def train_step(self, batch: DrawnBatch) -> dict[str, float]:
        """One step of the memory, of the generator and, in the second phase, of the discriminator; returns the losses."""
        inputs, targets = to_tensor(batch.pictures), to_tensor(batch.targets)
        report = self._memory_step(inputs, torch.from_numpy(self.identity.of(batch.targets)))
        identity = torch.from_numpy(self.identity.of(batch.others))
        weights = self.recipe.weights
        with torch.autocast("cpu", torch.bfloat16):
            masks = self.network.masks(inputs, torch.zeros(len(inputs), self.network.film_size), identity)
        masks = type(masks)(masks.colour.float(), masks.attention.float())
        made = compose(inputs, refined(inputs[:, RENDERED], masks) - inputs[:, RENDERED], targets)
        window = critic_view(torch.cat([inputs[:, part] for part in (RENDERED, *RENDERED_BEFORE)], dim=1))
        drawn, wanted = critic_view(made.pictures), critic_view(targets)
        terms = {
            "reconstruction": weights.reconstruction * reconstruction_loss(made),
            "attention": weights.attention * attention_loss(masks, made.mask),
            "smoothness": weights.smoothness * attention_smoothness_loss(masks, made.mask),
            "detail": weights.detail * detail_loss(made),
        }
        with torch.autocast("cpu", torch.bfloat16):
            terms["perceptual"] = weights.perceptual * perceptual_loss(self.features, drawn, wanted)
            if self.adversarial:
                with self._frozen_judges():
                    terms["adversarial"] = weights.adversarial * adversarial_loss(self.judge(torch.cat([window, drawn], dim=1)))
                    terms["frame"] = weights.frame * adversarial_loss(self.frame(drawn))
        report |= self._descend(terms, [value for group in self.optimiser.param_groups for value in group["params"]])
        # The memory belongs to the spatial features as they are now: neither of them is averaged.
        self.average.spatial.load_state_dict(self.network.spatial.state_dict())
        self.average.memory.load_state_dict(self.network.memory.state_dict())
        report["mean_attention"] = float(masks.attention.detach().mean())
        if self.adversarial:
            report |= self._judge_step(window, wanted, drawn.detach())
        self.step += 1
        return report

    def _memory_step(self, inputs: torch.Tensor, identity: torch.Tensor) -> dict[str, float]:
        """Footnote 5: the memory first. Pairs are the rendered frame's spatial feature and the filmed frame's identity feature."""
        network = self.network
        query = network.spatial(inputs[:, RENDERED])
        loss = network.memory.triplet_loss(query, identity)
        if loss.requires_grad:
            self.memory_optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self.memory_optimiser.step()
        with torch.no_grad():
            query = network.spatial(inputs[:, RENDERED])
            empty = torch.zeros(len(query), 0, query.shape[1]), torch.zeros(len(query), 0, identity.shape[1])
            recalled = (network.memory.recall(query[:, None], *empty)[:, 0] * identity).sum(dim=1).mean()
        network.memory.update(query, identity)
        return {"triplet": float(loss.detach()), "recalled_likeness": float(recalled), "items": float(network.memory.num_present())}

    def _judge_step(self, window: torch.Tensor, wanted: torch.Tensor, drawn: torch.Tensor) -> dict[str, float]:
        with torch.autocast("cpu", torch.bfloat16):
            judge = discriminator_loss(*(self.judge(torch.cat([window, seen], dim=1)) for seen in (wanted, drawn)))
            frame = discriminator_loss(self.frame(wanted), self.frame(drawn))
        self._descend_judges((judge + frame).float())
        return {"judge": float(judge.detach()), "frame_judge": float(frame.detach())}


def train(
    data: Path, identities: Path, perceptual: PerceptualNetwork, identity: IdentityFeatures, out: Path,
    recipe: HeadposeRecipe, held_out: Sequence[tuple[str, str]],
) -> None:  # fmt: skip
    """Train, or go on training, and write `headpose.safetensors` into `out`.

    A run that was killed goes on, as train/loop.py says.

    Args:
        data: training set.
        identities: of its people and of the held-out clips (services.face.train.identities).
        perceptual: features of the perceptual loss and of the memory's queries.
        identity: the embedding.
        out: folder of the run.
        recipe: all settings.
        held_out: clips to validate on: part of the name, use.

    Raises:
        ValueError: `out` holds a run with another recipe.
    """
    people = read_people(data, use="train", max_clips=recipe.max_clips, sharp_marks=recipe.sharp_marks)
    drawings = {person.name: read_drawings(identities, person.name) for person in people}
    source = DrawnSource(people, drawings, sharp_share=recipe.sharp_share, seed=recipe.seed)
    clips = [
        read_drawn(data, name, use=use, num_frames=10, drawing=read_drawings(identities, name).film, detailed=False)
        for name, use in held_out
    ]

    def drawn(step: int) -> DrawnBatch:
        return source.batch(step, recipe.batch if step >= recipe.warm_steps else recipe.warm_batch)

    run(HeadposeTrainer(recipe, perceptual, identity), drawn, out, clips, shown="rendered frame")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set: a folder of *.safetensors")
    parser.add_argument("--identities", type=Path, required=True, help="folder of services.face.train.identities")
    parser.add_argument("--perceptual", type=Path, required=True, help="perceptual.safetensors of train.perceptual")
    parser.add_argument(
        "--identity-weights", type=Path, default=WEIGHTS_FOLDER / f"{EMBEDDING}.safetensors", help="or ArcFace.onnx"
    )
    given = parse_arguments(parser, out="build/headpose", recipe=HeadposeRecipe())
    identity = read_identity_features(given.identity_weights)
    recipe = HeadposeRecipe(
        steps=given.steps,
        warm_steps=given.warm_steps,
        embedding=identity.sha256,
        network=HeadposeConfig(identity_size=identity.size),
    )
    held_out = [(name, use) for name, use in given.held_out]
    train(given.data, given.identities, load_perceptual(given.perceptual), identity, given.out, recipe, held_out)


if __name__ == "__main__":
    main()
