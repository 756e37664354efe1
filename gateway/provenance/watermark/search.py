"""Search for the time of the film: all shifts between the chips of a key and the responses of a face.

Version 1 of the watermark has the same chips in every film of a word, so one Fourier transform compares all shifts. In version 2,
the picture decides about the signs too (content.py), and each step is compared with the chips of each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gateway.provenance.watermark.code import WORD_BITS
from gateway.provenance.watermark.content import ContentSigns
from gateway.provenance.watermark.layout import PERIOD
from gateway.provenance.watermark.signal import STEPS_PER_CHIP
from gateway.provenance.watermark.spreading import CELLS, Spreading
from services.common.array_types import Array, Float64, Int64, UInt8

SHIFTS: Final = PERIOD * STEPS_PER_CHIP
"""Number of shifts that are tried: the steps of one period of the signs."""
_BLOCK: Final = 4096
"""Steps that are compared together, so that long films take little memory."""


@dataclass(frozen=True, slots=True)
class Part:
    """Responses of a face that is seen without a gap.

    Attributes:
        first: step of the time grid of the first row.
        responses: float64 [steps, CELLS], from gateway.provenance.watermark.signal.responses.
        pictures: uint8 [steps, PIXELS], from gateway.provenance.watermark.content.at_first_frames.
    """

    first: int
    responses: Float64 = field(repr=False)
    pictures: UInt8 = field(repr=False)


@dataclass(frozen=True, slots=True)
class Shifted:
    """The bits at one shift of the time grid.

    Attributes:
        shift: step of the time grid at which the chips begin.
        bits: float64 [64], the bits of the word in standard deviations; above 0: 1.
        total: sum of the squares of the bits.
    """

    shift: int
    bits: Float64 = field(repr=False)
    total: float


class Search:
    """Search for the chips of one key in films of version 1."""

    def __init__(self, spreading: Spreading) -> None:
        carries = (spreading.bit == np.arange(WORD_BITS)[:, None, None]).astype(np.float64)
        self._signed = np.conj(np.fft.rfft(carries * spreading.sign, axis=1))
        self._carries = np.conj(np.fft.rfft(carries, axis=1))

    def best_shift(self, parts: Sequence[Part]) -> Shifted:
        """Return the shift with the largest sum of squared bits.

        Under a wrong key, the signs of all chips are random. Every bit is a sum of numbers with random signs, divided by the root
        of the sum of their squares, so the variance of the bit is 1, whatever the film shows.

        Args:
            parts: responses of a face, one part or more.
        """
        folded = np.zeros((SHIFTS, CELLS))
        for part in parts:
            np.add.at(folded, (part.first + np.arange(len(part.responses))) % SHIFTS, part.responses)
        return max((self._best_turn(folded, phase) for phase in range(STEPS_PER_CHIP)), key=lambda found: found.total)

    def compared(self, part: Part, shift: int) -> Float64:
        """Return what is compared with the chips of a word at a shift, float64 [steps, CELLS]."""
        del shift
        return part.responses

    def _best_turn(self, folded: Float64, phase: int) -> Shifted:
        chips = folded[phase::STEPS_PER_CHIP]
        energy = _over_turns(self._carries, chips**2)
        bits = _over_turns(self._signed, chips) / np.sqrt(np.maximum(energy, 1e-30))
        totals = (bits**2).sum(0)
        turn = int(np.argmax(totals))
        return Shifted(phase + STEPS_PER_CHIP * turn, bits[:, turn], float(totals[turn]))


class ContentSearch:
    """Search for the chips of one key in films of version 2."""

    def __init__(self, spreading: Spreading, content: ContentSigns) -> None:
        self._content = content
        self._carries = (spreading.bit[:, :, None] == np.arange(WORD_BITS)).astype(np.float64)
        self._signed = self._carries * spreading.sign[:, :, None]

    def best_shift(self, parts: Sequence[Part]) -> Shifted:
        """Return the shift with the largest sum of squared bits, as `Search.best_shift`.

        A response counts as much as the signs of the picture are sure. These do not depend on the signs of the chips, so the
        variance of a bit under a wrong key is 1 here too.

        Args:
            parts: responses of a face, one part or more.
        """
        sums, energy = np.zeros((SHIFTS, WORD_BITS)), np.zeros((SHIFTS, WORD_BITS))
        for part in parts:
            soft = self._content.soft(part.pictures)
            for begin in range(0, len(soft), _BLOCK):
                block = slice(begin, begin + _BLOCK)
                steps = part.first + begin + np.arange(len(soft[block]))
                for turn in range(PERIOD):
                    weights = self._content.weights(soft[block], np.full(len(steps), turn))
                    weighted = part.responses[block] * weights
                    shifts = (steps - turn * STEPS_PER_CHIP) % SHIFTS
                    np.add.at(sums, shifts, weighted @ self._signed[turn])
                    np.add.at(energy, shifts, weighted**2 @ self._carries[turn])
        bits = sums / np.sqrt(np.maximum(energy, 1e-30))
        totals = (bits**2).sum(1)
        shift = int(np.argmax(totals))
        return Shifted(shift, bits[shift], float(totals[shift]))

    def compared(self, part: Part, shift: int) -> Float64:
        """Return what is compared with the chips of a word at a shift, float64 [steps, CELLS]."""
        soft = self._content.soft(part.pictures)
        return part.responses * self._content.weights(soft, chip_steps(part, shift))


def chip_steps(part: Part, shift: int) -> Int64:
    """Return the number of the step of chips that each row of a part is compared with, int64 [steps], 0 to PERIOD - 1."""
    steps = part.first + np.arange(len(part.responses))
    return np.asarray((steps - shift) // STEPS_PER_CHIP % PERIOD, np.int64)


def _over_turns(of_chip: Array, chips: Float64) -> Float64:
    """Return the sum over k and c of of_chip[b, k, c] * chips[(k + turn) % PERIOD, c], float64 [64, PERIOD] by bit and turn.

    Args:
        of_chip: complex128 [64, PERIOD / 2 + 1, CELLS], conjugate Fourier transform in k.
        chips: float64 [PERIOD, CELLS].
    """
    spectrum = np.einsum("bfc,fc->bf", of_chip, np.fft.rfft(chips, axis=0))
    return np.asarray(np.fft.irfft(spectrum, n=PERIOD, axis=1), np.float64)
