"""When p, b and m are spoken in transcribed speech (forced alignment by pocketsphinx), and where transcripts lie."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Final

import numpy as np

from gateway.evaluation.types import Float32, Float64
from services.common.errors import InvalidRequest

BILABIALS: Final = frozenset({"P", "B", "M"})
_FRAME_S: Final = 0.01
_FRAME_CENTRE_S: Final = 0.0128
"""pocketsphinx's frame k is centred at 10 k + 12.8 ms (25.6 ms windows)."""
_SEARCH_LEVELS: Final = 4


def words_of(transcript: str) -> tuple[str, ...]:
    """Lower-case words of a transcript; hyphens separate, apostrophes stay, everything else goes."""
    text = transcript.lower().replace("’", "'").replace("-", " ")
    return tuple(re.findall(r"[a-z']*[a-z][a-z']*", text))


def bilabial_times(speech: Float32, transcript: str) -> Float64:
    """Start and end of each p, b and m: float64 [E, 2], seconds from the first sample.

    Words that the dictionary lacks are left out of the search; E is 0 where the transcript has no bilabial.

    Args:
        speech: float32 [N], 16 kHz mono.
        transcript: what is said.

    Raises:
        InvalidRequest: pocketsphinx is not installed, no word is known, or the transcript does not fit the sound.
    """
    try:
        import pocketsphinx
    except ImportError:
        raise InvalidRequest(
            "closure on p, b and m needs forced alignment: pip install pocketsphinx, or leave the transcript out",
            field="transcript",
        ) from None
    decoder = pocketsphinx.Decoder(lm=None, bestpath=False, loglevel="FATAL")
    words = [word for word in words_of(transcript) if decoder.lookup_word(word) is not None]
    if not words:
        raise InvalidRequest("no word of the transcript is in the English dictionary", field="transcript")
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
    except RuntimeError:  # pocketsphinx's own error type for "no path through the transcript"
        raise InvalidRequest("the transcript does not fit the speech: no alignment exists", field="transcript") from None
    # The iterator owns its entries: they must be read while it is alive.
    spans = [
        (phone.start, phone.start + phone.duration)
        for word in decoder.get_alignment() or ()
        for phone in word
        if phone.name in BILABIALS
    ]
    edges = np.array(spans, np.float64).reshape(-1, 2)
    return edges * _FRAME_S + _FRAME_CENTRE_S - _FRAME_S / 2.0


def find_transcript(clip: Path) -> str:
    """What is said in a clip, or "" where nobody wrote it down.

    Looks for CLIP.txt, for CLIP.align (GRID: start, end, word a line), then for the column `transcript` of a
    catalogue.csv in one of the folders above.
    """
    plain, grid = clip.with_suffix(".txt"), clip.with_suffix(".align")
    if plain.is_file():
        return plain.read_text(encoding="utf-8").strip()
    if grid.is_file():
        rows = [line.split() for line in grid.read_text(encoding="utf-8").splitlines()]
        return " ".join(row[2] for row in rows if len(row) == 3 and row[2] not in {"sil", "sp"})
    for folder in list(clip.resolve().parents)[:_SEARCH_LEVELS]:
        catalogue = folder / "catalogue.csv"
        if catalogue.is_file():
            name = clip.resolve().relative_to(folder).as_posix()
            with catalogue.open(newline="", encoding="utf-8") as stream:
                for row in csv.DictReader(stream):
                    if row.get("file") == name:
                        return (row.get("transcript") or "").strip()
            return ""
    return ""
