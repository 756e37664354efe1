"""The chips of a key: which bit of the word each chip carries, and with which sign."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gateway.provenance.watermark.code import WORD_BITS
from gateway.provenance.watermark.layout import COLUMNS, PERIOD, ROWS
from services.common.array_types import Float64, Int64, UInt8

CELLS: Final = ROWS * COLUMNS
_CHIPS: Final = PERIOD * CELLS
KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class Spreading:
    """Chips of a key. Somebody without the key sees no difference from noise.

    Attributes:
        bit: int64 [PERIOD, CELLS], bit of the word that a chip carries. Every bit has three chips in two chips of time.
        sign: float64 [PERIOD, CELLS], 1 or -1: the chip's sign where the bit is 1.
    """

    bit: Int64 = field(repr=False)
    sign: Float64 = field(repr=False)

    @classmethod
    def of_key(cls, key: bytes) -> Spreading:
        """Return the chips of a secret key of 32 bytes."""
        signs = np.unpackbits(noise(key, b"signs", _CHIPS // 8)).astype(np.float64)
        order = noise(key, b"bits", 8 * _CHIPS).view("<u8").reshape(-1, 3 * WORD_BITS)
        # Three chips of every bit, in the order of random numbers.
        bits = np.argsort(order, axis=1, kind="stable") % WORD_BITS
        return cls(bits.reshape(PERIOD, CELLS).astype(np.int64), 2.0 * signs.reshape(PERIOD, CELLS) - 1.0)

    def chips(self, word: UInt8) -> Float64:
        """Return the chips of a word, float64 [PERIOD, CELLS], 1 or -1.

        Args:
            word: uint8 [64] of 0 and 1.
        """
        return np.asarray(self.sign * (2.0 * word - 1.0)[self.bit], np.float64)


def noise(key: bytes, purpose: bytes, count: int) -> UInt8:
    """Return random numbers that follow from a key, uint8 [count]."""
    return np.frombuffer(hashlib.shake_256(key + purpose).digest(count), np.uint8)
