"""Measure the posteriorgram network: `python -m research.audio.evaluate_posteriorgram --data SET`.

The command measures the accuracy per row of an exported network and of pocketsphinx's free phone recognition (triphones, phone
language model) on the held-out clips of a training set, for each source. The references are the labels that the preparation
`phones` made from words: by forced alignment of the transcript, or by the trusted part of the recognised text. Clips whose labels
are guessed count in no figure. Where clips have given times of words, the agreement on speech and silence with these times is
measured too.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from research.audio.labelling import Sphinx, speech_by_given_times
from research.audio.posteriorgram import served_windows
from research.audio.recordings import GUESSED, IGNORED, LabelledSignal, WordSpan, evenly, read_recording, read_sound
from research.training.command import command_line
from research.training.trainset import ClipRow, TrainSet
from services.audio.models import WEIGHTS
from services.audio.posteriorgram import PosteriorgramModel
from services.common.errors import InvalidRequestError
from services.common.wire.phones import PHONE_INDEX, PHONES, SILENCE

BILABIALS: Final[tuple[str, ...]] = ("P", "B", "M")
"""Phones on which the lips touch. Viewers notice at once when the lips do not."""

VISEMES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "silence": ("SIL",),
        "bilabial": BILABIALS,
        "labiodental": ("F", "V"),
        "dental": ("TH", "DH"),
        "alveolar": ("T", "D", "N", "S", "Z", "L"),
        "postalveolar": ("SH", "ZH", "CH", "JH"),
        "velar": ("K", "G", "NG", "HH"),
        "approximant": ("R", "ER"),
        "rounded": ("W", "UW", "UH", "OW", "OY"),
        "open_rounded": ("AO", "AW"),
        "open": ("AA", "AE", "AY", "AH"),
        "mid": ("EH", "EY"),
        "spread": ("IY", "IH", "Y"),
    }
)
"""Groups of phones that look alike on the lips. Every phone is in exactly one group."""

VISEME_OF_PHONE: Final[tuple[int, ...]] = tuple(
    next(group for group, members in enumerate(VISEMES.values()) if phone in members) for phone in PHONES
)
"""Index into `tuple(VISEMES)` for each class of `PHONES`."""


CLIPS_OF_A_SOURCE: Final = 200
"""Most clips of one source that are measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """Agreement of guessed classes with labels, as shares of labelled rows.

    Attributes:
        rows: number of labelled rows.
        all_rows: share of right classes.
        speech_rows: share of right classes on rows whose label is not silence.
        viseme: share of speech rows with the right mouth shape.
        bilabial_f1: F1 of "the lips touch" (p, b, m) over all labelled rows.
    """

    rows: int
    all_rows: float
    speech_rows: float
    viseme: float
    bilabial_f1: float


def accuracy(guess: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> Accuracy:
    """Return the agreement of classes, both [rows] uint8. IGNORED labels do not count. A share of no rows is 0."""
    labelled = labels != IGNORED
    guess, labels = guess[labelled], labels[labelled]
    speech = labels != SILENCE
    visemes = np.array(VISEME_OF_PHONE)
    bilabials = [PHONE_INDEX[phone] for phone in BILABIALS]
    guessed, true = np.isin(guess, bilabials), np.isin(labels, bilabials)
    return Accuracy(
        rows=len(labels),
        all_rows=_share(guess == labels),
        speech_rows=_share((guess == labels)[speech]),
        viseme=_share((visemes[guess] == visemes[labels])[speech]),
        bilabial_f1=round(float(2 * (guessed & true).sum() / max(guessed.sum() + true.sum(), 1)), 4),
    )


def network_classes(model: PosteriorgramModel, signal: LabelledSignal) -> npt.NDArray[np.uint8]:
    """Return the most probable class of every row by the served network, [rows] uint8."""
    probabilities = model.run(served_windows(signal).cepstra)
    classes = probabilities.reshape(-1, probabilities.shape[-1]).argmax(axis=1)
    return np.asarray(classes[: len(signal.labels)], dtype=np.uint8)


def silence_agreement(guess: npt.NDArray[np.uint8], words: tuple[WordSpan, ...]) -> float:
    """Return the share of rows whose decision between speech and silence agrees with the given times of the words."""
    return float(((guess != SILENCE) == speech_by_given_times(words, len(guess))).mean())


def evaluate(
    data: TrainSet, weights: Path, *, baseline: bool, sources: Sequence[str] = ()
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the figures by source and by recogniser, `network` and `allphone`.

    Args:
        weights: folder with ppg.onnx.
        baseline: whether to measure pocketsphinx too, which takes minutes.
        sources: only these sources; empty: all.

    Raises:
        InvalidRequestError: the set has no held-out clip whose labels come from words.
        ModelNotFoundError: there is no ppg.onnx.
    """
    rows = [row for row in data.of("val", phones=True) if row.phones not in GUESSED and (not sources or row.source in sources)]
    if not rows:
        raise InvalidRequestError(
            f"{data.folder}: no held-out clip has labels that come from words; give transcripts", field="data"
        )
    model = PosteriorgramModel(weights)
    recognisers: dict[str, Callable[[LabelledSignal], npt.NDArray[np.uint8]]] = {
        "network": lambda signal: network_classes(model, signal)
    }
    if baseline:
        sphinx = Sphinx(context_dependent=True)
        recognisers["allphone"] = lambda signal: sphinx.allphone(signal.samples)
    report: dict[str, dict[str, dict[str, float]]] = {}
    for source in sorted({row.source for row in rows}):
        some = evenly([row for row in rows if row.source == source], CLIPS_OF_A_SOURCE)
        report[source] = {name: _measured(data, some, classes) for name, classes in recognisers.items()}
    return report


def _measured(
    data: TrainSet, rows: Sequence[ClipRow], classes: Callable[[LabelledSignal], npt.NDArray[np.uint8]]
) -> dict[str, float]:
    guesses, labels, timed = [], [], []
    for row in rows:
        sound = read_sound(data.folder, row)
        signal = LabelledSignal(sound.samples, read_recording(data, row)[1])
        guesses.append(classes(signal)[: len(signal.labels)])
        labels.append(signal.labels)
        if sound.words:
            timed.append(silence_agreement(guesses[-1], sound.words))
    figures = dataclasses.asdict(accuracy(np.concatenate(guesses), np.concatenate(labels)))
    return {**figures, "silence_against_given_times": round(float(np.mean(timed)), 4)} if timed else figures


def _share(right: npt.NDArray[np.bool_]) -> float:
    return round(float(right.mean()), 4) if len(right) else 0.0


@command_line
def main() -> int:
    """Run the command line, which prints one JSON object, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set with phones, made by `dubstage trainset`")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder with ppg.onnx")
    parser.add_argument("--no-baseline", action="store_true", help="leave pocketsphinx out (it takes minutes)")
    parser.add_argument("--sources", nargs="*", default=[], help="only these sources (default: all)")
    arguments = parser.parse_args()
    report = evaluate(TrainSet(arguments.data), arguments.weights, baseline=not arguments.no_baseline, sources=arguments.sources)
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
