"""Train the Audio ID-Removing Network.

    python -m services.audio.identity_removal.train.run --parts P.npz --out build/audio/id_removal

    L = w_phone CE(phone | lambda) + w_global |x' - global speaker's row|^2 + w_norm L_norm + w_trans L_trans

L_norm is Eq. 2 of Everybody's Talkin' against critics. Critics and network learn in turns. The global speaker's row is the mean row
of the phone that sounds. L_trans (Eq. 3) is used if `--expression` names targets from `services.motion.train.expression_targets`. A
small predictor computes expression coefficients and mouth landmarks from one second of x', and L_trans is the predictor's loss. The
network and the predictor are trained jointly. The command writes checkpoint.pt (resumed if present), last.safetensors, config.json
and curves.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from services.audio.identity_removal.network import IdRemovalConfig, IdRemovalNetwork
from services.audio.identity_removal.train.data import SpeechPart, load_parts
from services.audio.identity_removal.train.expression import ExpressionHead, ExpressionSampler, ExpressionTargets, load_targets
from services.audio.identity_removal.train.speaker_critic import (
    SegmentSampler,
    SpeakerCritic,
    SpeechBatch,
    confusion_loss,
    global_speaker,
    recognition_loss,
)
from services.audio.phones import NUM_PHONES

_WARM_ROWS = 28
"""Number of rows at the start of a segment that count in no loss, because the LSTM has heard too little."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IdRemovalTraining:
    """Configuration of a whole training run."""

    network: IdRemovalConfig = field(default_factory=IdRemovalConfig)
    steps: int = 1600
    content_steps: int = 400
    """Number of first steps with the content loss alone, without critics."""
    ramp_steps: int = 400
    batch: int = 32
    segment_rows: int = 160
    speaker_exponent: float = 0.3
    learning_rate: float = 2e-3
    critic_rate: float = 2e-3
    critic_updates: int = 1
    critic_lifetime: int = 500
    """Steps after which a new critic replaces the oldest critic, so that the network cannot rely on one critic's weakness."""
    phone: float = 1.0
    pull: float = 0.5
    """Weight of the distance to the global speaker's row."""
    norm: float = 3.0
    trans: float = 0.3
    expression_batch: int = 12
    output_noise: float = 0.1
    """Standard deviation of noise on x' in training, so that the network cannot beat critics by very small differences."""
    clip_norm: float = 1.0
    save_every: int = 200
    seed: int = 4
    threads: int = 1


