"""Train the prior of the refine network: `python -m services.render.train.refine --data FOLDER --perceptual FILE --out FOLDER`.

Two phases: reconstruction and perceptual loss alone, then all five losses (losses.py) with both discriminators. What is exported is
the exponential moving average of the weights, which is steadier than any one step of an adversarial training.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from services.render.adapt.pairs import Pair
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
from services.render.train.held_out import HeldOut, blended, measure, read_held_out, textures
from services.render.train.run_folder import RunFolder

_FULL_RATE_FAN_IN: Final = 216
"""That of the last layer, 24 channels of 3 x 3."""


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


class RefineTrainer:
    """Networks, optimisers and one step of training."""

    def __init__(self, recipe: RefineRecipe, features: Features) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.features = features
        self.network = RefineNetwork(recipe.network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.frame = PatchDiscriminator(3)
        self.sequence = PatchDiscriminator(3 * SEQUENCE_FRAMES)
        self.optimiser = torch.optim.Adam(parameter_groups(self.network), recipe.learning_rate, betas=(0.9, 0.99))
        self.judge_optimiser = torch.optim.Adam(
            [*self.frame.parameters(), *self.sequence.parameters()],
            recipe.discriminator_learning_rate,
            betas=(0.5, 0.99),
        )
        self.step = 0

    def state(self) -> dict[str, Any]:
        """All that a resumed training needs."""
        parts: dict[str, Any] = {name: getattr(self, name).state_dict() for name in self._parts}
        return {**parts, "step": self.step}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        for name in self._parts:
            getattr(self, name).load_state_dict(state[name])
        self.step = int(state["step"])

    _parts = ("network", "average", "frame", "sequence", "optimiser", "judge_optimiser")

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step of the network and, in the second phase, of both discriminators; returns the losses."""
        recipe, weights = self.recipe, self.recipe.weights
        adversarial = self.step >= recipe.warm_steps
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate() * group["rate_scale"]
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
            if adversarial:
                for judge in (self.frame, self.sequence):
                    judge.requires_grad_(False)
                terms["frame"] = weights.frame * adversarial_loss(self.frame(drawn))
                terms["sequence"] = weights.sequence * adversarial_loss(self.sequence(_sequence(drawn, batch)))
                for judge in (self.frame, self.sequence):
                    judge.requires_grad_(True)
        loss = torch.stack([term.float() for term in terms.values()]).sum()
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(value, 1.0 - min(recipe.average_decay, (1.0 + self.step) / (10.0 + self.step)))
        report = {name: float(term.detach()) for name, term in terms.items()}
        report["gradient_norm"] = float(norm)
        if adversarial:
            report |= self._judge_step(drawn.detach(), wanted, batch)
        self.step += 1
        return report

    def _judge_step(self, drawn: torch.Tensor, wanted: torch.Tensor, batch: Batch) -> dict[str, float]:
        with torch.autocast("cpu", torch.bfloat16):
            frame = discriminator_loss(self.frame(wanted), self.frame(drawn))
            sequence = discriminator_loss(self.sequence(_sequence(wanted, batch)), self.sequence(_sequence(drawn, batch)))
        self.judge_optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward((frame + sequence).float())
        self.judge_optimiser.step()
        return {"frame_judge": float(frame.detach()), "sequence_judge": float(sequence.detach())}

    def _learning_rate(self) -> float:
        recipe = self.recipe
        if self.step < recipe.warm_steps:
            return recipe.learning_rate * min(1.0, (self.step + 1) / 50)
        done = (self.step - recipe.warm_steps) / max(1, recipe.steps - recipe.warm_steps)
        return recipe.adversarial_learning_rate * (0.1 + 0.9 * 0.5 * (1.0 + float(np.cos(np.pi * done))))

    @torch.no_grad()
    def draw(self, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
        """Faces by the averaged network and the default state: float32 [N, 160, 160, 3], grey levels."""
        pictures = np.stack([pair.picture for pair in pairs])
        states = self.average.default_state().expand(len(pairs), -1)
        residual = self.average(to_tensor(pictures), states).permute(0, 2, 3, 1).numpy()
        return np.asarray(pictures[..., 3:6] + residual * 255.0, dtype=np.float32)


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Weights of each convolution with a learning rate that falls with its fan-in (Yang et al. 2021, "Tensor Programs V").

    A step of Adam moves all weights by about the same amount, so the outputs of a convolution with 2000 inputs move ten times
    as far as those of one with 200. Without this the wide layers grow until a layer behind them gives zeros only, and stays so.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in network.parameters():
        scale = min(1.0, _FULL_RATE_FAN_IN / parameter[0].numel()) if parameter.ndim > 1 else 1.0
        groups.setdefault(scale, []).append(parameter)
    return [{"params": parameters, "rate_scale": scale} for scale, parameters in groups.items()]


def to_tensor(pictures: npt.NDArray[np.uint8]) -> torch.Tensor:
    """uint8 [B, H, W, C] to float32 [B, C, H, W] in [0, 1], channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div_(255.0)


def _sequence(pictures: torch.Tensor, batch: Batch) -> torch.Tensor:
    return stack_sequence(pictures[None, : batch.num_sequence])


def train(data: Path, features: Features, out: Path, recipe: RefineRecipe, held_out: Sequence[tuple[str, str]]) -> None:
    """Train, or go on training, and write `refine.safetensors` and `frame_discriminator.safetensors` into `out`.

    A run that was killed goes on from its last checkpoint (every `validate_every` steps) to the very weights it would have made.

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
    folder, trainer = RunFolder(out), RefineTrainer(recipe, features)
    if (held := folder.resume(recipe)) is not None:
        trainer.restore(held)
    for clip in clips:
        found = measure(clip, textures)
        print(f"{clip.name}: texture alone {found}", flush=True)
    started = time.monotonic()
    while trainer.step < recipe.steps:
        adversarial = trainer.step >= recipe.warm_steps
        batch = source.batch(
            trainer.step,
            num_sequence=SEQUENCE_FRAMES if adversarial else 0,
            num_single=recipe.singles_beside_sequence if adversarial else recipe.warm_batch,
        )
        report = trainer.train_step(batch)
        if trainer.step % recipe.report_every == 0:
            folder.log(trainer.step, {**report, "minutes": (time.monotonic() - started) / 60})
        if trainer.step % recipe.validate_every == 0 or trainer.step == recipe.steps:
            _validate(trainer, clips, folder)
            # The checkpoint last: a run that is killed before it does all of this again.
            _write(trainer, out)
            folder.save(trainer.state(), recipe)


def _validate(trainer: RefineTrainer, clips: Sequence[HeldOut], folder: RunFolder) -> None:
    figures: dict[str, float] = {}
    columns = []
    for clip in clips:
        found = measure(clip, trainer.draw)
        figures |= {f"{clip.name}_psnr_db": found.psnr_db, f"{clip.name}_sharpness": found.sharpness_ratio}
        shown = clip.pairs[:: max(1, len(clip.pairs) // 4)][:4]
        for pair, texture, drawn in zip(shown, textures(shown), trainer.draw(shown), strict=True):
            columns.append([blended(pair, texture), blended(pair, drawn), pair.target])
    if clips:
        folder.log(trainer.step, figures)
        folder.draw_grid(f"held_out_{trainer.step:05d}", columns)
    folder.draw_curves()


def _write(trainer: RefineTrainer, out: Path) -> None:
    facts = {"steps": str(trainer.step), "seed": str(trainer.recipe.seed)}
    save_weights(out / "refine.safetensors", trainer.average, trainer.recipe.network.to_metadata(), **facts)
    save_weights(out / "frame_discriminator.safetensors", trainer.frame, {"in_channels": 3}, **facts)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set: a folder of *.safetensors")
    features = parser.add_mutually_exclusive_group(required=True)
    features.add_argument("--perceptual", type=Path, help="perceptual.safetensors of train.perceptual")
    features.add_argument("--vgg", type=Path, help="your own VGG-19 state dict in torchvision's layout")
    parser.add_argument("--out", type=Path, default=Path("build/refine"), help="folder of the run")
    parser.add_argument("--steps", type=int, default=RefineRecipe().steps)
    parser.add_argument("--warm-steps", type=int, default=RefineRecipe().warm_steps)
    parser.add_argument("--held-out", nargs=2, action="append", default=[], metavar=("NAME", "USE"))
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(1)
    chosen: Features = load_vgg(given.vgg) if given.vgg is not None else load_perceptual(given.perceptual).features
    recipe = RefineRecipe(steps=given.steps, warm_steps=given.warm_steps)
    train(given.data, chosen, given.out, recipe, [(name, use) for name, use in given.held_out])


if __name__ == "__main__":
    main()
