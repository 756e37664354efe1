"""Phone labels of one recording: forced alignment of known words, else of recognised words, else free phone recognition."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from services.audio.train.recordings import IGNORED, WordSpan
from services.audio.train.sphinx import Sphinx, WordRows, num_rows, rows_of
from services.audio.types import HOP_SAMPLES, ROWS_PER_SECOND
from services.common.array_types import Float32
from services.common.wire.phones import SILENCE

WORD_PROBABILITY: Final = 0.7
"""Least posterior of a recognised word. Words with a lower posterior count only where free phone recognition agrees."""
MIN_KEPT: Final = 0.3
"""Least share of known rows. If a method knows a smaller share, the next, weaker method labels the clip."""
MAX_ALIGNED_S: Final = 60.0
"""Longest recording that is aligned as a whole. In longer ones the search loses its way, and its memory grows."""
_PIECE_ROWS: Final = (20 * ROWS_PER_SECOND, 30 * ROWS_PER_SECOND)
"""Shortest and longest piece for recognition. A piece ends at the quietest moment between the two."""
_SILENT_WORDS: Final = frozenset({"", "sil", "sp", "spn", "<sil>"})

Origin = Literal["aligned", "recognised", "allphone", "network"]


class PhoneLabels(NamedTuple):
    """Labels of a recording of R rows.

    Attributes:
        labels: uint8 [R], phone classes, IGNORED where unknown.
        heard: uint8 [R], phone classes by free phone recognition.
        origin: how the labels were made.
        reason: why they were not made from the transcript that the recording has; empty: they were, or there is none.
    """

    labels: npt.NDArray[np.uint8]
    heard: npt.NDArray[np.uint8]
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
        spans: words with given times; empty: none. Then a row is known only if the aligned word is the word that the times name.
    """
    pieces = cut(samples)
    heard = np.concatenate([sphinx.allphone(piece) for piece in pieces])
    reason = ""
    if transcript or spans:
        aligned = _by_transcript(sphinx, samples, transcript, spans)
        if not isinstance(aligned, str):
            return PhoneLabels(aligned, heard, "aligned", "")
        reason = aligned
    found, start = [], 0
    for piece in pieces:
        end = start + num_rows(piece)
        found.append(_by_recognition(sphinx, piece, heard[start:end]))
        start = end
    labels = np.concatenate(found)
    if _kept(labels) < MIN_KEPT:
        return PhoneLabels(heard, heard, "allphone", reason)
    return PhoneLabels(labels, heard, "recognised", reason)


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
        place = slice(word.start, min(word.end, rows))
        agrees[place] = np.isin(given[place], same)
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
    told = " ".join(span.word for span in spans if span.word.lower() not in _SILENT_WORDS) if spans else transcript
    words = words_of(told)
    if not words:
        return "transcript not used: it has no English word"
    missing = sphinx.missing(words)
    if missing:
        return f"transcript not used: the dictionary lacks {', '.join(missing[:3])}; with flite installed, its rules would be asked"
    found = sphinx.align(samples, words)
    if found is None:
        return "transcript not used: the sound does not fit the words"
    labels = mask_by_given_times(found, spans, rows) if spans else rows_of(found, rows)
    return labels if _kept(labels) >= MIN_KEPT else "transcript not used: the alignment does not fit the given times of the words"


def _by_recognition(sphinx: Sphinx, samples: Float32, heard: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the labels of recognised words; IGNORED on rows of doubtful words on which free recognition disagrees."""
    unknown = np.full(len(heard), IGNORED, np.uint8)
    recognised = sphinx.recognise(samples)
    words = tuple(word.word for word in recognised)
    aligned = sphinx.align(samples, words) if words and not sphinx.missing(words) else None
    if aligned is None:
        return unknown
    labels = rows_of(aligned, len(heard))
    trusted = (labels == heard) | (labels == SILENCE)
    for word in recognised:
        if word.probability >= WORD_PROBABILITY:
            trusted[word.start : word.end] = True
    return np.where(trusted, labels, unknown)


def _kept(labels: npt.NDArray[np.uint8]) -> float:
    return float((labels != IGNORED).mean())
