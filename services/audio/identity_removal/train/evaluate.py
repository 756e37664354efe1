"""Measure identity removal: `python -m services.audio.identity_removal.train.evaluate --data SET --output REPORT`.

The exported network runs over the speech of a training set, and new classifiers are trained on the output. Classifiers of speakers
(closed sets: the speakers of one source) are tested on held-out parts of the same speakers' speech. Classifiers of phones are
tested on held-out parts and on the clips of `val`. The same is measured on the cepstra and, as a floor, on the phone labels,
because words and speaking rates also differ between speakers. The command writes REPORT/id_removal.json and REPORT/id_removal.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from services.audio.identity_removal.kind import IdentityRemovalModel
from services.audio.identity_removal.normalise import IDENTITY_AHEAD_ROWS, IDENTITY_PAST_ROWS, IDENTITY_WINDOW_ROWS, normal_silence
from services.audio.identity_removal.train.fresh_classifiers import SEGMENT_ROWS, Labelled, fit, row_accuracy, speaker_accuracy
from services.audio.identity_removal.train.speech import Heard, divided, hear
from services.audio.models import WEIGHTS
from services.audio.train.recordings import IGNORED
from services.audio.types import ROWS_PER_SECOND, ROWS_PER_VIDEO_FRAME
from services.common.array_types import Float32
from services.common.errors import DubstageError, InvalidRequest
from services.common.wire.phones import NUM_PHONES
from services.training.trainset.manifest import ClipRow
from services.training.trainset.reader import TrainSet, by_speaker

SPEAKER_CLASSIFIERS: Final = ("row linear", "row mlp", "segment linear", "segment mlp", "segment network")
PHONE_CLASSIFIERS: Final = ("row linear", "row mlp")
_MAX_ROWS: Final = 6000
"""Largest number of rows per speaker and half: one minute."""
_MAX_SPEAKERS: Final = 200
_PHONE_ROWS: Final = 120


class Excerpt(NamedTuple):
    """Speech of one speaker.

    Attributes:
        name: name of the clip.
        source: name of the corpus. Speakers of `val` have a source of their own.
        speaker: name of the speaker.
        split: `train` or `val`.
        half: `train` or `held_out`, of the speaker's speech.
        heard: the rows.
    """

    name: str
    source: str
    speaker: str
    split: str
    half: str
    heard: Heard


def with_deltas(rows: Float32) -> Float32:
    """Return the rows and the slopes over two rows on either side, [R, D] -> [R, 2 D]."""
    padded = np.pad(rows, ((2, 2), (0, 0)), mode="edge")
    slope = (padded[3:-1] - padded[1:-3] + 2.0 * (padded[4:] - padded[:-4])) / 10.0
    return np.concatenate([rows, slope], axis=1).astype(np.float32)


def removed(model: IdentityRemovalModel, rows: Float32) -> Float32:
    """Return the served network's output for normalised cepstra, [R, 20] -> [R, 20]."""
    count = -(-len(rows) // ROWS_PER_VIDEO_FRAME)
    tail = np.repeat(rows[-1:], count * ROWS_PER_VIDEO_FRAME - len(rows) + IDENTITY_AHEAD_ROWS, axis=0)
    padded = np.concatenate([normal_silence(IDENTITY_PAST_ROWS), rows, tail])
    starts = range(0, count * ROWS_PER_VIDEO_FRAME, ROWS_PER_VIDEO_FRAME)
    windows = np.stack([padded[start : start + IDENTITY_WINDOW_ROWS] for start in starts])
    return model.run(windows).reshape(-1, rows.shape[1])[: len(rows)]


def excerpts(data: TrainSet) -> list[Excerpt]:
    """Return at most one minute of each speaker and half, of at most 200 speakers of each source and split.

    The speech of `train` is divided as in training. The speech of `val` is divided in the same way, as a source of its own.

    Raises:
        InvalidRequest: the set has no labelled clips in `train` or `val`.
    """
    found = []
    for split in ("train", "val"):
        for source, rows in sorted(_by_source(data.of(split, phones=True)).items()):
            speakers = list(by_speaker(rows).values())
            step = max(1.0, len(speakers) / _MAX_SPEAKERS)
            some = [speakers[int(number * step)] for number in range(min(len(speakers), _MAX_SPEAKERS))]
            name = source if split == "train" else f"{source}, {split}"
            kept: dict[tuple[str, str], int] = {}
            for part in divided([row for clips in some for row in clips]):
                seen = kept.get((part.speaker, part.half), 0)
                if seen < _MAX_ROWS:
                    heard = hear(data, part.row).cut(part)
                    kept[part.speaker, part.half] = seen + len(heard.rows)
                    found.append(Excerpt(part.row.name, name, part.speaker, split, part.half, heard))
    return found


def speaker_sets(parts: Sequence[Excerpt]) -> dict[str, list[Excerpt]]:
    """Return closed sets of at least two speakers of one source. Each speaker has at least one segment in both halves."""
    found = {}
    for source in sorted({part.source for part in parts}):
        members = [part for part in parts if part.source == source]
        halves: dict[str, set[str]] = {}
        for part in members:
            if len(part.heard.rows) >= SEGMENT_ROWS:
                halves.setdefault(part.speaker, set()).add(part.half)
        enough = {speaker for speaker, some in halves.items() if len(some) == 2}
        if len(enough) > 1:
            found[source] = [part for part in members if part.speaker in enough]
    return found


def _by_source(rows: Sequence[ClipRow]) -> dict[str, list[ClipRow]]:
    sources: dict[str, list[ClipRow]] = {}
    for row in rows:
        sources.setdefault(row.source, []).append(row)
    return sources


def speakers_told(
    parts: Sequence[Excerpt], represent: Callable[[Excerpt], Float32], names: tuple[str, ...], steps: int
) -> dict[str, Any]:
    """Return the accuracy of each classifier on the held-out parts of a closed set."""
    index = {speaker: number for number, speaker in enumerate(sorted({part.speaker for part in parts}))}
    examples: dict[str, list[Labelled]] = {"train": [], "held_out": []}
    for part in parts:
        if len(part.heard.rows) >= SEGMENT_ROWS:
            examples[part.half].append(Labelled(represent(part), np.full(len(part.heard.rows), index[part.speaker], np.int64)))
    told: dict[str, Any] = {"speakers": len(index), "chance": round(1.0 / len(index), 4)}
    for name in names:
        fitted = fit(name, examples["train"], len(index), steps=steps, rows=SEGMENT_ROWS)
        told[name] = {key: round(value, 4) for key, value in asdict(speaker_accuracy(fitted, examples["held_out"])).items()}
    return told


def phones_told(parts: Sequence[Excerpt], represent: Callable[[Excerpt], Float32], steps: int) -> dict[str, Any]:
    """Return the accuracy per row of phone classifiers on held-out parts and on speakers of `val`."""
    examples: dict[str, list[Labelled]] = {"train": [], "held_out": [], "val": []}
    for part in parts:
        if len(part.heard.rows) >= _PHONE_ROWS:
            classes = part.heard.labels.astype(np.int64)
            classes[classes == IGNORED] = -1
            examples[part.half if part.split == "train" else "val"].append(Labelled(represent(part), classes))
    if not all(examples.values()):
        raise InvalidRequest(f"give clips of at least {_PHONE_ROWS / ROWS_PER_SECOND} s in `train` and in `val`", field="data")
    told: dict[str, Any] = {}
    for name in PHONE_CLASSIFIERS:
        fitted = fit(name, examples["train"], NUM_PHONES, steps=2 * steps, rows=_PHONE_ROWS)
        told[name] = {split: round(row_accuracy(fitted, examples[split]), 4) for split in ("held_out", "val")}
    return told


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw the speaker accuracies by set and the phone accuracies, before and after identity removal."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sets = list(report["speakers"])
    figure, axes = pyplot.subplots(1, len(sets) + 1, figsize=(3.2 * (len(sets) + 1), 3.6))
    colours = {"cepstra": "#b0413e", "normalised": "#d9a441", "removed": "#3a7ca5", "phone labels": "#999999"}
    for axis, name in zip(axes, sets, strict=False):
        for shift, (kind, told) in enumerate(report["speakers"][name].items()):
            values = [told[key]["segment"] for key in SPEAKER_CLASSIFIERS]
            axis.bar(np.arange(len(values)) + 0.2 * shift, values, 0.2, label=kind, color=colours[kind])
        chance = next(iter(report["speakers"][name].values()))["chance"]
        axis.axhline(chance, color="black", linestyle=":", linewidth=1)
        axis.set_title(f"{name}: chance {chance:.3f}", fontsize=9)
        axis.set_xticks(np.arange(len(SPEAKER_CLASSIFIERS)) + 0.3, SPEAKER_CLASSIFIERS, rotation=30, ha="right", fontsize=7)
        axis.set_ylim(0, 1)
    axes[0].set_ylabel("speaker told right, 2 s")
    axes[0].legend(fontsize=7)
    for shift, (kind, told) in enumerate(report["phones"].items()):
        values = [told[key][split] for key in PHONE_CLASSIFIERS for split in ("held_out", "val")]
        axes[-1].bar(np.arange(len(values)) + 0.3 * shift, values, 0.3, color=colours[kind])
    labels = [f"{key}, {split}" for key in PHONE_CLASSIFIERS for split in ("held out", "new")]
    axes[-1].set_xticks(np.arange(len(labels)) + 0.3, labels, rotation=30, ha="right", fontsize=7)
    axes[-1].set_title("phone told right, a row", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def evaluate(
    model: IdentityRemovalModel, data: TrainSet, *, sets: Sequence[str], kinds: Sequence[str], steps: int
) -> dict[str, Any]:
    """Return the accuracies: `speakers` by set, kind of features and classifier, and `phones` by kind and classifier.

    Args:
        model: the exported network.
        data: the training set.
        sets: only these sets of speakers; empty: all.
        kinds: only these kinds of features; empty: all.
        steps: training steps of each classifier.

    Raises:
        InvalidRequest: the set has no labelled clips in `train` or `val`.
    """
    parts = excerpts(data)
    cache: dict[tuple[str, str], Float32] = {}

    def without_identity(part: Excerpt) -> Float32:
        key = (part.name, part.half)
        if key not in cache:
            cache[key] = with_deltas(removed(model, part.heard.rows))
        return cache[key]

    def phone_labels(part: Excerpt) -> Float32:
        return np.asarray(np.eye(IGNORED + 1, dtype=np.float32)[part.heard.labels][:, [*range(NUM_PHONES), IGNORED]])

    represented: dict[str, Callable[[Excerpt], Float32]] = {
        "cepstra": lambda part: with_deltas(part.heard.cepstra),
        "normalised": lambda part: with_deltas(part.heard.rows),
        "removed": without_identity,
        "phone labels": phone_labels,
    }
    represented = {name: kind for name, kind in represented.items() if not kinds or name in kinds}
    report: dict[str, Any] = {"speakers": {}, "phones": {}}
    for name, members in speaker_sets(parts).items():
        if sets and name not in sets:
            continue
        report["speakers"][name] = {}
        for kind, represent in represented.items():
            told = speakers_told(members, represent, SPEAKER_CLASSIFIERS, steps)
            report["speakers"][name][kind] = told
            print(name, kind, json.dumps(told), flush=True)
    for kind in ("cepstra", "removed"):
        if kind in represented:
            report["phones"][kind] = phones_told(parts, represented[kind], steps)
            print("phones", kind, json.dumps(report["phones"][kind]), flush=True)
    return report


def main() -> int:
    """Run the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set with phones, made by `dubstage trainset`")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder with id_removal.onnx")
    parser.add_argument("--output", type=Path, required=True, help="folder of the report")
    parser.add_argument("--sets", nargs="*", default=[], help="only these sets of speakers (default: all)")
    parser.add_argument("--kinds", nargs="*", default=[], help="only these features (default: all)")
    parser.add_argument("--steps", type=int, default=250, help="training steps of each classifier")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        model = IdentityRemovalModel(arguments.weights)
        report = evaluate(model, TrainSet(arguments.data), sets=arguments.sets, kinds=arguments.kinds, steps=arguments.steps)
    except DubstageError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "id_removal.json").write_text(json.dumps(report, indent=1) + "\n")
    draw(report, arguments.output / "id_removal.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
