"""Train the temporal-warp network.

`python -m services.texture.train.temporal_warp --clips FOLDER --out build/texture/temporal_warp`

FOLDER holds tracked clips (README.md). The network is trained alone and then frozen (Song et al., Sec. III-C). The command writes
checkpoint.pt (resumed if present), best.safetensors and config.json (lowest held-out loss), history.json, curves.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor, nn

from services.common.face.mouth_bank import WINDOW
from services.texture.networks.temporal_warp import TemporalWarp, TemporalWarpConfig
from services.texture.train.losses import Energies, LossWeights, spline_energies
from services.texture.train.pairs import CHAIN, PairConfig, Pairs, draw_pairs, load_banks

matplotlib.use("Agg")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Configuration of a whole training run."""

    network: TemporalWarpConfig = field(default_factory=TemporalWarpConfig)
    pairs: PairConfig = field(default_factory=PairConfig)
    loss: LossWeights = field(default_factory=LossWeights)
    num_pairs: int = 4000
    num_held_out: int = 192
    steps: int = 1000
    batch: int = 16
    learning_rate: float = 1e-3
    decay: float = 0.5
    decay_times: int = 6
    """Number of times that the learning rate is multiplied by `decay`, evenly spread over the run."""
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    check_every: int = 100
    seed: int = 20240
    threads: int = 1


def answered(network: nn.Module, wanted: Tensor, source: Tensor) -> Energies:
    """Return the energies of the 8 frames with a full window, as a stream answers these frames, for sequences [N, 13, 86, 2]."""
    windows = torch.arange(CHAIN - WINDOW + 1)[:, None] + torch.arange(WINDOW)
    delta = network(wanted[:, windows].flatten(0, 1), source[:, windows].flatten(0, 1)).unflatten(0, (len(wanted), -1))
    last_wanted, last_source = wanted[:, WINDOW - 1 :].double(), source[:, WINDOW - 1 :].double()
    return spline_energies(last_wanted, last_source, last_source + delta.double())


def held_out_energies(network: nn.Module, pairs: Pairs, weights: LossWeights) -> dict[str, float]:
    """Return Ef, Eb, Et and the weighted sum on held-out pairs."""
    parts = []
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(pairs.wanted), 32):
            batch = slice(start, start + 32)
            wanted, source = torch.from_numpy(pairs.wanted[batch]), torch.from_numpy(pairs.source[batch])
            energies = answered(network, wanted, source)
            values = (energies.fitting, energies.bending, energies.temporal, energies.total(weights))
            parts.append([len(wanted), *(float(value) for value in values)])
    table = np.array(parts)
    means = (table[:, 1:] * table[:, :1]).sum(0) / table[:, 0].sum()
    return dict(zip(("fitting", "bending", "temporal", "total"), means.tolist(), strict=True))


class Run:
    """Training run that can stop after any check and continue from the run's folder."""

    def __init__(self, config: TrainConfig, clips: Path, out: Path) -> None:
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.config, self.out = config, out
        out.mkdir(parents=True, exist_ok=True)
        self.pairs = draw_pairs(load_banks(clips, "train"), config.num_pairs, config.pairs, config.seed)
        self.held_out = draw_pairs(load_banks(clips, "val"), config.num_held_out, config.pairs, config.seed + 1)
        self.network = TemporalWarp(config.network)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        self.history: list[dict[str, float]] = [{"step": 0, **held_out_energies(self.network, self.held_out, config.loss)}]
        self.step = 0
        if (out / "checkpoint.pt").exists():
            state: dict[str, Any] = torch.load(out / "checkpoint.pt", weights_only=True)
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.history, self.step = state["history"], state["step"]

    def train(self) -> None:
        """Run all remaining steps."""
        config = self.config
        with Progress() as progress:
            bar = progress.add_task("temporal warp", total=config.steps, completed=self.step)
            while self.step < config.steps:
                self.network.train()
                losses = [self._step() for _ in range(min(config.check_every, config.steps - self.step))]
                energies = held_out_energies(self.network, self.held_out, config.loss)
                self.history.append({"step": self.step, "training": float(np.mean(losses)), **energies})
                self._save()
                progress.update(bar, completed=self.step, description=f"temporal warp {energies['total']:.4f}")
        self._plot()

    def _step(self) -> float:
        config = self.config
        # Each step has its own random generator, so that a resumed run draws the same batches.
        random = np.random.default_rng([config.seed, self.step])
        rows = random.integers(len(self.pairs.wanted), size=config.batch)
        wanted, source = torch.from_numpy(self.pairs.wanted[rows]), torch.from_numpy(self.pairs.source[rows])
        rate = config.learning_rate * config.decay ** (self.step * (config.decay_times + 1) // config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = answered(self.network, wanted, source).total(config.loss)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def _save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "step": self.step,
        }
        torch.save(state, self.out / "checkpoint.partial")
        (self.out / "checkpoint.partial").replace(self.out / "checkpoint.pt")
        if self.history[-1]["total"] <= min(entry["total"] for entry in self.history):
            save_file(self.network.state_dict(), self.out / "best.safetensors")
            (self.out / "config.json").write_text(
                json.dumps({**dataclasses.asdict(self.config), "spline": self.history[0], "held_out": self.history[-1]}, indent=1)
            )
        (self.out / "history.json").write_text(json.dumps(self.history, indent=1))

    def _plot(self) -> None:
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
        steps = [entry["step"] for entry in self.history]
        for axis, name in zip(axes, ("fitting", "bending", "temporal"), strict=True):
            axis.plot(steps, [entry[name] for entry in self.history])
            axis.axhline(self.history[0][name], color="grey", linestyle=":")
            axis.set(title=f"{name} (dotted: plain spline)", xlabel="step")
        figure.savefig(self.out / "curves.png", dpi=110)
        plt.close(figure)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="folder of tracked clips (*.safetensors)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=TrainConfig().steps)
    parser.add_argument("--threads", type=int, default=TrainConfig().threads)
    arguments = parser.parse_args()
    run = Run(TrainConfig(steps=arguments.steps, threads=arguments.threads), arguments.clips, arguments.out)
    run.train()
    print(json.dumps({"spline": run.history[0], "network": run.history[-1]}, indent=1))


if __name__ == "__main__":
    main()
