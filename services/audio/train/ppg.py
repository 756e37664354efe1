"""Train the phonetic posteriorgram network: `python -m services.audio.train.ppg --labels L.npz --out build/audio/ppg`.

The command writes checkpoint.pt (resumed if present), best.safetensors + config.json (best held-out accuracy) and curves.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor, nn

from services.audio.networks.ppg import PpgConfig, PpgNetwork
from services.audio.train.augment import AugmentConfig
from services.audio.train.dataset import (
    Recording,
    SamplingConfig,
    Windows,
    epoch_windows,
    load_recordings,
    row_weights,
    soft_targets,
    windows_of,
)
from services.audio.train.sphinx import IGNORED
from services.audio.types import NUM_CEPSTRA, ROWS_PER_VIDEO_FRAME
from services.audio.windows import PAST_ROWS

matplotlib.use("Agg")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Configuration of a whole training run."""

    network: PpgConfig = field(default_factory=PpgConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    epochs: int = 18
    batch_windows: int = 192
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    weight_decay: float = 1e-4
    clip_norm: float = 2.0
    neighbour_target: float = 0.12
    label_smoothing: float = 0.05
    past_weight: float = 0.3
    seed: int = 20240
    threads: int = 1
    selection_source: str = "vctk"
    """Held-out source whose accuracy selects the best epoch."""


def answered_accuracy(network: PpgNetwork, windows: Windows) -> float:
    """Return the share of labelled answered rows whose most probable class is the label."""
    right = known = 0
    network.eval()
    answered = slice(PAST_ROWS, PAST_ROWS + ROWS_PER_VIDEO_FRAME)
    with torch.inference_mode():
        for start in range(0, len(windows.cepstra), 512):
            guess = network(torch.from_numpy(windows.cepstra[start : start + 512]))[:, answered].argmax(dim=2).numpy()
            labels = windows.labels[start : start + 512, answered]
            right += int(((guess == labels) & (labels != IGNORED)).sum())
            known += int((labels != IGNORED).sum())
    return right / max(known, 1)


def feature_scale(windows: Windows) -> Tensor:
    """Return 1 / standard deviation of the 20 cepstra and of their deltas, [40]."""
    rows = windows.cepstra[:2000].astype(np.float64)
    delta = 0.2 * (rows[:, 4:] - rows[:, :-4]) + 0.1 * (rows[:, 3:-1] - rows[:, 1:-3])
    deviation = np.concatenate([rows.reshape(-1, NUM_CEPSTRA).std(axis=0), delta.reshape(-1, NUM_CEPSTRA).std(axis=0)])
    return torch.from_numpy((1.0 / deviation).astype(np.float32))


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """Return the learning rate: linear warm-up, then half a cosine down to 1 % of the peak."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = min(1.0, (step - config.warmup_steps) / max(1, total - config.warmup_steps))
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * progress)))


class Run:
    """Training run that can stop after any epoch and continue from the run's folder."""

    def __init__(self, config: TrainConfig, labels: Path, out: Path) -> None:
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.config, self.out = config, out
        out.mkdir(parents=True, exist_ok=True)
        self.recordings = load_recordings(labels, "train")
        held_out = load_recordings(labels, "val")
        self.held_out = {
            source: _joined([recording for recording in held_out if recording.source == source])
            for source in sorted({recording.source for recording in held_out})
        }
        self.network = PpgNetwork(config.network)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        self.weights = torch.from_numpy(row_weights(config.past_weight))
        self.history: list[dict[str, float]] = []
        self.epoch = 0
        self.step = 0
        if (out / "checkpoint.pt").exists():
            state: dict[str, Any] = torch.load(out / "checkpoint.pt", weights_only=True)
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.history, self.epoch, self.step = state["history"], state["epoch"], state["step"]

    def loss(self, windows: Windows, rows: slice) -> Tensor:
        """Return the weighted cross-entropy of a batch, mean over labelled rows."""
        labels = windows.labels[rows]
        targets = torch.from_numpy(soft_targets(labels, self.config.neighbour_target, self.config.label_smoothing))
        log_probabilities: Tensor = self.network(torch.from_numpy(windows.cepstra[rows]))
        weights = self.weights * torch.from_numpy((labels != IGNORED).astype(np.float32))
        per_row = -(targets * log_probabilities).sum(dim=2) * weights
        return per_row.sum() / weights.sum().clamp(min=1.0)

    def train(self) -> None:
        """Run all remaining epochs."""
        config = self.config
        with Progress() as progress, ThreadPoolExecutor(1) as prepare:
            bar = progress.add_task("ppg", total=config.epochs, completed=self.epoch)
            pending = prepare.submit(self._windows, self.epoch)
            while self.epoch < config.epochs:
                windows = pending.result()
                pending = prepare.submit(self._windows, self.epoch + 1)
                if self.step == 0:
                    self.network.feature_scale.copy_(feature_scale(windows))
                losses = self._epoch(windows)
                self.epoch += 1
                scores = {source: answered_accuracy(self.network, held) for source, held in self.held_out.items()}
                self.history.append({"loss": losses, **scores})
                self._save()
                progress.advance(bar)
                print(f"epoch {self.epoch}: {json.dumps(self.history[-1])}", flush=True)

    def _windows(self, epoch: int) -> Windows:
        return epoch_windows(self.recordings, self.config.sampling, self.config.augmentation, self.config.seed + 1000 * epoch)

    def _epoch(self, windows: Windows) -> float:
        config = self.config
        self.network.train()
        batches = len(windows.cepstra) // config.batch_windows
        total = 0.0
        for batch in range(batches):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(config, self.step, config.epochs * batches)
            loss = self.loss(windows, slice(batch * config.batch_windows, (batch + 1) * config.batch_windows))
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
            self.optimizer.step()
            self.step += 1
            total += float(loss.detach())
        return total / max(batches, 1)

    def _save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "epoch": self.epoch,
            "step": self.step,
        }
        temporary = self.out / "checkpoint.tmp"
        torch.save(state, temporary)
        temporary.replace(self.out / "checkpoint.pt")
        source = self.config.selection_source
        if self.history[-1][source] >= max(epoch[source] for epoch in self.history):
            save_file(self.network.state_dict(), self.out / "best.safetensors")
            (self.out / "config.json").write_text(json.dumps(dataclasses.asdict(self.config), indent=1))
        draw_curves(self.history, self.out / "curves.png")


