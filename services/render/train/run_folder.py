"""Folder of a training run: checkpoints to resume from, curves and picture grids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch


class RunFolder:
    """Folder of one training run.

    Args:
        path: path of the folder. A missing folder is created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._curves = path / "curves.jsonl"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line of figures to the curves and print the line."""
        with self._curves.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **{name: round(value, 5) for name, value in values.items()}}) + "\n")
        print(f"step {step}: " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()), flush=True)

    def save(self, state: Mapping[str, Any], recipe: object) -> None:
        """Write the checkpoint of a run. If writing is interrupted, the checkpoint before stays.

        Args:
            state: state of the trainer, with its `step`.
            recipe: recipe of the run.
        """
        partial = self.path / ".checkpoint.partial"
        torch.save({**state, "recipe": repr(recipe)}, partial)
        partial.replace(self.path / "checkpoint.pt")

    def resume(self, recipe: object) -> dict[str, Any] | None:
        """Return the last checkpoint, or None. Lines of the curves that the interrupted run wrote after the checkpoint are dropped.

        Args:
            recipe: recipe of the run.

        Raises:
            ValueError: the checkpoint belongs to a run with another recipe. A mixture of both could not be trained again.
        """
        file = self.path / "checkpoint.pt"
        if not file.is_file():
            self._curves.unlink(missing_ok=True)
            return None
        state: dict[str, Any] = torch.load(file, "cpu", weights_only=True)
        if state.get("recipe") != repr(recipe):
            raise ValueError(
                f"the run in {self.path} has other settings; give another folder with --out\n"
                f"settings of the run: {state.get('recipe')}\nsettings given: {recipe!r}"
            )
        if self._curves.is_file():
            lines = self._curves.read_text(encoding="utf-8").splitlines(keepends=True)
            self._curves.write_text("".join(line for line in lines if _step(line) <= state["step"]), encoding="utf-8")
        return state

    def draw_curves(self) -> None:
        """Write curves.png from all lines so far."""
        mpl.use("Agg")
        from matplotlib import pyplot as plt

        lines = [json.loads(line) for line in self._curves.read_text(encoding="utf-8").splitlines()]
        names = sorted({name for line in lines for name in line} - {"step"})
        figure, axes = plt.subplots(len(names), 1, figsize=(7, 1.8 * len(names)), sharex=True, squeeze=False)
        for axis, name in zip(axes[:, 0], names, strict=True):
            points = [(line["step"], line[name]) for line in lines if name in line]
            axis.plot(*zip(*points, strict=True), lw=1)
            axis.set_ylabel(name, fontsize=8)
            axis.grid(alpha=0.3)
        axes[-1, 0].set_xlabel("step")
        figure.tight_layout()
        figure.savefig(self.path / "curves.png", dpi=90)
        plt.close(figure)

    def draw_grid(self, name: str, columns: Sequence[Sequence[npt.NDArray[np.uint8]]]) -> None:
        """Write a contact sheet.

        Args:
            name: file name without suffix.
            columns: one column per example: its pictures from top to bottom, uint8 [H, W, 3], RGB.
        """
        sheet = np.hstack([np.vstack(list(column)) for column in columns])
        cv2.imwrite(str(self.path / f"{name}.png"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def _step(line: str) -> float:
    # A kill can leave the last line unfinished.
    try:
        return float(json.loads(line)["step"])
    except json.JSONDecodeError:
        return float("inf")