class IdRemovalRun:
    """Training run that can stop at any checkpoint and continue from the run's folder."""

    def __init__(self, config: IdRemovalTraining, parts: list[SpeechPart], targets: ExpressionTargets | None, out: Path) -> None:
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        out.mkdir(parents=True, exist_ok=True)
        self.config, self.out = config, out
        self.rng = np.random.default_rng(config.seed)
        self.sampler = SegmentSampler(parts, config.segment_rows, config.speaker_exponent)
        self.table = torch.from_numpy(global_speaker(parts))
        self.network = IdRemovalNetwork(config.network)
        if config.network.hard:
            with torch.no_grad():
                self.network.column.add_(self.table.repeat_interleave(config.network.components // NUM_PHONES, dim=0))
        self.moves = None if targets is None else ExpressionSampler(targets)
        self.head = None if targets is None else ExpressionHead(targets)
        modules = [module for module in (self.network, self.head) if module is not None]
        self.parameters = [parameter for module in modules for parameter in module.parameters()]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=config.learning_rate, weight_decay=1e-3)
        self.critics = [self._critic() for _ in range(2)]
        self.history: list[dict[str, float]] = []
        self.step = 0
        self._resume()

    def _critic(self) -> tuple[SpeakerCritic, torch.optim.Optimizer]:
        critic = SpeakerCritic(len(self.sampler.speakers))
        return critic, torch.optim.AdamW(critic.parameters(), lr=self.config.critic_rate, weight_decay=1e-3)

    def _resume(self) -> None:
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return
        state: dict[str, Any] = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        if self.head is not None and "head" in state:
            self.head.load_state_dict(state["head"])
            self.optimiser.load_state_dict(state["optimiser"])
        elif self.head is None and "head" not in state:
            self.optimiser.load_state_dict(state["optimiser"])
        for (critic, _), saved in zip(self.critics, state["critics"], strict=True):
            critic.load_state_dict(saved)
        self.history, self.step = state["history"], state["step"]
        self.rng = np.random.default_rng([self.config.seed, self.step])

    def train(self) -> None:
        """Run all remaining steps."""
        config = self.config
        sums: dict[str, float] = {}
        while self.step < config.steps:
            self._renew()
            self._learn(sums)
            self.step += 1
            if self.step % config.save_every == 0 or self.step == config.steps:
                means = {name: value / config.save_every for name, value in sums.items()}
                self.history.append({"step": float(self.step), **means})
                print(json.dumps({name: round(value, 4) for name, value in self.history[-1].items()}), flush=True)
                sums = {}
                self._save()

    def _renew(self) -> None:
        due = self.step > self.config.content_steps and self.step % self.config.critic_lifetime == 0
        if due:
            self.critics = [*self.critics[1:], self._critic()]

    def _learn(self, sums: dict[str, float]) -> None:
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = _learning_rate(config, self.step)
        batch = self.sampler.draw(self.rng, config.batch)
        self.network.train()
        scores = self.network.scores(batch.rows)
        removed = self.network.transform(batch.rows, self.network.weights(scores))
        removed = removed + config.output_noise * torch.randn_like(removed)
        inner = removed[:, _WARM_ROWS:]
        losses = self._content(batch, scores, removed)
        ramp = min(1.0, max(0.0, (self.step - config.content_steps) / config.ramp_steps))
        if self.step >= config.content_steps // 2:
            losses["critic"] = self._criticise(inner.detach(), batch.speakers)
        total = config.pull * losses["global"] + config.phone * losses["phone"]
        if ramp > 0.0:
            losses["norm"] = torch.stack([confusion_loss(critic(inner)) for critic, _ in self.critics]).mean()
            total = total + config.norm * ramp * losses["norm"]
        if self.head is not None and self.moves is not None:
            moving = self.moves.draw(self.rng, config.expression_batch)
            losses["trans"] = self.head.loss(self.network(moving.rows), moving)
            total = total + config.trans * losses["trans"]
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, config.clip_norm)
        self.optimiser.step()
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())

    def _content(self, batch: SpeechBatch, scores: Tensor, removed: Tensor) -> dict[str, Tensor]:
        labels = batch.labels[:, _WARM_ROWS : removed.shape[1]]
        known = (labels >= 0).float()
        error = ((removed[:, _WARM_ROWS:] - self.table[labels.clamp(min=0)]) ** 2).mean(dim=-1)
        # The probability of a phone is the sum over the phone's variants.
        inner = scores[:, _WARM_ROWS:]
        of_phone = inner.reshape(*inner.shape[:2], NUM_PHONES, -1).logsumexp(dim=-1)
        phone = nn.functional.cross_entropy(of_phone.flatten(0, 1), labels.flatten(), ignore_index=-1)
        return {"global": (error * known).sum() / known.sum().clamp(min=1.0), "phone": phone}

    def _criticise(self, removed: Tensor, speakers: Tensor) -> Tensor:
        """Update the critics and return the mean of the losses."""
        total = 0.0
        for critic, optimiser in self.critics:
            critic.train()
            for _ in range(self.config.critic_updates):
                loss = recognition_loss(critic(removed), speakers)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                total += float(loss.detach())
        return torch.tensor(total / (len(self.critics) * self.config.critic_updates))

    def _save(self) -> None:
        state: dict[str, Any] = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "critics": [critic.state_dict() for critic, _ in self.critics],
            "history": self.history,
            "step": self.step,
        }
        if self.head is not None:
            state["head"] = self.head.state_dict()
        temporary = self.out / "checkpoint.tmp"
        torch.save(state, temporary)
        temporary.replace(self.out / "checkpoint.pt")
        save_file(self.network.state_dict(), self.out / "last.safetensors")
        (self.out / "config.json").write_text(json.dumps(dataclasses.asdict(self.config), indent=1) + "\n")
        draw_history(self.history, self.out / "curves.png")


def _learning_rate(config: IdRemovalTraining, step: int) -> float:
    """Return the learning rate: linear warm-up over 100 steps, then half a cosine down to a twentieth of the peak."""
    if step < 100:
        return config.learning_rate * (step + 1) / 100
    done = min(1.0, (step - 100) / max(1, config.steps - 100))
    return config.learning_rate * (0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * done)))


def draw_history(history: list[dict[str, float]], path: Path) -> None:
    """Draw the losses over steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = sorted({name for entry in history for name in entry} - {"step"})
    figure, axes = pyplot.subplots(1, len(names), figsize=(3 * len(names), 2.6), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        points = [(entry["step"], entry[name]) for entry in history if name in entry]
        axis.plot([point[0] for point in points], [point[1] for point in points])
        axis.set_title(name, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def main() -> None:
    """Run the command line."""
    defaults = IdRemovalTraining()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=Path, required=True, help="file written by services.audio.identity_removal.train.data")
    parser.add_argument("--expression", type=Path, help="targets of services.motion.train.expression_targets: train jointly")
    parser.add_argument("--out", type=Path, default=Path("build/audio/id_removal"), help="folder of the run; it goes on")
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--norm", type=float, default=defaults.norm, help="weight of L_norm")
    parser.add_argument("--threads", type=int, default=defaults.threads)
    arguments = parser.parse_args()
    config = dataclasses.replace(defaults, steps=arguments.steps, norm=arguments.norm, threads=arguments.threads)
    parts = [part for part in load_parts(arguments.parts) if part.split == "train"]
    targets = load_targets(arguments.expression) if arguments.expression else None
    IdRemovalRun(config, parts, targets, arguments.out).train()


if __name__ == "__main__":
    main()