def _joined(recordings: list[Recording]) -> Windows:
    parts = [windows_of(recording.signal, 0, ROWS_PER_VIDEO_FRAME) for recording in recordings]
    return Windows(np.concatenate([part.cepstra for part in parts]), np.concatenate([part.labels for part in parts]))


def draw_curves(history: list[dict[str, float]], path: Path) -> None:
    """Draw loss and held-out accuracies over epochs."""
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    epochs = range(1, len(history) + 1)
    left.plot(epochs, [epoch["loss"] for epoch in history])
    left.set(title="training loss", xlabel="epoch")
    for source in history[0]:
        if source != "loss":
            right.plot(epochs, [epoch[source] for epoch in history], label=source)
    right.set(title="held-out frame accuracy", xlabel="epoch")
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="labelled set written by services.audio.train.align")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an existing run goes on")
    parser.add_argument("--epochs", type=int, default=TrainConfig().epochs)
    parser.add_argument("--hidden", type=int, default=PpgConfig().hidden)
    parser.add_argument("--threads", type=int, default=TrainConfig().threads)
    arguments = parser.parse_args()
    config = TrainConfig(
        network=PpgConfig(hidden=arguments.hidden, projection=arguments.hidden),
        epochs=arguments.epochs,
        threads=arguments.threads,
    )
    Run(config, arguments.labels, arguments.out).train()


if __name__ == "__main__":
    main()
