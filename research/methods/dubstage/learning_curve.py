"""Measure what more footage would bring.

`python -m research.methods.dubstage.learning_curve --data SET --output FOLDER` fits the map of files on growing
parts of the split `train`, and scores the map, with and without the personalisation and without constraints, on the clips of the
other splits and on the speakers who are not in the part. The parts grow along two axes:

* `speakers`: 3, 6, 9, ... speakers and all, whole clips.
* `minutes`: an eighth, a quarter, half and all of every clip, of all speakers.

Each seed draws other speakers. The command writes `curve.csv` and `curve.png`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Final

import numpy as np

from research.methods.dubstage.motion import Way, fit_coefficients, judged, model_of_maps
from research.motion.clips import Clips, TrainingClip, array_bytes, clips_of, held_out_splits, speakers_of_free_speech
from research.motion.evaluate import OFF
from research.training.command import command_line, data_parser
from research.training.trainset import CACHE_BYTES, BoundedCache, TrainSet
from services.common.files import write_whole
from services.motion.basis import LandmarkBasis
from services.motion.models import WEIGHTS, MotionModels
from services.motion.speech_map import FILES, LinearMap, SpeechMapModel

CURVE: Final = "curve.csv"
PICTURE: Final = "curve.png"
STEP: Final = 3
"""Speakers between two parts."""
SHARES: Final = (0.125, 0.25, 0.5, 1.0)
"""Shares of every clip."""
OTHERS: Final = "speakers not in the part"
_NEVER_CLOSED: Final = -30.0
"""Bias of a map that never predicts closed lips: the curve is of the coefficients alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPart:
    """A part of the split `train`.

    Attributes:
        axis: `speakers` or `minutes`.
        seed: seed of the choice of speakers.
        chosen: the speakers.
        share: share of every clip of these speakers, 0 to 1.
    """

    axis: str
    seed: int
    chosen: frozenset[str]
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Scores of the map that was fitted on a part, means over people.

    Attributes:
        axis: as Part has it, as is `seed`.
        seed: see `axis`.
        speakers: number of speakers in the part.
        minutes: minutes of usable frames in the part.
        group: split, or OTHERS.
        personal: whether the map is personalised.
        r_opening: Pearson's r of the opening.
        lmd_ratio: error of the lips over that of the person's mean mouth.
    """

    axis: str
    seed: int
    speakers: int
    minutes: float
    group: str
    personal: bool
    r_opening: float
    lmd_ratio: float


def parts_of(speakers: Sequence[str], seed: int) -> Iterator[TrainingPart]:
    """Yield the parts of both axes for a seed. The axis of minutes needs no second seed."""
    order = np.random.default_rng(seed).permutation(sorted(speakers))
    counts = sorted({*range(STEP, len(order), STEP), len(order)})
    # All speakers are the same part for every seed.
    for count in counts if seed == 0 else counts[:-1]:
        yield TrainingPart(axis="speakers", seed=seed, chosen=frozenset(order[:count].tolist()), share=1.0)
    for share in SHARES if seed == 0 else ():
        yield TrainingPart(axis="minutes", seed=0, chosen=frozenset(speakers), share=share)


def cut(clip: TrainingClip, share: float) -> TrainingClip:
    """Return the clip with the first share of its frames usable."""
    usable = clip.usable.copy()
    usable[round(share * len(usable)) :] = False
    return replace(clip, usable=usable)


def measure(
    part: TrainingPart, clips: Clips, held_out: dict[str, Sequence[TrainingClip]], models: MotionModels
) -> list[Measurement]:
    """Fit the map of files on a part, and return the scores by group.

    Args:
        clips: the clips of the split `train`.
        held_out: clips of the other splits, by split.
        models: the motion stage's networks, for styles and the basis.
    """
    inside = clips.only(row for row in clips.rows if row.speaker in part.chosen)
    shortened = Clips(inside.rows, BoundedCache(lambda row: cut(inside.only([row])[0], part.share), array_bytes, CACHE_BYTES // 4))
    model = _model(shortened, models.basis)
    outside = [clip for clip in clips if clip.speaker not in part.chosen]
    measurements = []
    for group, members in {**held_out, **({OTHERS: outside} if outside else {})}.items():
        for personal in (False, True):
            scores = judged([(model, clip) for clip in members], Way(FILES, personal, OFF), models)
            measurements.append(
                Measurement(
                    axis=part.axis,
                    seed=part.seed,
                    speakers=len(part.chosen),
                    minutes=round(sum(int(clip.usable.sum()) for clip in shortened) / 1500.0, 2),
                    group=group,
                    personal=personal,
                    r_opening=round(scores.r_opening, 4),
                    lmd_ratio=round(scores.lmd_ratio, 4),
                )
            )
    return measurements


def _model(clips: Clips, basis: LandmarkBasis) -> SpeechMapModel:
    weight, bias = fit_coefficients(clips, basis, FILES)
    never = np.zeros(weight.shape[1], np.float32), np.full(1, _NEVER_CLOSED, np.float32)
    return model_of_maps(basis, {FILES: LinearMap(weight, bias, *never, FILES)})


def write_curve(measured: Iterable[Measurement], path: Path) -> None:
    """Write the measurements as CSV."""
    lines = [[each.name for each in fields(Measurement)], *map(astuple, measured)]
    write_whole(path, "".join(",".join(map(str, line)) + "\n" for line in lines).encode())


def draw(measured: Sequence[Measurement], path: Path) -> None:
    """Draw the curve as PNG: a column for each axis, a row for each score, a line for each group; dots are single seeds.

    Args:
        measured: the measurements, at least one.
        path: path of the PNG file. The picture is 1100 pixels wide.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    axes_of = {"speakers": "speakers", "minutes": "minutes of all speakers"}
    scores = {"r_opening": "r of the opening\n(higher is better)", "lmd_ratio": "LMD ratio\n(lower is better)"}
    groups = sorted({each.group for each in measured})
    figure, grid = pyplot.subplots(2, 2, sharex="col", sharey="row", layout="constrained", figsize=(11.0, 6.8))
    for column, (axis, label) in enumerate(axes_of.items()):
        for row, (score, title) in enumerate(scores.items()):
            plot = grid[row, column]
            for index, group in enumerate(groups):
                for personal in (False, True):
                    shown = [each for each in measured if (each.axis, each.group, each.personal) == (axis, group, personal)]
                    sizes = sorted({getattr(each, axis) for each in shown})
                    means = [np.mean([getattr(each, score) for each in shown if getattr(each, axis) == size]) for size in sizes]
                    name = f"{group}{', personalised' if personal else ''}"
                    plot.plot(sizes, means, "-o" if personal else "--o", color=f"C{index}", label=name, lw=1.8, ms=5)
                    plot.scatter(
                        [getattr(each, axis) for each in shown],
                        [getattr(each, score) for each in shown],
                        s=8,
                        alpha=0.4,
                        color=f"C{index}",
                    )
            plot.grid(alpha=0.3)
            plot.set_ylabel(title if column == 0 else "")
        grid[1, column].set_xlabel(label)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


