"""Speech for the Audio ID-Removing Network: normalised cepstra with the speaker and each row's phone.

The speech of every speaker is divided into a training part and a held-out part. If a speaker has a single recording, the recording
is cut after 60 %, with a gap of half a second. Otherwise whole recordings are held out. Copies at other speeds count as other
speakers, because pitch and formants move with the speed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import soxr

from services.audio.features import cepstra, spectral_rows
from services.audio.identity_removal.normalise import RunningNormaliser
from services.audio.train.dataset import Recording, load_recordings
from services.audio.train.sphinx import IGNORED
from services.audio.types import HOP_SAMPLES, SAMPLE_RATE_HZ
from services.common.array_types import Float32

SPEEDS: Final = (1.0, 0.89, 1.12)
TRAIN_SHARE: Final = 0.6
GAP_ROWS: Final = 50
HELD_OUT_EVERY: Final = 3
"""Every third recording of a speaker is held out."""


@dataclass(frozen=True, slots=True)
class SpeechPart:
    """Consecutive rows of one recording.

    Attributes:
        name: name of the recording.
        corpus: `grid`, `librispeech`, ... Within one corpus, the words show little of the speaker.
        speaker: name of the speaker. The name of a copy at another speed contains the speed.
        rows: float32 [R, 20], normalised cepstra.
        raw: float32 [R, 20], cepstra.
        labels: uint8 [R], phone classes, IGNORED where unknown.
        split: `train`; `held_out`: other speech of a speaker in `train`; `val`: speakers who are not in `train`.
    """

    name: str
    corpus: str
    speaker: str
    rows: Float32
    raw: Float32
    labels: npt.NDArray[np.uint8]
    split: str


def _at_speed(recording: Recording, speed: float) -> tuple[Float32, npt.NDArray[np.uint8]]:
    samples, labels = recording.signal.samples, recording.signal.labels
    if speed == 1.0:
        return samples, labels
    samples = np.asarray(soxr.resample(samples, SAMPLE_RATE_HZ * speed, SAMPLE_RATE_HZ, quality="MQ"), np.float32)
    rows = len(samples) // HOP_SAMPLES
    return samples, labels[np.minimum(((np.arange(rows) + 0.5) * speed).astype(np.int64), len(labels) - 1)]


def _sentence(name: str) -> int:
    """Return the sentence's number: the last number in the recording's name.

    In flite and VCTK, recordings of the same sentence share this number.
    """
    numbers = re.findall(r"\d+", Path(name).stem)
    return int(numbers[-1]) if numbers else 0


def speech_parts(labels: Path, speeds: tuple[float, ...] = SPEEDS) -> list[SpeechPart]:
    """Return all parts of a labelled set (services.audio.train.align), recordings of `val` last."""
    parts: list[SpeechPart] = []
    recordings = load_recordings(labels, "train")
    count: dict[str, int] = {}
    for recording in recordings:
        count[recording.speaker] = count.get(recording.speaker, 0) + 1
    seen: dict[str, int] = {}
    for recording in recordings:
        index = seen[recording.speaker] = seen.get(recording.speaker, -1) + 1
        order = _sentence(recording.name) if recording.source in {"flite", "vctk"} else index
        for speed in speeds:
            whole = _part(recording, speed, "train")
            if count[recording.speaker] > 1:
                split = "held_out" if order % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else "train"
                parts.append(_cut(whole, 0, len(whole.rows), split))
                continue
            cut = int(len(whole.rows) * TRAIN_SHARE)
            parts.append(_cut(whole, 0, cut, "train"))
            parts.append(_cut(whole, min(cut + GAP_ROWS, len(whole.rows)), len(whole.rows), "held_out"))
    parts += [_part(recording, 1.0, "val") for recording in load_recordings(labels, "val")]
    return [part for part in parts if len(part.rows)]


def _part(recording: Recording, speed: float, split: str) -> SpeechPart:
    samples, labels = _at_speed(recording, speed)
    raw = cepstra(spectral_rows(samples))
    known = np.full(len(raw), IGNORED, np.uint8)
    known[: len(labels)] = labels[: len(raw)]
    speaker = recording.speaker if speed == 1.0 else f"{recording.speaker}@{speed}"
    return SpeechPart(recording.name, recording.source, speaker, RunningNormaliser().push(raw), raw, known, split)


def _cut(part: SpeechPart, start: int, end: int, split: str) -> SpeechPart:
    rows = slice(start, end)
    return SpeechPart(part.name, part.corpus, part.speaker, part.rows[rows], part.raw[rows], part.labels[rows], split)


def save_parts(parts: list[SpeechPart], path: Path) -> None:
    """Write all parts to one .npz, so that a training run need not process the sound again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        names=np.array([part.name for part in parts]),
        corpora=np.array([part.corpus for part in parts]),
        speakers=np.array([part.speaker for part in parts]),
        splits=np.array([part.split for part in parts]),
        lengths=np.array([len(part.rows) for part in parts]),
        rows=np.concatenate([part.rows for part in parts]),
        raw=np.concatenate([part.raw for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
    )


def load_parts(path: Path) -> list[SpeechPart]:
    """Return the parts from a file that `save_parts` wrote."""
    with np.load(path) as archive:
        data = {key: archive[key] for key in archive.files}
    ends = np.cumsum(data["lengths"])
    parts = []
    for index, end in enumerate(ends):
        rows = slice(int(end - data["lengths"][index]), int(end))
        name, corpus, speaker, split = (str(data[key][index]) for key in ("names", "corpora", "speakers", "splits"))
        parts.append(SpeechPart(name, corpus, speaker, data["rows"][rows], data["raw"][rows], data["labels"][rows], split))
    return parts


def main() -> None:
    """Run `python -m services.audio.identity_removal.train.data --labels L.npz --out build/audio/speech_parts.npz`."""
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="labelled set written by services.audio.train.align")
    parser.add_argument("--out", type=Path, required=True, help="file to write (.npz)")
    arguments = parser.parse_args()
    parts = speech_parts(arguments.labels)
    save_parts(parts, arguments.out)
    for split in ("train", "held_out", "val"):
        chosen = [part for part in parts if part.split == split]
        minutes = sum(len(part.rows) for part in chosen) / 6000
        print(f"{split:9s} {len(chosen):5d} parts, {len({part.speaker for part in chosen}):4d} speakers, {minutes:6.1f} min")


if __name__ == "__main__":
    main()
