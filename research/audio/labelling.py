"""Phone labels of recordings by pocketsphinx, and the preparation `phones` of a training set.

A recording is labelled by forced alignment of known words, else of recognised words, else by free phone recognition. The
preparation writes NAME.phones.safetensors for every clip with sound.

Row i of this module is the product's acoustic row i (centred at (i + 0.5) * 10 ms). pocketsphinx's frame k is centred at
10 k + 12.8 ms, so pocketsphinx's frame k is row k + 1 to within 2.2 ms (`FRAME_SHIFT_ROWS`).
"""

from __future__ import annotations

import functools
import multiprocessing
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pocketsphinx
from safetensors import SafetensorError, safe_open

from research.audio.recordings import IGNORED, WordSpan, read_sound
from research.training.trainset import FORMAT_VERSION, ClipRow, part_path, read_manifest
from services.audio.types import HOP_SAMPLES, ROWS_PER_SECOND
from services.common.array_types import Float32
from services.common.errors import DubstageError
from services.common.files import write_whole
from services.common.store.tensor_bytes import encode_arrays
from services.common.wire.phones import PHONE_INDEX, SILENCE

FRAME_SHIFT_ROWS: Final = 1
_FLITE_TO_ARPABET: Final = {"ax": "AH", "axr": "ER", "hv": "HH", "pau": "SIL"}
_FILLERS: Final = {"<sil>", "<s>", "</s>", "[NOISE]", "[SPEECH]", "(NULL)"}
WORD_PROBABILITY: Final = 0.7
"""Least posterior of a recognised word. Words with a lower posterior count only where free phone recognition agrees."""
MIN_KEPT: Final = 0.3
"""Least share of labelled rows. If a method labels a smaller share, the next, weaker method labels the clip."""
MAX_ALIGNED_S: Final = 60.0
"""Longest recording that is aligned as a whole. In longer ones the search loses its way, and its memory grows."""
_PIECE_ROWS: Final = (20 * ROWS_PER_SECOND, 30 * ROWS_PER_SECOND)
"""Shortest and longest piece for recognition. A piece ends at the quietest moment between the two."""
_SILENT_WORDS: Final = frozenset({"", "sil", "sp", "spn", "<sil>"})
Origin = Literal["aligned", "recognised", "allphone", "network"]
_CLIPS_AT_ONCE: Final = 1000
"""Clips that are handed to the processes together."""


@dataclass(frozen=True, slots=True)
class WordRows:
    """Word of an alignment: rows [start, end), the phone class of each row, and the word's posterior (1 if the word was given)."""

    word: str
    start: int
    end: int
    labels: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class RecognisedWord:
    """Recognised word: rows [start, end) and the posterior probability of the word in the lattice."""

    word: str
    start: int
    end: int
    probability: float


def _pcm(samples: npt.NDArray[np.float32]) -> bytes:
    return np.clip(np.round(samples * 32767.0), -32768, 32767).astype("<i2").tobytes()


def _class_of(phone: str) -> int:
    return PHONE_INDEX.get(phone, SILENCE)


def _base_word(word: str) -> str:
    return word.split("(", maxsplit=1)[0]


