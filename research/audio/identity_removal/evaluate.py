"""Measure identity removal: `python -m research.audio.identity_removal.evaluate --data SET --output REPORT`.

The exported network runs over the speech of a training set, and new classifiers are trained on the output. Classifiers of
speakers (closed sets: the speakers of one source) are tested on held-out parts of the same speakers' speech. Classifiers of
phones are tested on held-out parts and on the clips of `val`. The same is measured on the cepstra and, as a floor, on the phone
labels, because words and speaking rates also differ between speakers. The command writes REPORT/id_removal.json and
REPORT/id_removal.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from research.audio.identity_removal.speech import SpeechRows, divided, read_speech_rows
from research.audio.identity_removal.training import moments
from research.audio.recordings import IGNORED
from research.training.command import command_line
from research.training.trainset import ClipRow, TrainSet, by_speaker
from services.audio.identity_removal import (
    IDENTITY_AHEAD_ROWS,
    IDENTITY_PAST_ROWS,
    IDENTITY_WINDOW_ROWS,
    IdentityRemovalModel,
    normal_silence,
)
from services.audio.models import WEIGHTS
from services.audio.types import ROWS_PER_SECOND, ROWS_PER_VIDEO_FRAME
from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.wire.phones import NUM_PHONES

SEGMENT_ROWS: Final = 200
"""Rows of a segment for a speaker's classifier: two seconds."""
CONTEXT: Final = 9
"""Rows that the classifier of a row takes: the row and four rows on either side."""
SPEAKER_CLASSIFIERS: Final = ("row linear", "row mlp", "segment linear", "segment mlp", "segment network")
PHONE_CLASSIFIERS: Final = ("row linear", "row mlp")
_MAX_ROWS: Final = 6000
"""Largest number of rows per speaker and half: one minute."""
_MAX_SPEAKERS: Final = 200
_PHONE_ROWS: Final = 120


@dataclass(frozen=True, slots=True)
class Labelled:
    """Features float32 [R, D] of consecutive rows, and the class of each row int64 [R], -1 where unknown."""

    features: Float32
    classes: npt.NDArray[np.int64]


