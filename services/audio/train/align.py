"""Build the labelled set: `python -m services.audio.train.align --clips ../shared/clips --out build/audio/labels.npz`.

Transcribed speech is forced-aligned. A row of GRID counts only if the aligned word is the word that GRID's own times name.
LibriSpeech comes without transcripts: words are recognised, then aligned. A row of LibriSpeech counts only if the word's posterior
is high or free phone recognition hears the same phone.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.progress import track

from services.audio.phones import SILENCE
from services.audio.train.corpus import Utterance, catalogue_utterances, flite_utterances
from services.audio.train.sphinx import IGNORED, Sphinx, WordRows, num_rows, rows_of

WORD_PROBABILITY: Final = 0.7
"""Least posterior of a recognised word. Words with a lower posterior count only where free phone recognition agrees."""
MIN_KEPT: Final = 0.3
"""Smallest share of kept rows: a recognised utterance with a smaller share is dropped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """Utterance with labels."""

    utterance: Utterance
    labels: npt.NDArray[np.uint8]
    """Phone classes [rows], IGNORED where unknown."""
    allphone: npt.NDArray[np.uint8]
    """Phone classes [rows] by free phone recognition: the baseline that the network must reach."""


@functools.cache
def _decoders() -> Sphinx:
    """Return the decoders of this process. Loading the model takes longer than aligning a sentence."""
    return Sphinx()


def _start_worker() -> None:
    os.nice(10)
    _decoders()


def mask_by_given_times(words: tuple[WordRows, ...], utterance: Utterance, rows: int) -> npt.NDArray[np.uint8]:
    """Return the labels of an alignment, IGNORED on rows whose aligned word differs from the word that the given times name."""
    labels = rows_of(words, rows)
    aligned = np.full(rows, "sil", object)
    for word in words:
        aligned[word.start : min(word.end, rows)] = word.word
    given = np.full(rows, "sil", object)
    for span in utterance.spans:
        given[round(span.start_s * 100) : round(span.end_s * 100)] = span.word
    labels[aligned != given] = IGNORED
    return labels


def label(utterance: Utterance) -> Labelled | None:
    """Return the labels of one utterance; None if the alignment fails or too few rows are trusted."""
    decoders = _decoders()
    rows = num_rows(utterance.samples)
    allphone = decoders.allphone(utterance.samples)
    if utterance.words:
        words = decoders.align(utterance.samples, utterance.words)
        if words is None:
            return None
        labels = mask_by_given_times(words, utterance, rows) if utterance.spans else rows_of(words, rows)
    else:
        recognised = decoders.recognise(utterance.samples)
        words = decoders.align(utterance.samples, tuple(word.word for word in recognised)) if recognised else None
        if words is None:
            return None
        labels = rows_of(words, rows)
        trusted = (labels == allphone) | (labels == SILENCE)
        for word in recognised:
            if word.probability >= WORD_PROBABILITY:
                trusted[word.start : word.end] = True
        labels[~trusted] = IGNORED
        if trusted.mean() < MIN_KEPT:
            return None
    return Labelled(utterance=utterance, labels=labels, allphone=allphone)


def save(labelled: list[Labelled], path: Path) -> None:
    """Write one .npz: names per utterance, and the concatenated int16 samples, labels and baseline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        names=np.array([item.utterance.name for item in labelled]),
        splits=np.array([item.utterance.split for item in labelled]),
        sources=np.array([item.utterance.source for item in labelled]),
        speakers=np.array([item.utterance.speaker for item in labelled]),
        sample_counts=np.array([len(item.utterance.samples) for item in labelled]),
        row_counts=np.array([len(item.labels) for item in labelled]),
        samples=np.concatenate(
            [np.clip(np.round(item.utterance.samples * 32767), -32768, 32767).astype(np.int16) for item in labelled]
        ),
        labels=np.concatenate([item.labels for item in labelled]),
        allphone=np.concatenate([item.allphone for item in labelled]),
    )


def _utterances(clips: Path, sources: set[str]) -> Iterator[Utterance]:
    every = chain(catalogue_utterances(clips), flite_utterances() if not sources or "flite" in sources else ())
    return (utterance for utterance in every if not sources or utterance.source in sources)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder with catalogue.csv")
    parser.add_argument("--out", type=Path, required=True, help="labelled set to write (.npz)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--sources", nargs="*", default=[], help="only these sources (default: all)")
    arguments = parser.parse_args()
    kept: list[Labelled] = []
    dropped: Counter[str] = Counter()
    with multiprocessing.get_context("spawn").Pool(arguments.processes, _start_worker) as pool:
        utterances = list(_utterances(arguments.clips, set(arguments.sources)))
        results = pool.imap(label, utterances)
        for utterance, result in zip(utterances, track(results, total=len(utterances), description="align"), strict=True):
            if result is None:
                dropped[utterance.source] += 1
            else:
                kept.append(result)
    save(kept, arguments.out)
    for source in sorted({item.utterance.source for item in kept}):
        items = [item for item in kept if item.utterance.source == source]
        rows = np.concatenate([item.labels for item in items])
        print(
            f"{source:12s} {len(items):4d} utterances, {len(rows) / 6000:5.1f} min, "
            f"{(rows != IGNORED).mean():.0%} of rows labelled, {dropped[source]} dropped"
        )


if __name__ == "__main__":
    main()
