"""Times of p, b and m in transcribed speech (forced alignment by pocketsphinx), and the search for transcripts."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Final

import numpy as np

from services.common.array_types import Float32, Float64
from services.common.errors import InvalidRequestError

BILABIALS: Final = frozenset({"P", "B", "M"})
_FRAME_S: Final = 0.01
_FRAME_CENTRE_S: Final = 0.0128
"""Centre of the first frame of pocketsphinx, seconds. Frame k is centred at 10 k + 12.8 ms (windows of 25.6 ms)."""
_SEARCH_LEVELS: Final = 4
_LARGEST_TRANSCRIPT: Final = 1 << 20
_LARGEST_CATALOGUE: Final = 64 << 20


def words_of(transcript: str) -> tuple[str, ...]:
    """Return the words of a transcript in lower case. Hyphens separate words, apostrophes stay, all other signs are removed."""
    text = transcript.lower().replace("’", "'").replace("-", " ")
    return tuple(re.findall(r"[a-z']*[a-z][a-z']*", text))


def bilabial_times(speech: Float32, transcript: str) -> Float64:
    """Return start and end of each p, b and m: float64 [E, 2], seconds from the first sample.

    Words that are not in the dictionary are left out of the search. E is 0 if the transcript has no bilabial.

    Args:
        speech: float32 [N], 16 kHz mono.
        transcript: words that are said.

    Raises:
        InvalidRequestError: pocketsphinx is not installed, no word is known, or the transcript does not fit the sound.
    """
    try:
        import pocketsphinx
    except ImportError:
        raise InvalidRequestError(
            "closure on p, b and m needs forced alignment: pip install pocketsphinx, or leave the transcript out",
            field="transcript",
        ) from None
    decoder = pocketsphinx.Decoder(lm=None, bestpath=False, loglevel="FATAL")
    words = [word for word in words_of(transcript) if decoder.lookup_word(word) is not None]
    if not words:
        raise InvalidRequestError("no word of the transcript is in the English dictionary", field="transcript")
    pcm = np.clip(np.round(speech * 32767.0), -32768, 32767).astype("<i2").tobytes()

    def decode() -> None:
        decoder.start_utt()
        decoder.process_raw(pcm, no_search=False, full_utt=True)
        decoder.end_utt()

    try:
        decoder.set_align_text(" ".join(words))
        decode()
        if decoder.hyp() is None:
            raise RuntimeError("no hypothesis")
        decoder.set_alignment()
        decode()
    # pocketsphinx raises RuntimeError if there is no path through the transcript.
    except RuntimeError:
        raise InvalidRequestError("the transcript does not fit the speech: no alignment exists", field="transcript") from None
    # The iterator owns its entries, so they are read while the iterator exists.
    spans = [
        (phone.start, phone.start + phone.duration)
        for word in decoder.get_alignment() or ()
        for phone in word
        if phone.name in BILABIALS
    ]
    edges = np.array(spans, np.float64).reshape(-1, 2)
    return edges * _FRAME_S + _FRAME_CENTRE_S - _FRAME_S / 2.0


def find_transcript(clip: Path) -> str:
    """Return the transcript of a clip, or "" if there is none.

    The transcript is read from CLIP.txt, from CLIP.align (GRID: start, end and word per line), or from the column `transcript` of a
    catalogue.csv in one of the folders above the clip.

    Raises:
        InvalidRequestError: the file cannot be read, or is not text.
    """
    plain, grid = clip.with_suffix(".txt"), clip.with_suffix(".align")
    if plain.is_file():
        return _text_of(plain).strip()
    if grid.is_file():
        rows = [line.split() for line in _text_of(grid).splitlines()]
        return " ".join(row[2] for row in rows if len(row) == 3 and row[2] not in {"sil", "sp"})
    for folder in list(clip.resolve().parents)[:_SEARCH_LEVELS]:
        catalogue = folder / "catalogue.csv"
        if catalogue.is_file():
            name = clip.resolve().relative_to(folder).as_posix()
            try:
                for row in csv.DictReader(io.StringIO(_text_of(catalogue, _LARGEST_CATALOGUE), newline="")):
                    if row.get("file") == name:
                        return (row.get("transcript") or "").strip()
            except csv.Error as problem:
                raise InvalidRequestError(
                    f"{catalogue}: not a table of comma-separated values: {problem}", field="transcript"
                ) from problem
            return ""
    return ""


def _text_of(path: Path, largest: int = _LARGEST_TRANSCRIPT) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
        if len(content) > largest:
            raise InvalidRequestError(f"{path}: larger than {largest >> 10} KiB; a transcript is short", field="transcript")
        return content.decode("utf-8-sig")
    except OSError as problem:
        raise InvalidRequestError(f"{path}: the transcript cannot be read: {problem.strerror}", field="transcript") from problem
    except UnicodeDecodeError as problem:
        raise InvalidRequestError(f"{path}: the transcript is not a text file in UTF-8", field="transcript") from problem
