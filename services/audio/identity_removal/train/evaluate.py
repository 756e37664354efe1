"""Measure identity removal: `python -m services.audio.identity_removal.train.evaluate --parts P.npz --out REPORT`.

The exported network runs over speech, and new classifiers are trained on the output. Classifiers of speakers (closed sets) are
tested on held-out parts of the same speakers' speech. Classifiers of phones are tested on held-out parts and on speakers who were
never heard. The same measurement is made on the cepstra and, as a floor, on the phone labels, because words and speaking rates also
differ between speakers. The command writes REPORT/id_removal.json and REPORT/id_removal.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from services.audio.identity_removal.kind import IdentityRemovalModel
from services.audio.identity_removal.normalise import IDENTITY_AHEAD_ROWS, IDENTITY_PAST_ROWS, IDENTITY_WINDOW_ROWS, normal_silence
from services.audio.identity_removal.train.data import GAP_ROWS, TRAIN_SHARE, SpeechPart, load_parts
from services.audio.identity_removal.train.fresh_classifiers import SEGMENT_ROWS, Labelled, fit, row_accuracy, speaker_accuracy
from services.audio.models import WEIGHTS
from services.audio.phones import NUM_PHONES
from services.audio.train.sphinx import IGNORED
from services.audio.types import ROWS_PER_VIDEO_FRAME
from services.common.array_types import Float32

SPEAKER_CLASSIFIERS: Final = ("row linear", "row mlp", "segment linear", "segment mlp", "segment network")
PHONE_CLASSIFIERS: Final = ("row linear", "row mlp")
_MAX_ROWS: Final = 6000
"""Largest number of rows per speaker and split: one minute."""
_PHONE_ROWS: Final = 120
Represent = Callable[[SpeechPart], Float32]


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


def limited(parts: list[SpeechPart]) -> list[SpeechPart]:
    """Return at most one minute of each speaker and split. Copies at other speeds are left out."""
    seen: dict[tuple[str, str], int] = {}
    kept = []
    for part in parts:
        key = (part.speaker, part.split)
        if "@" in part.speaker or seen.get(key, 0) >= _MAX_ROWS:
            continue
        seen[key] = seen.get(key, 0) + len(part.rows)
        kept.append(part)
    return kept


def unheard(parts: list[SpeechPart]) -> list[SpeechPart]:
    """Return LibriSpeech's speakers of `val`, which the network never heard, divided like the other speakers."""
    found = []
    for part in parts:
        if part.split != "val" or part.corpus != "librispeech":
            continue
        cut = int(len(part.rows) * TRAIN_SHARE)
        for split, rows in (("train", slice(0, cut)), ("held_out", slice(cut + GAP_ROWS, None))):
            pieces = (part.rows[rows], part.raw[rows], part.labels[rows])
            found.append(SpeechPart(part.name, "librispeech, new speakers", part.speaker, *pieces, split))
    return found


def speaker_sets(parts: list[SpeechPart]) -> dict[str, list[SpeechPart]]:
    """Return closed sets of speakers who say comparable words. Each speaker has at least one segment in both splits."""
    every = [part for part in parts if part.split != "val"]
    sets = {corpus: [part for part in every if part.corpus == corpus] for corpus in ("librispeech", "flite", "vctk", "grid")}
    sets["librispeech, new speakers"] = unheard(parts)
    found = {}
    for name, members in sets.items():
        enough = {
            part.speaker
            for part in members
            if all(
                any(len(other.rows) >= SEGMENT_ROWS for other in members if (other.speaker, other.split) == (part.speaker, split))
                for split in ("train", "held_out")
            )
        }
        found[name] = [part for part in members if part.speaker in enough]
    return found


def speakers_told(parts: list[SpeechPart], represent: Represent, names: tuple[str, ...], steps: int) -> dict[str, Any]:
    """Return the accuracy of each classifier on the held-out parts of a closed set."""
    index = {speaker: number for number, speaker in enumerate(sorted({part.speaker for part in parts}))}
    examples: dict[str, list[Labelled]] = {"train": [], "held_out": []}
    for part in parts:
        if len(part.rows) >= SEGMENT_ROWS:
            examples[part.split].append(Labelled(represent(part), np.full(len(part.rows), index[part.speaker], np.int64)))
    told: dict[str, Any] = {"speakers": len(index), "chance": round(1.0 / len(index), 4)}
    for name in names:
        fitted = fit(name, examples["train"], len(index), steps=steps, rows=SEGMENT_ROWS)
        told[name] = {key: round(value, 4) for key, value in asdict(speaker_accuracy(fitted, examples["held_out"])).items()}
    return told


def phones_told(parts: list[SpeechPart], represent: Represent, steps: int) -> dict[str, Any]:
    """Return the accuracy per row of phone classifiers on held-out parts and on speakers of `val`."""
    examples: dict[str, list[Labelled]] = {"train": [], "held_out": [], "val": []}
    for part in parts:
        if len(part.rows) >= _PHONE_ROWS:
            classes = part.labels.astype(np.int64)
            classes[part.labels == IGNORED] = -1
            examples[part.split].append(Labelled(represent(part), classes))
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
        chance = report["speakers"][name]["removed"]["chance"]
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


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=Path, required=True, help="file written by services.audio.identity_removal.train.data")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder with id_removal.onnx")
    parser.add_argument("--out", type=Path, default=Path("build/audio/id_removal_report"), help="folder of the report")
    parser.add_argument("--sets", nargs="*", default=[], help="only these sets of speakers (default: all)")
    parser.add_argument("--kinds", nargs="*", default=[], help="only these features (default: all)")
    parser.add_argument("--steps", type=int, default=250, help="training steps of each classifier")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = IdentityRemovalModel(arguments.weights)
    parts = limited(load_parts(arguments.parts))
    cache: dict[tuple[str, str, int], Float32] = {}

    def without_identity(part: SpeechPart) -> Float32:
        key = (part.name, part.split, len(part.rows))
        if key not in cache:
            cache[key] = with_deltas(removed(model, part.rows))
        return cache[key]

    def phone_labels(part: SpeechPart) -> Float32:
        return np.asarray(np.eye(IGNORED + 1, dtype=np.float32)[part.labels][:, [*range(NUM_PHONES), IGNORED]])

    kinds: dict[str, Represent] = {
        "cepstra": lambda part: with_deltas(part.raw),
        "normalised": lambda part: with_deltas(part.rows),
        "removed": without_identity,
        "phone labels": phone_labels,
    }
    kinds = {name: kind for name, kind in kinds.items() if not arguments.kinds or name in arguments.kinds}
    report: dict[str, Any] = {"speakers": {}, "phones": {}}
    for name, members in speaker_sets(parts).items():
        if arguments.sets and name not in arguments.sets:
            continue
        report["speakers"][name] = {}
        for kind, represent in kinds.items():
            told = speakers_told(members, represent, SPEAKER_CLASSIFIERS, arguments.steps)
            report["speakers"][name][kind] = told
            print(name, kind, json.dumps(told), flush=True)
    for kind in ("cepstra", "removed"):
        if kind in kinds:
            report["phones"][kind] = phones_told(parts, kinds[kind], arguments.steps)
            print("phones", kind, json.dumps(report["phones"][kind]), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "id_removal.json").write_text(json.dumps(report, indent=1) + "\n")
    draw(report, arguments.out / "id_removal.png")


if __name__ == "__main__":
    main()
