"""Search for the watermark of a key in the responses of a face: the time of the film, the bits, how sure they are, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gateway.provenance.watermark.chance import log10_tail
from gateway.provenance.watermark.code import WORD_BITS, decoded
from gateway.provenance.watermark.content import ContentSigns
from gateway.provenance.watermark.payload import Payload
from gateway.provenance.watermark.search import SHIFTS, ContentSearch, Part, Search, chip_steps
from gateway.provenance.watermark.signal import STEP_S, STEPS_PER_CHIP
from gateway.provenance.watermark.spreading import Spreading
from services.common.array_types import Float64

FALSE_ALARM_LOG10: Final = -6.0
"""A mark is found if a film without the mark shows as much with a probability below 10^-6."""
_SPAN_STEPS: Final = 50
"""Steps of the window in which spans are looked for: 2 s."""
_SPAN_SIGMA: Final = 4.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The watermark of a face, or the best that looks like one.

    Attributes:
        log10_chance: decimal logarithm of the probability that a face without the mark shows as much.
        soft: float64 [64], the bits of the word in standard deviations; above 0: 1.
        payload: what the mark says after error correction.
        version: version of the watermark, 1 or 2; 0: the payload does not name the installation's key, so it was not read right.
        agreeing: how many of the 64 bits were read right before error correction, if the payload is right.
        spans: [begin, end) in seconds of the film, where the mark is.
    """

    log10_chance: float
    soft: Float64 = field(repr=False)
    payload: Payload
    version: int
    agreeing: int
    spans: tuple[tuple[float, float], ...]

    @property
    def found(self) -> bool:
        """Whether the face has the mark."""
        return self.log10_chance < FALSE_ALARM_LOG10

    @property
    def right(self) -> bool:
        """Whether the payload names the installation's key."""
        return self.version > 0


class Detector:
    """Looks for the mark of one key in faces.

    Args:
        key: secret of the installation, 32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._spreading = Spreading.of_key(key)
        self._searches = (Search(self._spreading), ContentSearch(self._spreading, ContentSigns.of_key(key)))

    def find(self, parts: Sequence[Part], *, trials: int = 1) -> Finding | None:
        """Return the likeliest mark in one face; None: there are no parts.

        The time at which the film was cut is unknown, so every shift of the time grid is tried, in all parts together and, because
        somebody may have cut parts out, in each part alone.

        Args:
            parts: responses of the face.
            trials: number of faces that are looked at.
        """
        if not parts:
            return None
        choices = [list(parts), *([part] for part in parts if len(parts) > 1)]
        found = [(search.best_shift(choice), search) for search in self._searches for choice in choices]
        best, search = max(found, key=lambda each: each[0].total)
        chance = log10_tail(best.total, WORD_BITS) + np.log10(SHIFTS * len(found) * trials)
        message, word = decoded(best.bits)
        payload = Payload.of_message(message)
        version = payload.version(self._key)
        return Finding(
            log10_chance=min(0.0, float(chance)),
            soft=best.bits,
            payload=payload,
            version=version if self._searches[version - 1] is search else 0,
            agreeing=int(((best.bits > 0) == (word > 0)).sum()),
            spans=_spans(parts, search, best.shift, self._spreading.chips(word)),
        )


def _spans(parts: Sequence[Part], search: Search | ContentSearch, shift: int, chips: Float64) -> tuple[tuple[float, float], ...]:
    """Return where the responses follow chips, float64 [PERIOD, CELLS]; seconds [begin, end) in order."""
    spans: list[tuple[float, float]] = []
    for part in parts:
        steps = part.first + np.arange(len(part.responses))
        at_chip = (steps - shift) % STEPS_PER_CHIP == 0
        compared = search.compared(part, shift)
        agreed = np.where(at_chip, (compared * chips[chip_steps(part, shift)]).sum(1), 0.0)
        energy = np.where(at_chip, (compared**2).sum(1), 0.0)
        window = np.ones(min(_SPAN_STEPS, len(steps)))
        sigma = np.convolve(agreed, window, "same") / np.sqrt(np.maximum(np.convolve(energy, window, "same"), 1e-30))
        inside = np.concatenate([[False], sigma > _SPAN_SIGMA, [False]])
        edges = np.flatnonzero(np.diff(inside.astype(np.int8)))
        begins, ends = edges[::2], edges[1::2]
        spans += [
            (float((part.first + begin) * STEP_S), float((part.first + end) * STEP_S))
            for begin, end in zip(begins, ends, strict=True)
        ]
    return tuple(sorted(spans))