def flite_pronunciation(word: str) -> str:
    """Return the ARPAbet phones of a word by flite's letter-to-sound rules; empty where flite is missing or knows no phone."""
    try:
        run = subprocess.run(["flite", "-t", word, "-ps", "-o", "none"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    phones = [_FLITE_TO_ARPABET.get(phone, phone.upper()) for phone in run.stdout.split()]
    spoken = [phone for phone in phones if phone != "SIL"]
    return " ".join(spoken) if all(phone in PHONE_INDEX for phone in spoken) else ""


class Sphinx:
    """Three decoders over the US-English model in the pocketsphinx package. Not thread safe: use one object per process."""

    def __init__(self, *, context_dependent: bool = False) -> None:
        """Load the decoders.

        Args:
            context_dependent: use triphones in free phone recognition: about eight points better and twenty times slower.
        """
        quiet = {"loglevel": "FATAL"}
        self._aligner = pocketsphinx.Decoder(lm=None, bestpath=False, **quiet)
        self._phones = pocketsphinx.Decoder(
            lm=None, allphone=pocketsphinx.get_model_path("en-us/en-us-phone.lm.bin"), lw=2.0, beam=1e-20, pbeam=1e-20,
            allphone_ci=not context_dependent, **quiet,
        )  # fmt: skip
        self._words = pocketsphinx.Decoder(**quiet)

    @staticmethod
    def _decode(decoder: pocketsphinx.Decoder, pcm: bytes) -> None:
        # The front end keeps noise estimates of earlier sounds. Without a new one, labels would depend on the order of the clips.
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw(pcm, no_search=False, full_utt=True)
        decoder.end_utt()

    def missing(self, words: tuple[str, ...]) -> list[str]:
        """Return the words without a pronunciation. Where the dictionary lacks a word, flite's rules are asked if it is there."""
        unknown = []
        for word in dict.fromkeys(words):
            if self._aligner.lookup_word(word) is None:
                phones = flite_pronunciation(word)
                if phones:
                    self._aligner.add_word(word, phones, True)
                else:
                    unknown.append(word)
        return unknown

    def align(self, samples: npt.NDArray[np.float32], words: tuple[str, ...]) -> tuple[WordRows, ...] | None:
        """Return the phones of known words, with silences as words named "sil"; None if the search fails.

        Args:
            samples: float32 at 16 kHz.
            words: words that `missing` does not name.
        """
        pcm = _pcm(samples)
        try:
            self._aligner.set_align_text(" ".join(words))
            self._decode(self._aligner, pcm)
            if self._aligner.hyp() is None:
                return None
            self._aligner.set_alignment()
            self._decode(self._aligner, pcm)
        except RuntimeError:  # pocketsphinx's own error type for "no path through the transcript"
            return None
        aligned: list[WordRows] = []
        # The iterator owns its entries: read them while the iterator is alive.
        for entry in self._aligner.get_alignment() or ():
            labels = np.concatenate([np.full(phone.duration, _class_of(phone.name), np.uint8) for phone in entry])
            start = entry.start + FRAME_SHIFT_ROWS
            word = "sil" if entry.name in _FILLERS else _base_word(entry.name)
            aligned.append(WordRows(word, start, start + len(labels), labels))
        return tuple(aligned) or None

    def allphone(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Return the phone class of every row by free phone recognition with the phone language model, [rows] uint8."""
        self._decode(self._phones, _pcm(samples))
        labels = np.full(num_rows(samples), SILENCE, np.uint8)
        for segment in self._phones.seg() or ():
            start, end = segment.start_frame + FRAME_SHIFT_ROWS, segment.end_frame + 1 + FRAME_SHIFT_ROWS
            labels[start:end] = _class_of(segment.word)
        return labels

    def recognise(self, samples: npt.NDArray[np.float32]) -> tuple[RecognisedWord, ...]:
        """Return the recognised words, by the package's trigram model, without fillers."""
        self._decode(self._words, _pcm(samples))
        return tuple(
            RecognisedWord(
                _base_word(segment.word),
                segment.start_frame + FRAME_SHIFT_ROWS,
                segment.end_frame + 1 + FRAME_SHIFT_ROWS,
                float(segment.prob),
            )
            for segment in self._words.seg() or ()
            if segment.word not in _FILLERS
        )


def num_rows(samples: npt.NDArray[np.float32]) -> int:
    """Return the number of acoustic rows that lie wholly inside the samples."""
    return len(samples) // HOP_SAMPLES


def rows_of(words: tuple[WordRows, ...], rows: int) -> npt.NDArray[np.uint8]:
    """Return the phone class of every row, [rows] uint8; silence outside words."""
    labels = np.full(rows, SILENCE, np.uint8)
    for word in words:
        end = min(word.end, rows)
        labels[word.start : end] = word.labels[: max(0, end - word.start)]
    return labels


class PhoneLabels(NamedTuple):
    """Labels of a recording of R rows.

    Attributes:
        labels: uint8 [R], phone classes, IGNORED where unknown.
        free_phones: uint8 [R], phone classes by free phone recognition.
        origin: how the labels were created.
        reason: why they were not created from the transcript that the recording has; empty: they were, or there is none.
    """

    labels: npt.NDArray[np.uint8]
    free_phones: npt.NDArray[np.uint8]
    origin: Origin
    reason: str


def words_of(text: str) -> tuple[str, ...]:
    """Return lower-case words without punctuation; hyphens separate, apostrophes stay."""
    return tuple(re.findall(r"[a-z']*[a-z][a-z']*", text.lower().replace("’", "'").replace("-", " ")))


def label(sphinx: Sphinx, samples: Float32, transcript: str, spans: tuple[WordSpan, ...]) -> PhoneLabels:
    """Return the labels of a recording.

    Args:
        sphinx: the decoders.
        samples: float32 [N] at 16 kHz, at least one row.
        transcript: spoken words; empty: unknown.
        spans: words with given times; empty: none. Then a row is labelled only if the aligned word is the word that the times name.
    """
    pieces = cut(samples)
    free_phones = np.concatenate([sphinx.allphone(piece) for piece in pieces])
    reason = ""
    if transcript or spans:
        aligned = _by_transcript(sphinx, samples, transcript, spans)
        if not isinstance(aligned, str):
            return PhoneLabels(aligned, free_phones, "aligned", "")
        reason = aligned
    parts, start = [], 0
    for piece in pieces:
        end = start + num_rows(piece)
        parts.append(_by_recognition(sphinx, piece, free_phones[start:end]))
        start = end
    labels = np.concatenate(parts)
    if _kept(labels) < MIN_KEPT:
        return PhoneLabels(free_phones, free_phones, "allphone", reason)
    return PhoneLabels(labels, free_phones, "recognised", reason)


def cut(samples: Float32) -> list[Float32]:
    """Return a recording in pieces of at most 30 s, cut between rows at the quietest 100 ms."""
    shortest, longest = _PIECE_ROWS
    pieces = []
    while num_rows(samples) > longest:
        rows = samples[shortest * HOP_SAMPLES : longest * HOP_SAMPLES].reshape(-1, HOP_SAMPLES).astype(np.float64)
        power = np.convolve((rows**2).sum(axis=1), np.ones(10), mode="same")
        end = (shortest + int(power.argmin())) * HOP_SAMPLES
        pieces.append(samples[:end])
        samples = samples[end:]
    return [*pieces, samples]


def mask_by_given_times(words: tuple[WordRows, ...], spans: tuple[WordSpan, ...], rows: int) -> npt.NDArray[np.uint8]:
    """Return the labels of an alignment, IGNORED on rows whose aligned word differs from the word that the given times name."""
    given = _given(spans, rows)
    agrees = given < 0
    for word in words:
        same = [-1] if word.word == "sil" else [number for number, span in enumerate(spans) if word.word in words_of(span.word)]
        inside = slice(word.start, min(word.end, rows))
        agrees[inside] = np.isin(given[inside], same)
    return np.where(agrees, rows_of(words, rows), np.uint8(IGNORED))


def speech_by_given_times(spans: tuple[WordSpan, ...], rows: int) -> npt.NDArray[np.bool_]:
    """Return the rows in which a word is spoken by the given times, [rows]."""
    return _given(spans, rows) >= 0


def _given(spans: tuple[WordSpan, ...], rows: int) -> npt.NDArray[np.int64]:
    """Return the number of the span of each row, -1 in silence."""
    given = np.full(rows, -1)
    for number, span in enumerate(spans):
        if span.word.lower() not in _SILENT_WORDS:
            given[max(0, round(span.start_s * ROWS_PER_SECOND)) : max(0, round(span.end_s * ROWS_PER_SECOND))] = number
    return given


def _by_transcript(sphinx: Sphinx, samples: Float32, transcript: str, spans: tuple[WordSpan, ...]) -> npt.NDArray[np.uint8] | str:
    """Return the labels by forced alignment, or why there are none."""
    rows = num_rows(samples)
    if rows > MAX_ALIGNED_S * ROWS_PER_SECOND:
        return (
            f"transcript not used: {rows / ROWS_PER_SECOND:.0f} s are too long to align, cut the clip below {MAX_ALIGNED_S:.0f} s"
        )
    transcribed = " ".join(span.word for span in spans if span.word.lower() not in _SILENT_WORDS) if spans else transcript
    words = words_of(transcribed)
    if not words:
        return "transcript not used: it has no English word"
    missing = sphinx.missing(words)
    if missing:
        return f"transcript not used: the dictionary lacks {', '.join(missing[:3])}; with flite installed, its rules would be asked"
    aligned = sphinx.align(samples, words)
    if aligned is None:
        return "transcript not used: the sound does not fit the words"
    labels = mask_by_given_times(aligned, spans, rows) if spans else rows_of(aligned, rows)
    return labels if _kept(labels) >= MIN_KEPT else "transcript not used: the alignment does not fit the given times of the words"


def _by_recognition(sphinx: Sphinx, samples: Float32, free_phones: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the labels of recognised words; IGNORED on rows of doubtful words on which free recognition disagrees."""
    unknown = np.full(len(free_phones), IGNORED, np.uint8)
    recognised = sphinx.recognise(samples)
    words = tuple(word.word for word in recognised)
    aligned = sphinx.align(samples, words) if words and not sphinx.missing(words) else None
    if aligned is None:
        return unknown
    labels = rows_of(aligned, len(free_phones))
    trusted = (labels == free_phones) | (labels == SILENCE)
    for word in recognised:
        if word.probability >= WORD_PROBABILITY:
            trusted[word.start : word.end] = True
    return np.where(trusted, labels, unknown)


def _kept(labels: npt.NDArray[np.uint8]) -> float:
    return float((labels != IGNORED).mean())


def prepare_phones(folder: Path, _clips: Path, processes: int, progress: Callable[[int, int], None]) -> Mapping[str, str]:
    """Label the phones of all clips with sound. The manifest stays as it is: who calls notes the origin of the labels.

    Labels of an earlier call stay, unless the clip's footage or transcript has changed since.

    Args:
        folder: folder of the training set.
        _clips: folder of the clips; not needed, the sound lies in the set.
        processes: processes that label, at least one.
        progress: called with the number of clips done and of all clips.

    Returns:
        By name of the clip: why the clip has no labels, or why its transcript was not used.

    Raises:
        InvalidRequestError: the folder is not a training set.
    """
    rows = list(read_manifest(folder))
    done = {row.name: stored for row in rows if (stored := _stored_before(folder, row)) is not None}
    progress(len(done), len(rows))
    waiting = [row for row in rows if row.name not in done]
    for row, reason in zip(waiting, _label_all(folder, waiting, processes), strict=True):
        done[row.name] = reason
        progress(len(done), len(rows))
    return {row.name: done[row.name] for row in rows if done[row.name]}


def write_labels(folder: Path, row: ClipRow, phones: PhoneLabels) -> None:
    """Write the labels of a clip. An interrupted call leaves the earlier file."""
    about = {**_source_metadata(row), "origin": phones.origin, "reason": phones.reason}
    content = encode_arrays({"labels": phones.labels, "heard": phones.free_phones}, about)
    write_whole(part_path(folder, row.shard, row.name, "phones"), content)


def _label_all(folder: Path, rows: Sequence[ClipRow], processes: int) -> Iterator[str]:
    if processes == 1 or len(rows) < 2:
        yield from (_label_clip(folder, row) for row in rows)
        _decoders.cache_clear()
        return
    # A forked process would share the decoders' state and the locks of threads that are not there.
    with ProcessPoolExecutor(min(processes, len(rows)), multiprocessing.get_context("spawn")) as pool:
        for first in range(0, len(rows), _CLIPS_AT_ONCE):
            yield from pool.map(functools.partial(_label_clip, folder), rows[first : first + _CLIPS_AT_ONCE])


@functools.cache
def _decoders() -> Sphinx:
    """Return the decoders of this process. Loading the model takes longer than aligning a sentence."""
    return Sphinx()


def _label_clip(folder: Path, row: ClipRow) -> str:
    """Label one clip and write its file. Return why labels are missing or weaker; empty: they are neither."""
    try:
        sound = read_sound(folder, row)
    except DubstageError as problem:
        return problem.message
    if not num_rows(sound.samples) or not sound.samples.any():
        return "no phones: the clip has no sound"
    phones = label(_decoders(), sound.samples, row.transcript, sound.words)
    write_labels(folder, row, phones)
    return phones.reason


def _source_metadata(row: ClipRow) -> dict[str, str]:
    """Return the metadata that identifies the footage and transcript of a file."""
    span = {"first_frame": str(row.first_frame), "frames": str(row.frames)}
    return {"format": FORMAT_VERSION, "source_sha256": row.sha256, "transcript": row.transcript, **span}


def _stored_before(folder: Path, row: ClipRow) -> str | None:
    """Return the reason that the file of an earlier call holds; None: there is no file, or not of this footage and transcript."""
    path = part_path(folder, row.shard, row.name, "phones")
    try:
        with safe_open(path, "numpy") as file:
            noted: dict[str, str] = file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    expected = _source_metadata(row)
    if {name: noted.get(name) for name in expected} != expected:
        return None
    return noted["reason"]