@command_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    parser = data_parser(__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of the motion stage's weights, for the basis")
    parser.add_argument("--output", type=Path, required=True, help="folder for curve.csv and curve.png")
    parser.add_argument("--seeds", type=_positive, default=4, help="number of random choices of speakers. Default: 4.")
    given = parser.parse_args(arguments)
    data, models = TrainSet(given.data), MotionModels(given.weights)
    clips = clips_of(data, "train", (FILES.feature,))
    free = clips.only(row for row in clips.rows if not row.narrow)
    speakers = speakers_of_free_speech(free.rows, STEP)
    held_out: dict[str, Sequence[TrainingClip]] = {
        split: list(clips_of(data, split, (FILES.feature,))) for split in held_out_splits(data)
    }
    given.output.mkdir(parents=True, exist_ok=True)
    measured: list[Measurement] = []
    for seed in range(given.seeds):
        for part in parts_of(speakers, seed):
            measurements = measure(part, free, held_out, models)
            measured += measurements
            for each in measurements:
                size = f"{each.axis:8s} {each.speakers:3d} speakers {each.minutes:6.2f} minutes"
                way = "personalised" if each.personal else "zero-shot"
                print(f"{size}  {each.group:26s}{way:13s} r {each.r_opening:.3f}, LMD ratio {each.lmd_ratio:.3f}", flush=True)
    write_curve(measured, given.output / CURVE)
    draw(measured, given.output / PICTURE)
    return 0


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
