"""pocketsphinx as a labelling tool: forced alignment, free phone recognition and word recognition, in rows of 10 ms.

Row i of this module is the product's acoustic row i (centred at (i + 0.5) * 10 ms). pocketsphinx's frame k is centred at
10 k + 12.8 ms, so pocketsphinx's frame k is row k + 1 to within 2.2 ms (`FRAME_SHIFT_ROWS`).
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pocketsphinx

from services.audio.types import HOP_SAMPLES
from services.common.wire.phones import PHONE_INDEX, SILENCE

FRAME_SHIFT_ROWS: Final = 1
_FLITE_TO_ARPABET: Final = {"ax": "AH", "axr": "ER", "hv": "HH", "pau": "SIL"}
_FILLERS: Final = {"<sil>", "<s>", "</s>", "[NOISE]", "[SPEECH]", "(NULL)"}


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
    known = [phone for phone in phones if phone != "SIL"]
    return " ".join(known) if all(phone in PHONE_INDEX for phone in known) else ""


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
        found: list[WordRows] = []
        # The iterator owns its entries: read them while the iterator is alive.
        for entry in self._aligner.get_alignment() or ():
            labels = np.concatenate([np.full(phone.duration, _class_of(phone.name), np.uint8) for phone in entry])
            start = entry.start + FRAME_SHIFT_ROWS
            word = "sil" if entry.name in _FILLERS else _base_word(entry.name)
            found.append(WordRows(word, start, start + len(labels), labels))
        return tuple(found) or None

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