class ByRow(nn.Module):
    """Classifier of each row from nine rows: linear, or with a hidden layer."""

    def __init__(self, width: int, num_classes: int, hidden: int) -> None:
        super().__init__()
        self.layers: nn.Module = nn.Conv1d(width, hidden or num_classes, CONTEXT, padding=CONTEXT // 2)
        if hidden:
            self.layers = nn.Sequential(self.layers, nn.ReLU(), nn.Dropout(0.2), nn.Conv1d(hidden, num_classes, 1))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the scores [N, W, C] of rows [N, W, D]."""
        scores: Tensor = self.layers(rows.transpose(1, 2))
        return scores.transpose(1, 2)


class BySegment(nn.Module):
    """Classifier of a whole segment from mean and standard deviation of the features, or of learned features."""

    def __init__(self, width: int, num_classes: int, hidden: int, channels: int) -> None:
        super().__init__()
        self.learned: nn.Module | None = None
        if channels:
            self.learned = nn.Sequential(
                nn.Conv1d(width, channels, 5, padding=2), nn.ReLU(), nn.Conv1d(channels, channels, 5, padding=2), nn.ReLU()
            )
        size = 2 * (channels or width)
        self.norm = nn.BatchNorm1d(size)
        self.out: nn.Module = nn.Linear(size, num_classes)
        if hidden:
            self.out = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Dropout(0.3), nn.Linear(hidden, num_classes))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the scores [N, 1, C] of segments [N, W, D]."""
        learned = rows if self.learned is None else self.learned(rows.transpose(1, 2)).transpose(1, 2)
        scores: Tensor = self.out(self.norm(moments(learned, 1)))
        return scores[:, None]


def classifier(name: str, width: int, num_classes: int) -> nn.Module:
    """Return the named classifier: `row linear`, `row mlp`, `segment linear`, `segment mlp` or `segment network`."""
    if name.startswith("row"):
        return ByRow(width, num_classes, 128 if name == "row mlp" else 0)
    return BySegment(width, num_classes, 96 if name == "segment mlp" else 0, 64 if name == "segment network" else 0)


@dataclass(frozen=True, slots=True)
class FittedClassifier:
    """Trained classifier with the scale of the features."""

    module: nn.Module
    mean: Float32
    deviation: Float32

    @torch.no_grad()
    def scores(self, features: Float32) -> Float32:
        """Return log-probabilities, [R, D] -> [R, C] or [1, C]."""
        scaled = ((features - self.mean) / self.deviation)[None].astype(np.float32)
        return np.asarray(torch.log_softmax(self.module(torch.from_numpy(scaled)), -1)[0].numpy(), np.float32)


def fit(name: str, examples: Sequence[Labelled], num_classes: int, *, steps: int, rows: int, seed: int = 0) -> FittedClassifier:
    """Train a new classifier on random stretches of `rows` rows.

    If every example has one class, all classes are drawn with the same probability.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    usable = [example for example in examples if len(example.features) >= rows]
    joined = np.concatenate([example.features for example in usable])
    fitted = FittedClassifier(
        classifier(name, joined.shape[1], num_classes), joined.mean(axis=0), joined.std(axis=0) + np.float32(1e-3)
    )
    owner = np.array([int(example.classes.max()) for example in usable])
    single = all(example.classes.min() == example.classes.max() for example in usable)
    weight = np.array([len(example.features) for example in usable], np.float64)
    if single:
        weight /= np.bincount(owner, weight, minlength=num_classes)[owner]
    weight /= weight.sum()
    optimiser = torch.optim.AdamW(fitted.module.parameters(), lr=3e-3, weight_decay=1e-2)
    fitted.module.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1.0 - step / steps)
        chosen = rng.choice(len(usable), size=64, p=weight)
        starts = [int(rng.integers(len(usable[index].features) - rows + 1)) for index in chosen]
        pairs = list(zip(chosen, starts, strict=True))
        x = np.stack([usable[index].features[start : start + rows] for index, start in pairs])
        y = np.stack([usable[index].classes[start : start + rows] for index, start in pairs])
        scores = fitted.module(torch.from_numpy(((x - fitted.mean) / fitted.deviation).astype(np.float32)))
        if scores.shape[1] == 1:
            y = y[:, :1]
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), torch.from_numpy(y).flatten(), ignore_index=-1)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    fitted.module.eval()
    return fitted


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeakerAccuracy:
    """Shares of right decisions, 0..1.

    Every speaker has the same weight. `part` adds up the evidence of the whole held-out part.
    """

    segments: int
    segment: float
    part: float


def speaker_accuracy(fitted: FittedClassifier, examples: Sequence[Labelled]) -> SpeakerAccuracy:
    """Return the accuracy on segments of two seconds (the last segment of a part may be longer) and on whole parts."""
    right: dict[int, list[bool]] = {}
    whole: dict[int, Float32] = {}
    for example in examples:
        truth = int(example.classes[0])
        for start in range(0, max(len(example.features) - SEGMENT_ROWS + 1, 1), SEGMENT_ROWS):
            segment = example.features[start : start + SEGMENT_ROWS]
            score = fitted.scores(segment).sum(axis=0)
            right.setdefault(truth, []).append(int(score.argmax()) == truth)
            whole[truth] = whole.get(truth, np.zeros_like(score)) + score
    return SpeakerAccuracy(
        segments=sum(map(len, right.values())),
        segment=float(np.mean([np.mean(hits) for hits in right.values()])),
        part=float(np.mean([int(score.argmax()) == speaker for speaker, score in whole.items()])),
    )


def row_accuracy(fitted: FittedClassifier, examples: Sequence[Labelled]) -> float:
    """Return the share of labelled rows that are classified right."""
    right = counted = 0
    for example in examples:
        seen = example.classes >= 0
        right += int((fitted.scores(example.features).argmax(axis=1) == example.classes)[seen].sum())
        counted += int(seen.sum())
    return right / max(counted, 1)


class Excerpt(NamedTuple):
    """Speech of one speaker.

    Attributes:
        source: name of the corpus. Speakers of `val` have a source of their own.
        speaker: name of the speaker.
        split: `train` or `val`.
        half: `train` or `held_out`, of the speaker's speech.
    """

    name: str
    source: str
    speaker: str
    split: str
    half: str
    speech: SpeechRows


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
        InvalidRequestError: the set has no labelled clips in `train` or `val`.
    """
    chosen = []
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
                    speech = read_speech_rows(data, part.row).cut(part)
                    kept[part.speaker, part.half] = seen + len(speech.rows)
                    chosen.append(Excerpt(part.row.name, name, part.speaker, split, part.half, speech))
    return chosen


def speaker_sets(parts: Sequence[Excerpt]) -> dict[str, list[Excerpt]]:
    """Return closed sets of at least two speakers of one source. Each speaker has at least one segment in both halves."""
    sets = {}
    for source in sorted({part.source for part in parts}):
        members = [part for part in parts if part.source == source]
        halves: dict[str, set[str]] = {}
        for part in members:
            if len(part.speech.rows) >= SEGMENT_ROWS:
                halves.setdefault(part.speaker, set()).add(part.half)
        enough = {speaker for speaker, some in halves.items() if len(some) == 2}
        if len(enough) > 1:
            sets[source] = [part for part in members if part.speaker in enough]
    return sets


def _by_source(rows: Sequence[ClipRow]) -> dict[str, list[ClipRow]]:
    sources: dict[str, list[ClipRow]] = {}
    for row in rows:
        sources.setdefault(row.source, []).append(row)
    return sources


def accuracy_on_speakers(
    parts: Sequence[Excerpt], represent: Callable[[Excerpt], Float32], names: tuple[str, ...], steps: int
) -> dict[str, Any]:
    """Return the accuracy of each classifier on the held-out parts of a closed set."""
    index = {speaker: number for number, speaker in enumerate(sorted({part.speaker for part in parts}))}
    examples: dict[str, list[Labelled]] = {"train": [], "held_out": []}
    for part in parts:
        if len(part.speech.rows) >= SEGMENT_ROWS:
            examples[part.half].append(Labelled(represent(part), np.full(len(part.speech.rows), index[part.speaker], np.int64)))
    accuracy: dict[str, Any] = {"speakers": len(index), "chance": round(1.0 / len(index), 4)}
    for name in names:
        fitted = fit(name, examples["train"], len(index), steps=steps, rows=SEGMENT_ROWS)
        accuracy[name] = {key: round(value, 4) for key, value in asdict(speaker_accuracy(fitted, examples["held_out"])).items()}
    return accuracy


def accuracy_on_phones(parts: Sequence[Excerpt], represent: Callable[[Excerpt], Float32], steps: int) -> dict[str, Any]:
    """Return the accuracy per row of phone classifiers on held-out parts and on speakers of `val`."""
    examples: dict[str, list[Labelled]] = {"train": [], "held_out": [], "val": []}
    for part in parts:
        if len(part.speech.rows) >= _PHONE_ROWS:
            classes = part.speech.labels.astype(np.int64)
            classes[classes == IGNORED] = -1
            examples[part.half if part.split == "train" else "val"].append(Labelled(represent(part), classes))
    if not all(examples.values()):
        raise InvalidRequestError(f"give clips of at least {_PHONE_ROWS / ROWS_PER_SECOND} s in `train` and in `val`", field="data")
    accuracy: dict[str, Any] = {}
    for name in PHONE_CLASSIFIERS:
        fitted = fit(name, examples["train"], NUM_PHONES, steps=2 * steps, rows=_PHONE_ROWS)
        accuracy[name] = {split: round(row_accuracy(fitted, examples[split]), 4) for split in ("held_out", "val")}
    return accuracy


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw the speaker accuracies by set and the phone accuracies, before and after identity removal."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sets = list(report["speakers"])
    figure, axes = pyplot.subplots(1, len(sets) + 1, figsize=(3.2 * (len(sets) + 1), 3.6))
    colours = {"cepstra": "#b0413e", "normalised": "#d9a441", "removed": "#3a7ca5", "phone labels": "#999999"}
    for axis, name in zip(axes, sets, strict=False):
        for shift, (kind, accuracy) in enumerate(report["speakers"][name].items()):
            values = [accuracy[key]["segment"] for key in SPEAKER_CLASSIFIERS]
            axis.bar(np.arange(len(values)) + 0.2 * shift, values, 0.2, label=kind, color=colours[kind])
        chance = next(iter(report["speakers"][name].values()))["chance"]
        axis.axhline(chance, color="black", linestyle=":", linewidth=1)
        axis.set_title(f"{name}: chance {chance:.3f}", fontsize=9)
        axis.set_xticks(np.arange(len(SPEAKER_CLASSIFIERS)) + 0.3, SPEAKER_CLASSIFIERS, rotation=30, ha="right", fontsize=7)
        axis.set_ylim(0, 1)
    axes[0].set_ylabel("speaker told right, 2 s")
    axes[0].legend(fontsize=7)
    for shift, (kind, accuracy) in enumerate(report["phones"].items()):
        values = [accuracy[key][split] for key in PHONE_CLASSIFIERS for split in ("held_out", "val")]
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
        sets: only these sets of speakers; empty: all.
        kinds: only these kinds of features; empty: all.
        steps: training steps of each classifier.

    Raises:
        InvalidRequestError: the set has no labelled clips in `train` or `val`.
    """
    parts = excerpts(data)
    cache: dict[tuple[str, str], Float32] = {}

    def without_identity(part: Excerpt) -> Float32:
        key = (part.name, part.half)
        if key not in cache:
            cache[key] = with_deltas(removed(model, part.speech.rows))
        return cache[key]

    def phone_labels(part: Excerpt) -> Float32:
        return np.asarray(np.eye(IGNORED + 1, dtype=np.float32)[part.speech.labels][:, [*range(NUM_PHONES), IGNORED]])

    represented: dict[str, Callable[[Excerpt], Float32]] = {
        "cepstra": lambda part: with_deltas(part.speech.cepstra),
        "normalised": lambda part: with_deltas(part.speech.rows),
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
            accuracy = accuracy_on_speakers(members, represent, SPEAKER_CLASSIFIERS, steps)
            report["speakers"][name][kind] = accuracy
            print(name, kind, json.dumps(accuracy), flush=True)
    for kind in ("cepstra", "removed"):
        if kind in represented:
            report["phones"][kind] = accuracy_on_phones(parts, represented[kind], steps)
            print("phones", kind, json.dumps(report["phones"][kind]), flush=True)
    return report


@command_line
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
    model = IdentityRemovalModel(arguments.weights)
    report = evaluate(model, TrainSet(arguments.data), sets=arguments.sets, kinds=arguments.kinds, steps=arguments.steps)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "id_removal.json").write_text(json.dumps(report, indent=1) + "\n")
    draw(report, arguments.output / "id_removal.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
