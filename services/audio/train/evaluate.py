"""Measure the network: `python -m services.audio.train.evaluate --clips ../shared/clips --labels L.npz`.

The command measures the accuracy per row of the exported network and of pocketsphinx's free phone recognition (triphones, phone
language model) on held-out speech. The references are, for VCTK p228 (a speaker who is not in the training), the forced alignment
of the transcript; for GRID's held-out sentences, rows whose aligned word is the word that GRID's own times name, and for speech and
silence only GRID's times; for LibriSpeech's held-out speakers, the trusted part of the recognised text.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from services.audio.models import WEIGHTS
from services.audio.phones import PHONE_INDEX, SILENCE
from services.audio.posteriorgram import PosteriorgramModel
from services.audio.train.corpus import read_grid_align
from services.audio.train.dataset import Recording, load_recordings, windows_of
from services.audio.train.sphinx import IGNORED, Sphinx
from services.audio.train.visemes import BILABIALS, VISEME_OF_PHONE
from services.audio.types import ROWS_PER_SECOND, ROWS_PER_VIDEO_FRAME
from services.audio.windows import PAST_ROWS, WINDOW_ROWS

SOURCES: Final = ("grid", "librispeech", "vctk")


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """Agreement of guessed classes with labels, as shares of labelled rows."""

    rows: int
    all_rows: float
    speech_rows: float
    """Share of right classes on rows whose label is not silence."""
    viseme: float
    """Share of speech rows with the right mouth shape."""
    bilabial_f1: float
    """F1 of "the lips touch" (p, b, m) over all labelled rows."""


def accuracy(guess: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> Accuracy:
    """Return the agreement of classes, both [rows] uint8. IGNORED labels do not count."""
    known = labels != IGNORED
    guess, labels = guess[known], labels[known]
    speech = labels != SILENCE
    visemes = np.array(VISEME_OF_PHONE)
    bilabials = [PHONE_INDEX[phone] for phone in BILABIALS]
    heard, true = np.isin(guess, bilabials), np.isin(labels, bilabials)
    return Accuracy(
        rows=len(labels),
        all_rows=round(float((guess == labels).mean()), 4),
        speech_rows=round(float((guess == labels)[speech].mean()), 4),
        viseme=round(float((visemes[guess] == visemes[labels])[speech].mean()), 4),
        bilabial_f1=round(float(2 * (heard & true).sum() / max(heard.sum() + true.sum(), 1)), 4),
    )


def network_classes(model: PosteriorgramModel, recording: Recording) -> npt.NDArray[np.uint8]:
    """Return the most probable class of every row by the served network, [rows] uint8."""
    windows = windows_of(recording.signal, 0, ROWS_PER_VIDEO_FRAME)
    assert windows.cepstra.shape[1] == WINDOW_ROWS > PAST_ROWS
    probabilities = model.run(windows.cepstra)
    classes = probabilities.reshape(-1, probabilities.shape[-1]).argmax(axis=1)
    return np.asarray(classes[: len(recording.signal.labels)], dtype=np.uint8)


def silence_agreement(guess: npt.NDArray[np.uint8], times: Path) -> float:
    """Return the share of rows whose decision between speech and silence agrees with GRID's given word times."""
    silent = np.ones(len(guess), bool)
    for span in read_grid_align(times):
        if span.word != "sil":
            silent[round(span.start_s * ROWS_PER_SECOND) : round(span.end_s * ROWS_PER_SECOND)] = False
    return float(((guess == SILENCE) == silent).mean())


def main() -> None:
    """Run the command line, which prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder with catalogue.csv")
    parser.add_argument("--labels", type=Path, required=True, help="labelled set written by services.audio.train.align")
    parser.add_argument("--no-baseline", action="store_true", help="leave pocketsphinx out (it takes minutes)")
    parser.add_argument("--sources", nargs="*", default=[], help="only these sources (default: all)")
    arguments = parser.parse_args()
    model = PosteriorgramModel(WEIGHTS)
    sphinx = None if arguments.no_baseline else Sphinx(context_dependent=True)
    report: dict[str, dict[str, object]] = {}
    recordings = load_recordings(arguments.labels, "val")
    for source in sorted({recording.source for recording in recordings} & set(arguments.sources or SOURCES)):
        held_out = [recording for recording in recordings if recording.source == source]
        labels = np.concatenate([recording.signal.labels for recording in held_out])
        guesses = {"network": [network_classes(model, recording) for recording in held_out]}
        if sphinx is not None:
            guesses["allphone"] = [sphinx.allphone(recording.signal.samples) for recording in held_out]
        for name, guess in guesses.items():
            result: dict[str, object] = dataclasses.asdict(accuracy(np.concatenate(guess), labels))
            timed = [
                silence_agreement(classes, times)
                for recording, classes in zip(held_out, guess, strict=True)
                if (times := (arguments.clips / recording.name).with_suffix(".align")).exists()
            ]
            if timed:
                result["silence_against_given_times"] = round(float(np.mean(timed)), 4)
            report.setdefault(source, {})[name] = result
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
