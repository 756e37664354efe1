"""Measure what more footage would bring: `python -m services.motion.train.learning_curve --data SET --output FOLDER`.

The command trains a predictor on growing parts of the split `train`. All trainings have the same number of steps. The averaged
network of the last step is scored on the held-out clips, which are the same for all trainings. The parts grow along these axes:

* `minutes`: 2, 5, 10, 20, 60 and 300 minutes, and all. Each part has as many speakers as possible.
* `free_speech`: 0, 0.5, 1, 2, 5, ... minutes of free speech, and all. All footage of narrow corpora, which have one kind of
  sentence, is in each part.
* `speakers`: 1, 2, 4, 8, ... speakers, and all, at equal minutes.
* `narrow_speakers`: the same with footage of narrow corpora alone.

A set without narrow corpora, or without free speech, has the axes `minutes` and `speakers` only. The command writes `curve.csv`,
`curve.png` and, in `runs`, the training runs. An interrupted command goes on where it stopped: parts that are in `curve.csv` are
not trained again.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from services.common.errors import InvalidRequest
from services.motion.predictors.registry import PREDICTORS
from services.motion.train.clips import clips_of
from services.motion.train.curve_parts import Part, Point, all_parts, with_part
from services.motion.train.networks import NETWORKS
from services.motion.train.training import PredictorTraining
from services.training.configuration import DEFAULT, with_settings
from services.training.device import CPU
from services.training.loop import train
from services.training.networks import Opening, TrainableNetwork, network_named
from services.training.run_folder import RunFolder
from services.training.tools import command_line, data_parser
from services.training.trainset.layout import MANIFEST
from services.training.trainset.reader import TrainSet

CURVE: Final = "curve.csv"
PICTURE: Final = "curve.png"
_SETTINGS: Final = "settings.json"
_SCORES: Final = {"r_opening": "r of the opening\n(higher is better)", "lmd_ratio": "LMD ratio\n(lower is better)"}
"""Scores that the curve holds, with their labels in the picture."""
_AXES: Final = {
    "minutes": ("minutes", "minutes of footage"),
    "free_speech": ("free_minutes", "minutes of free speech\nbeside {narrow:.1f} minutes of\none kind of sentence"),
    "speakers": ("speakers", "speakers\nin {minutes:.1f} minutes of footage"),
    "narrow_speakers": ("speakers", "speakers\nin {minutes:.1f} minutes of\none kind of sentence"),
}
"""Axis -> field of the measurements that the picture shows, and label."""
_SAME_SIZE: Final = 1.2
"""Parts of several seeds whose sizes differ by less than this factor have one place in the picture."""
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS: Final = "osD^vP"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement(Point):
    """Scores of the network that learned from a part.

    Attributes:
        group: group of held-out clips (services.motion.train.selection.groups_of).
        r_opening: correlation of the predicted with the true opening of the mouth, mean over clips.
        lmd_ratio: lip distance of the prediction divided by the lip distance of the person's mean mouth, means over clips.
    """

    group: str
    r_opening: float
    lmd_ratio: float

    @property
    def point(self) -> Point:
        """Description of the part."""
        return Point(**{each.name: getattr(self, each.name) for each in fields(Point)})


class LearningCurve:
    """A learning curve and its folder.

    Args:
        data: the training set.
        network: the predictor's network.
        folder: folder of the curve.
        steps: steps of each training.

    Raises:
        InvalidRequest: the folder cannot be written, holds a damaged curve, or a curve of another set, network or number of steps.
    """

    def __init__(self, data: TrainSet, network: TrainableNetwork, folder: Path, steps: int) -> None:
        self._data, self._network, self._folder = data, network, folder
        loop = {"steps": steps, "check_every": steps, "patience": 0}
        self._config = with_settings(network.configs[DEFAULT], {"loop": loop}, source="--steps")
        manifest = hashlib.sha256((data.folder / MANIFEST).read_bytes()).hexdigest()
        _keep_settings(folder, {"network": network.name, "steps": steps, "manifest_sha256": manifest})
        self.measured = read_curve(folder / CURVE)

    def measure(self, part: Part) -> None:
        """Train on a part and add the scores to the curve. A part that is in the curve already is not trained again."""
        point = part.point
        if any(each.point == point for each in self.measured):
            return
        config = with_settings(self._config, {"loop": {"seed": point.seed}}, source="--seeds")
        # Parts of two axes that have the same clips share one run.
        digest = hashlib.sha256("\n".join(sorted(row.name for row in part.rows)).encode()).hexdigest()
        run = _Run(self._folder / "runs" / f"seed{point.seed}-{digest[:12]}", self._network.name, asdict(config))
        title = f"{point.axis}: {point.minutes:g} minutes, {point.speakers} speakers, seed {point.seed}"
        training = self._network.open(Opening(config, with_part(self._data, part), CPU, {}))
        assert isinstance(training, PredictorTraining)
        if not training.groups:
            raise InvalidRequest(
                f"{self._data.folder}: no clip of split 'val', or of another split than 'train', to draw the curve on; add clips",
                field="data",
            )
        with run.held():
            train(training, run, resume=True, title=title, console=Console(stderr=True))
        # Of the last step: a choice of the best step would add noise to the curve, and would favour the groups of the choice.
        for group, scores in training.scores().items():
            r_opening, lmd_ratio = (round(scores[score], 4) for score in _SCORES)
            self.measured.append(Measurement(**asdict(point), group=group, r_opening=r_opening, lmd_ratio=lmd_ratio))
            print(f"{title}  {group:10s} r of opening {r_opening:.3f}, LMD ratio {lmd_ratio:.3f}", flush=True)
        write_curve(self._folder / CURVE, self.measured)
        draw(self.measured, self._folder / PICTURE)


class _Run(RunFolder):
    """Run without curves.png. Drawing all scores of all groups at each check would take a fifth of the time of a training."""

    def draw_curves(self) -> None:
        """Draw nothing."""


def read_curve(path: Path) -> list[Measurement]:
    """Return the measurements of a curve; none if there is no file.

    Raises:
        InvalidRequest: the file is damaged.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        try:
            return TypeAdapter(list[Measurement]).validate_python(list(csv.DictReader(stream)))
        except ValidationError as problem:
            first = problem.errors()[0]
            place = ", ".join(map(str, first["loc"]))
            raise InvalidRequest(f"{path} is damaged: row {place}: {first['msg']}; delete the file", field="output") from problem


