"""The folder of a training run: configuration, checkpoint, curves, and the card with the footage, its licences and the figures."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import pickle
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from research.training.folder_lock import locked_folder, make_folder
from research.training.trainset import ClipRow
from services.common.array_types import Array
from services.common.errors import InvalidRequestError
from services.common.files import write_whole
from services.common.store.exported_networks import card_of
from services.common.store.tensor_bytes import encode_arrays

CONFIG: Final = "config.json"
CARD: Final = "CARD.md"
_CHECKPOINT: Final = "checkpoint.pt"
_CURVES: Final = "curves.csv"
_UNREADABLE: Final = (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, pickle.UnpicklingError)
"""Errors that PyTorch raises for files that are cut or damaged, depending on the position of the damage."""


@dataclass(slots=True)
class TrainingProgress:
    """Progress of a run.

    Attributes:
        step: steps done.
        best_step: step whose network is kept.
        best_score: score of that step; None: no check had a score.
        worse: checks without a better score since then.
        figures: metrics of the kept step's check.
    """

    step: int = 0
    best_step: int = 0
    best_score: float | None = None
    worse: int = 0
    figures: dict[str, float] | None = None


class RunFolder:
    """Folder of one training run.

    Args:
        path: path of the folder. A missing folder is created.
        network: name of the network.
        config: the configuration, as JSON values.
    """

    def __init__(self, path: Path, network: str, config: Mapping[str, Any]) -> None:
        self.path = path
        self.config: dict[str, Any] = {"network": network, "config": json.loads(json.dumps(config))}
        """Name of the network and configuration, as config.json holds them."""

    def held(self) -> AbstractContextManager[None]:
        """Create the folder, and keep other trainings out of the folder for as long as the context is open.

        Raises:
            InvalidRequestError: the folder cannot be written, or another process trains in the folder.
        """
        return locked_folder(self.path, f"{self.path}: another process trains in this folder; wait for its end, or end the process")

    def begin(self, *, resume: bool) -> dict[str, Any] | None:
        """Create the folder, and return the state of the checkpoint of an earlier run; None: there is none.

        Args:
            resume: whether to go on with the run that the folder holds.

        Raises:
            InvalidRequestError: the folder cannot be written, or holds a run and `resume` is false, or the run has another
                configuration, or the checkpoint is damaged.
        """
        make_folder(self.path)
        config, checkpoint = self.path / CONFIG, self.path / _CHECKPOINT
        if not checkpoint.is_file():
            (self.path / _CURVES).unlink(missing_ok=True)
            config.write_text(json.dumps(self.config, indent=1) + "\n", encoding="utf-8")
            return None
        state = self.checkpoint(resume=resume)
        assert state is not None
        self._drop_curves_after(int(state["progress"]["step"]))
        return state

    def checkpoint(self, *, resume: bool) -> dict[str, Any] | None:
        """Return the state of the checkpoint, and change no file; None: there is none. See `begin` for arguments and errors."""
        config, checkpoint = self.path / CONFIG, self.path / _CHECKPOINT
        if not checkpoint.is_file():
            return None
        if not resume:
            raise InvalidRequestError(
                f"{self.path} holds a run already: go on with it by --resume, or choose another folder", field="output"
            )
        held = _read_json(config)
        if held != self.config:
            raise InvalidRequestError(
                f"{self.path} holds a run with other settings ({', '.join(_differences(held, self.config))}): give the settings of "
                "the run, or choose another folder",
                field="config",
            )
        return _read_checkpoint(checkpoint)

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint. If writing is interrupted, the checkpoint before stays."""
        # PyTorch's own error of a full disk is no OSError, and leaves half a file.
        content = io.BytesIO()
        torch.save(dict(state), content)
        write_whole(self.path / _CHECKPOINT, content.getvalue())

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append metrics to curves.csv: one line a metric, with the columns step, figure and value."""
        path = self.path / _CURVES
        is_new = not path.is_file()
        with path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            if is_new:
                writer.writerow(("step", "figure", "value"))
            writer.writerows((step, name, repr(float(value))) for name, value in metrics.items())

    def draw_curves(self) -> None:
        """Draw curves.png from curves.csv: one small plot a metric."""
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot

        curves: dict[str, list[tuple[int, float]]] = {}
        for step, name, value in self._curves():
            curves.setdefault(name, []).append((step, value))
        if not curves:
            return
        columns = min(3, len(curves))
        rows = math.ceil(len(curves) / columns)
        figure, axes = pyplot.subplots(rows, columns, figsize=(4 * columns, 2.6 * rows), squeeze=False, layout="constrained")
        for axis, (name, points) in zip(axes.flat, curves.items(), strict=False):
            axis.plot(*zip(*points, strict=True), lw=1)
            axis.set_title(name, fontsize=9)
            axis.grid(alpha=0.3)
        figure.savefig(self.path / "curves.png", dpi=90)
        pyplot.close(figure)

    def _curves(self) -> list[tuple[int, str, float]]:
        path = self.path / _CURVES
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))[1:]
        # A kill can leave the last line unfinished.
        return [(int(row[0]), row[1], float(row[2])) for row in rows if len(row) == 3 and row[2]]

    def _drop_curves_after(self, step: int) -> None:
        kept = [row for row in self._curves() if row[0] <= step]
        (self.path / _CURVES).unlink(missing_ok=True)
        for at, name, value in kept:
            self.log(at, {name: value})


def read_config(run: Path, network: str) -> dict[str, Any]:
    """Return the configuration of a run.

    Args:
        network: name of the network that the run must be of.

    Raises:
        InvalidRequestError: the folder holds no run, or a run of another network.
    """
    path = run / CONFIG
    if not path.is_file():
        raise InvalidRequestError(
            f"{run} holds no training run: it has no {CONFIG}; train with `dubstage train {network}`", field="run"
        )
    held = _read_json(path)
    if held.get("network") != network:
        raise InvalidRequestError(f"{run} holds a run of {held.get('network')!r}, not of {network!r}", field="run")
    config: dict[str, Any] = held["config"]
    return config


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, "cpu", weights_only=True)
    except _UNREADABLE as problem:
        # PyTorch's own text advises a setting that would run code of the file.
        raise InvalidRequestError(
            f"{path} is damaged or cannot be read: a checkpoint of `dubstage train` was expected; train again in another folder",
            field="run",
        ) from problem
    return state


def _read_json(path: Path) -> dict[str, Any]:
    try:
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise InvalidRequestError(f"{path} is damaged: {problem}; train again in another folder", field="run") from problem
    return held


def _differences(held: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines: list[str] = []
    for name in sorted(held.keys() | given.keys()):
        one, other = held.get(name), given.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            lines += _differences(one, other, f"{prefix}{name}.")
        elif one != other:
            lines.append(f"{prefix}{name}: {one!r}, now {other!r}")
    return lines


def card(network: str, config: Mapping[str, Any], clips: Sequence[ClipRow], progress: TrainingProgress) -> str:
    """Return the card as Markdown.

    Args:
        network: name of the network.
        config: network and configuration, as config.json holds them.
        clips: rows that the network learned from.
        progress: how far the run came.
    """
    kept = (
        f"{progress.best_step}, chosen by score {progress.best_score:.4f}" if progress.best_score is not None else "the last step"
    )
    facts = {
        "clips learned from": f"{len(clips)}, {sum(row.seconds for row in clips) / 60:.1f} minutes",
        "speakers": str(len({row.speaker for row in clips})),
        "phone labels": ", ".join(
            f"{origin}: {count} clips" for origin, count in _counts(row.phones for row in clips if row.phones)
        ),
        "steps": str(progress.step),
        "kept step": kept,
        "seed": str(config["config"]["loop"]["seed"]),
    }
    lines = [f"# {network}", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items() if value), ""]
    if progress.figures:
        lines += ["Held-out clips, at the kept step:", "", *_figure_lines(progress.figures), ""]
    return "\n".join([*lines, *licence_table(clips)])


def _figure_lines(figures: Mapping[str, float]) -> list[str]:
    """Return a line for the figures of each group of clips: `known r_opening` is the figure r_opening of the group known."""
    groups: dict[str, list[str]] = {}
    for name, value in figures.items():
        group, _, figure = name.rpartition(" ")
        groups.setdefault(group, []).append(f"{figure} {value:.4g}")
    return [f"- {group + ': ' if group else ''}{', '.join(items)}" for group, items in groups.items()]


def licence_table(clips: Sequence[ClipRow]) -> list[str]:
    """Return the lines of a Markdown table: clips, speakers and minutes of each source and licence."""
    groups: dict[tuple[str, str], list[ClipRow]] = {}
    for row in clips:
        groups.setdefault((row.source, row.licence or "unknown"), []).append(row)
    lines = ["| source | licence | clips | speakers | minutes |", "|---|---|---|---|---|"]
    for (source, licence), rows in sorted(groups.items()):
        minutes = sum(row.seconds for row in rows) / 60
        lines.append(f"| {source} | {licence} | {len(rows)} | {len({row.speaker for row in rows})} | {minutes:.1f} |")
    return [*lines, ""]


def write_fitted(
    path: Path,
    arrays: Mapping[str, Array],
    settings: Mapping[str, float],
    clips: Sequence[ClipRow],
    scores: Mapping[str, Any],
    sounds: Sequence[ClipRow] = (),
) -> list[Path]:
    """Write what was fitted in closed form, its sheet (.json) and the card with the data, and return the three paths.

    Args:
        path: the file of the arrays, .safetensors.
        arrays: the arrays by name.
        settings: settings of the fit.
        clips: rows that were learned from.
        scores: what the judge says.
        sounds: rows without a picture that were learned from too. The card has them, the sheet does not count them.
    """
    content = encode_arrays(arrays)
    facts = {
        "files": {path.name: {"sha256": hashlib.sha256(content).hexdigest()}},
        **settings,
        "clips": len(clips),
        "speakers": len({row.speaker for row in clips}),
        "minutes": round(sum(row.seconds for row in clips) / 60, 1),
        "scores": scores,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    sheet = json.dumps(facts, indent=1) + "\n"
    text = "\n".join([f"# {path.stem}", "", *licence_table([*clips, *sounds])])
    return [path, write_whole(path.with_suffix(".json"), sheet.encode()), write_whole(card_of(path), text.encode())]


def _counts(values: Iterable[str]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return sorted(counts.items())
