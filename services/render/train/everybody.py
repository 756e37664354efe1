"""Train the prior of `everybody`: `python -m services.render.train.everybody --data FOLDER --perceptual FILE --out FOLDER`.

Eq. 4 of the paper: L1, LSGAN with gradient penalty against the discriminator of table 8 (at a smaller size), perceptual and total
variation, in the units of services/render/losses.py. Beside the discriminator of windows, which sees six filmed frames and the
seventh, filmed or made, a patch discriminator of single frames judges fine detail, which an average over the picture overlooks.
Two phases as in train/refine.py; the exponential moving average of the weights is served.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from services.render.train.held_out import HeldOut, blended, measure, textures
from services.render.train.refine import parameter_groups, to_tensor
from services.render.train.run_folder import RunFolder


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


class EverybodyTrainer:
    """Networks, optimisers and one step of training."""

    def __init__(self, recipe: EverybodyRecipe, features: Features) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.features = features
        self.network = EverybodyNetwork(recipe.network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.frame = PatchDiscriminator(3)
        self.windows = WindowDiscriminator(recipe.windows)
        self.optimiser = torch.optim.Adam(parameter_groups(self.network), recipe.learning_rate, betas=(0.9, 0.99))
        judges = [*self.frame.parameters(), *self.windows.parameters()]
        self.judge_optimiser = torch.optim.Adam(judges, recipe.discriminator_learning_rate, betas=(0.5, 0.99))
        self.step = 0

    _parts = ("network", "average", "frame", "windows", "optimiser", "judge_optimiser")

    def state(self) -> dict[str, Any]:
        """All that a resumed training needs."""
        return {**{name: getattr(self, name).state_dict() for name in self._parts}, "step": self.step}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        for name in self._parts:
            getattr(self, name).load_state_dict(state[name])
        self.step = int(state["step"])

    def train_step(self, batch: WindowBatch) -> dict[str, float]:
        """One step of the network and, in the second phase, of both discriminators; returns the losses."""
        recipe, weights = self.recipe, self.recipe.weights
        adversarial = self.step >= recipe.warm_steps
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate() * group["rate_scale"]
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
            if adversarial:
                self._freeze_judges(True)
                terms["frame"] = weights.frame * adversarial_loss(self.frame(drawn))
                terms["windows"] = weights.sequence * adversarial_loss(self.windows(torch.cat([past, drawn], dim=1)))
                self._freeze_judges(False)
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
            report |= self._judge_step(drawn.detach(), wanted, past)
        self.step += 1
        return report

    def _freeze_judges(self, frozen: bool) -> None:
        for judge in (self.frame, self.windows):
            judge.requires_grad_(not frozen)

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
        self.judge_optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.judge_optimiser.step()
        return report

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


def train(data: Path, features: Features, out: Path, recipe: EverybodyRecipe, held_out: Sequence[tuple[str, str]]) -> None:
    """Train, or go on training, and write `everybody.safetensors` and `everybody_discriminator.safetensors` into `out`.

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
    source = WindowSource(people, sharp_share=recipe.sharp_share, seed=recipe.seed)
    clips = [read_windows(data, name, use=use, num_frames=10) for name, use in held_out]
    folder, trainer = RunFolder(out), EverybodyTrainer(recipe, features)
    if (held := folder.resume(recipe)) is not None:
        trainer.restore(held)
    for clip in clips:
        print(f"{clip.name}: first key picture alone {measure(clip, textures)}", flush=True)
    started = time.monotonic()

    def drawn(step: int) -> WindowBatch:
        return source.batch(step, recipe.batch if step >= recipe.warm_steps else recipe.warm_batch)

    ahead = ThreadPoolExecutor(1)
    following = ahead.submit(drawn, trainer.step)
    while trainer.step < recipe.steps:
        batch = following.result()
        following = ahead.submit(drawn, trainer.step + 1)
        report = trainer.train_step(batch)
        if trainer.step % recipe.report_every == 0:
            folder.log(trainer.step, {**report, "minutes": (time.monotonic() - started) / 60})
        if trainer.step % recipe.validate_every == 0 or trainer.step == recipe.steps:
            _validate(trainer, clips, folder)
            facts = {"steps": str(trainer.step), "seed": str(recipe.seed)}
            save_weights(out / "everybody.safetensors", trainer.average, recipe.network.to_metadata(), **facts)
            save_weights(out / "everybody_discriminator.safetensors", trainer.frame, {"in_channels": 3}, **facts)
            # The checkpoint last: a run that is killed before it does all of this again.
            folder.save(trainer.state(), recipe)
    ahead.shutdown(cancel_futures=True)


def _validate(trainer: EverybodyTrainer, clips: Sequence[HeldOut], folder: RunFolder) -> None:
    figures: dict[str, float] = {}
    columns = []
    for clip in clips:
        found = measure(clip, trainer.draw)
        figures |= {f"{clip.name}_psnr_db": found.psnr_db, f"{clip.name}_sharpness": found.sharpness_ratio}
        shown = clip.pairs[:: max(1, len(clip.pairs) // 4)][:4]
        for pair, first, drawn in zip(shown, textures(shown), trainer.draw(shown), strict=True):
            columns.append([blended(pair, first), blended(pair, drawn), pair.target])
    if clips:
        folder.log(trainer.step, figures)
        folder.draw_grid(f"held_out_{trainer.step:05d}", columns)
    folder.draw_curves()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set: a folder of *.safetensors")
    parser.add_argument("--perceptual", type=Path, required=True, help="perceptual.safetensors of train.perceptual")
    parser.add_argument("--out", type=Path, default=Path("build/everybody"), help="folder of the run")
    parser.add_argument("--steps", type=int, default=EverybodyRecipe().steps)
    parser.add_argument("--warm-steps", type=int, default=EverybodyRecipe().warm_steps)
    parser.add_argument("--held-out", nargs=2, action="append", default=[], metavar=("NAME", "USE"))
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(1)
    recipe = EverybodyRecipe(steps=given.steps, warm_steps=given.warm_steps)
    held_out = [(name, use) for name, use in given.held_out]
    train(given.data, load_perceptual(given.perceptual).features, given.out, recipe, held_out)


if __name__ == "__main__":
    main()
