"""Speech to label: rows of a clip catalogue, and sentences that Debian's flite voices speak."""

from __future__ import annotations

import csv
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from services.audio.types import SAMPLE_RATE_HZ

GRID_ALIGN_UNITS_PER_S: Final = 25_000
"""Time unit of GRID's .align files."""
FLITE_VOICES: Final = ("slt", "rms", "awb")
SENTENCES_PATH: Final = Path(__file__).with_name("sentences.txt")


@dataclass(frozen=True, kw_only=True, slots=True)
class WordSpan:
    """Word of a transcript with given times, seconds. "sil" is silence."""

    word: str
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """Recording: 16 kHz mono float32 samples, the speaker, and the words if known."""

    name: str
    split: str
    """`train` or `val`."""
    source: str
    """`vctk`, `ljspeech`, `jfk`, `grid`, `librispeech` or `flite`."""
    speaker: str
    samples: npt.NDArray[np.float32]
    words: tuple[str, ...]
    """Lower-case words; empty without a transcript."""
    spans: tuple[WordSpan, ...] = ()
    """Word times that came with the recording (GRID)."""


def words_of(text: str) -> tuple[str, ...]:
    """Return lower-case words without punctuation; hyphens separate, apostrophes stay."""
    return tuple(re.findall(r"[a-z']*[a-z][a-z']*", text.lower().replace("’", "'").replace("-", " ")))


def read_mono_16k(path: Path) -> npt.NDArray[np.float32]:
    """Return the first audio stream of any media file, [samples] float32 at 16 kHz, channels averaged."""
    if path.suffix in {".wav", ".flac"}:
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        mono = samples.mean(axis=1)
    else:
        with av.open(str(path)) as container:
            resampler = av.AudioResampler(format="fltp", layout="mono")
            stream = container.streams.audio[0]
            rate_hz = stream.rate
            frames = [out for frame in container.decode(stream) for out in resampler.resample(frame)]
            frames += resampler.resample(None)
        mono = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return np.asarray(soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ), dtype=np.float32)


def read_grid_align(path: Path) -> tuple[WordSpan, ...]:
    """Return the word times of a GRID sentence."""
    spans = []
    for line in path.read_text().splitlines():
        start, end, word = line.split()
        spans.append(
            WordSpan(
                word="sil" if word in {"sil", "sp"} else word,
                start_s=int(start) / GRID_ALIGN_UNITS_PER_S,
                end_s=int(end) / GRID_ALIGN_UNITS_PER_S,
            )
        )
    return tuple(spans)


def catalogue_utterances(clips: Path) -> Iterator[Utterance]:
    """Return all rows of `clips/catalogue.csv` whose use is train or val and that hold speech with a usable licence."""
    with (clips / "catalogue.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        path = clips / row["file"]
        source = {"grid": "grid", "speech": "speech"}.get(row["file"].split("/")[0], "")
        if row["use"] not in {"train", "val"} or not source:
            continue
        spans: tuple[WordSpan, ...] = ()
        if source == "grid":
            times = path.with_suffix(".align")
            spans = read_grid_align(times) if times.exists() else ()
            words = tuple(span.word for span in spans if span.word != "sil") or words_of(row["transcript"])
        else:
            source = row["file"].split("/")[1].split("_")[0]
            words = words_of(row["transcript"])
        try:
            samples = read_mono_16k(path)
        except av.error.InvalidDataError:
            # A lost packet would shift every later label: leave the recording out.
            print(f"left out, damaged audio: {row['file']}")
            continue
        yield Utterance(
            name=row["file"],
            split=row["use"],
            source=source,
            speaker=row["speaker"],
            samples=samples,
            words=words,
            spans=spans,
        )


def flite_utterances() -> Iterator[Utterance]:
    """Return the committed sentences spoken by each flite voice, at three speaking rates in turn. Needs `flite` on the PATH."""
    sentences = [line for line in SENTENCES_PATH.read_text().splitlines() if line.strip()]
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "sentence.wav"
        for voice in FLITE_VOICES:
            for index, sentence in enumerate(sentences):
                stretch = (0.9, 1.0, 1.15)[index % 3]
                subprocess.run(
                    ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch}", "-t", sentence, "-o", str(wav)],
                    check=True,
                    capture_output=True,
                )
                yield Utterance(
                    name=f"flite/{voice}/{index:03d}",
                    split="train",
                    source="flite",
                    speaker=f"flite-{voice}",
                    samples=read_mono_16k(wav),
                    words=words_of(sentence),
                )