def write_curve(path: Path, measured: Iterable[Measurement]) -> None:
    """Write the measurements of a curve. If writing is interrupted, the file before stays."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(each.name for each in fields(Measurement))
        writer.writerows(map(astuple, measured))
    os.replace(partial, path)


def draw(measured: Sequence[Measurement], path: Path) -> None:
    """Draw a learning curve: one column for each axis, one row for each score, one line for each group of held-out clips.

    Lines are means over seeds. Small dots are single seeds.

    Args:
        measured: the measurements, at least one.
        path: path of the PNG file. The picture is 1200 pixels wide.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = [name for name in _AXES if any(each.axis == name for each in measured)]
    groups = list(dict.fromkeys(each.group for each in measured))
    figure, axes = pyplot.subplots(
        len(_SCORES), len(names), sharex="col", sharey="row", squeeze=False, layout="constrained", figsize=(12.0, 6.8)
    )
    for column, name in enumerate(names):
        for row, score in enumerate(_SCORES):
            for place, group in enumerate(groups):
                shown = [each for each in measured if (each.axis, each.group) == (name, group)]
                style = {"color": _COLOURS[place % len(_COLOURS)], "marker": _MARKERS[place % len(_MARKERS)], "label": group}
                _draw_line(axes[row, column], shown, score, style)
            axes[row, column].grid(alpha=0.3)
        _draw_scale(axes[-1, column], [each for each in measured if each.axis == name])
    for row, label in enumerate(_SCORES.values()):
        axes[row, 0].set_ylabel(label, fontsize=12)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(groups), fontsize=12)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _draw_line(axis: Any, measured: Sequence[Measurement], score: str, style: dict[str, str]) -> None:
    sizes, scores = _places(measured), [float(getattr(each, score)) for each in measured]
    ticks = sorted(set(sizes))
    means = [fmean(value for size, value in zip(sizes, scores, strict=True) if size == tick) for tick in ticks]
    axis.plot(ticks, means, lw=1.8, ms=6.5, **style)
    axis.scatter(sizes, scores, s=10, color=style["color"], alpha=0.6)


def _draw_scale(axis: Any, measured: Sequence[Measurement]) -> None:
    from matplotlib.ticker import NullLocator

    ticks = sorted(set(_places(measured)))
    smallest = min((tick for tick in ticks if tick > 0.0), default=1.0)
    axis.set_xscale("symlog", linthresh=smallest, linscale=0.7) if ticks[0] == 0.0 else axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{tick:.2g}" if tick < 10 else f"{tick:.0f}" for tick in ticks], fontsize=11)
    axis.xaxis.set_minor_locator(NullLocator())
    label = _AXES[measured[0].axis][1]
    narrow = measured[0].minutes - measured[0].free_minutes
    axis.set_xlabel(label.format(minutes=fmean(each.minutes for each in measured), narrow=narrow), fontsize=12)


def _places(measured: Sequence[Measurement]) -> list[float]:
    """Return the place of each measurement on the x axis: the mean over seeds, whose parts differ a little in size."""
    values = [float(getattr(each, _AXES[each.axis][0])) for each in measured]
    alike: list[list[float]] = []
    for value in sorted(set(values)):
        if alike and value <= alike[-1][0] * _SAME_SIZE:
            alike[-1].append(value)
        else:
            alike.append([value])
    return [next(fmean(sizes) for sizes in alike if value in sizes) for value in values]


def _keep_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write what all parts of a curve have in common, or compare it with what the folder holds."""
    path = folder / _SETTINGS
    if path.is_file():
        held = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name, value in settings.items() if held.get(name) != value]
        if differing:
            raise InvalidRequest(
                f"{folder} holds a learning curve with another {', '.join(differing)}; choose another folder", field="output"
            )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    except OSError as problem:
        raise InvalidRequest(f"{folder} cannot be written: {problem.strerror}; choose another folder", field="output") from problem


@command_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    parser = data_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="Folder for curve.csv, curve.png and the training runs.")
    networks = {network.name for network in NETWORKS}
    first, *_ = trained = [name for name in PREDICTORS if f"{name}_motion" in networks]
    parser.add_argument("--predictor", choices=trained, default=first, help=f"Predictor to train. Default: {first}.")
    parser.add_argument("--steps", type=_positive, default=600, help="Steps of each training. Default: 600.")
    parser.add_argument(
        "--seeds",
        type=_positive,
        default=1,
        help="Number of seeds. Each seed draws other parts and trains other networks; the plot shows the means. Default: 1.",
    )
    given = parser.parse_args(arguments)
    data = TrainSet(given.data)
    rows = clips_of(data, "train").rows
    curve = LearningCurve(data, network_named(f"{given.predictor}_motion"), given.output, given.steps)
    for seed in range(given.seeds):
        for part in all_parts(rows, seed):
            curve.measure(part)
    return 0


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
