"""Payload of a watermark: 12 bits name the installation's key, 24 bits name the video; a code word of 64 bits carries them.

The 24 bits are a keyed digest of what the video's manifest says of the dub. So a mark belongs to one manifest, and only the
installation can tell which marks belong to which manifests. Anybody can read the payload of version 3, and only the installation
that of versions 1 and 2.

The code is the extended BCH code [64, 36], whose words differ in 12 bits or more, with a soft-decision decoder. Sources: Lin and
Costello, "Error Control Coding" (2004), for the generator polynomial; Fossorier and Lin 1995, "Soft-decision decoding of linear
block codes based on ordered statistics", for the decoder.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float64, UInt8

WORD_BITS: Final = 64
MESSAGE_BITS: Final = 36
_GENERATOR: Final = 0o1033500423
"""Generator polynomial of the BCH code [63, 36], which corrects 5 errors; the highest bit is the coefficient of x^27."""
_VIDEO_BITS: Final = 24
_INSTALLATION_BITS: Final = MESSAGE_BITS - _VIDEO_BITS
PUBLIC: Final = 3
"""Version of the watermarks that anybody can read."""
SECRET: Final = 2
"""Version of the watermarks that only the installation can read."""
_INVERTED: Final = {PUBLIC: 0x555, SECRET: 0xFFF}
"""Bits of the name of an installation that each version of the watermark inverts."""
_KEY_PURPOSE: Final = b"dubstage watermark key 1"
_NAME_PURPOSE: Final = b"dubstage watermark installation 1"
_VIDEO_PURPOSE: Final = b"dubstage watermark film 2"


def _generator_matrix() -> UInt8:
    """Return uint8 [36, 64]: the shifts of the generator polynomial, each with its parity bit."""
    taps = np.array([int(digit) for digit in f"{_GENERATOR:b}"], np.uint8)
    rows = np.zeros((MESSAGE_BITS, WORD_BITS), np.uint8)
    for number, row in enumerate(rows):
        row[number : number + len(taps)] = taps
    rows[:, -1] = rows.sum(1) % 2
    return rows


def _reduced(rows: UInt8, order: npt.NDArray[np.intp]) -> tuple[UInt8, npt.NDArray[np.intp]]:
    """Return a generator matrix of the same code that is a unit matrix in the first independent columns of `order`, and these
    columns.
    """
    left = rows.copy()
    pivots: list[int] = []
    for column in order.tolist():
        done = len(pivots)
        if done == len(left):
            break
        ones = np.flatnonzero(left[done:, column])
        if len(ones) == 0:
            continue
        left[[done, done + ones[0]]] = left[[done + ones[0], done]]
        others = np.flatnonzero(left[:, column])
        left[others[others != done]] ^= left[done]
        pivots.append(column)
    return left, np.array(pivots, np.intp)


_SYSTEMATIC: Final = _reduced(_generator_matrix(), np.arange(WORD_BITS))[0]
"""Generator matrix whose words begin with the message."""


def encoded(message: int) -> UInt8:
    """Return the word of a message, uint8 [64] of 0 and 1: the message, highest bit first, and then 28 check bits.

    Args:
        message: 0 to 2^36 - 1.
    """
    bits = np.array([message >> bit & 1 for bit in reversed(range(MESSAGE_BITS))], np.uint8)
    return np.asarray(bits @ _SYSTEMATIC % 2, np.uint8)


def decoded(soft: Float64) -> tuple[int, UInt8]:
    """Return the message that fits 64 soft bits best, of all that differ from the most reliable bits in two positions or less, and
    the word of the message, uint8 [64].

    Args:
        soft: float64 [64]: above 0: the bit is 1; below 0: the bit is 0; the further from 0, the surer.
    """
    rows, pivots = _reduced(_SYSTEMATIC, np.argsort(-np.abs(soft), kind="stable"))
    first = (soft[pivots] > 0).astype(np.uint8)
    flips = [(), *combinations(range(MESSAGE_BITS), 1), *combinations(range(MESSAGE_BITS), 2)]
    tried = np.repeat(first[None], len(flips), axis=0)
    for row, flip in zip(tried, flips, strict=True):
        row[list(flip)] ^= 1
    words = np.asarray(tried.astype(np.int64) @ rows % 2, np.uint8)
    best = words[int(np.argmax((2.0 * words - 1.0) @ soft))]
    return int("".join(map(str, best[:MESSAGE_BITS].tolist())), 2), best


@dataclass(frozen=True, slots=True)
class Payload:
    """Content of a watermark.

    Attributes:
        installation: 12 bits that follow from the key and from the version of the watermark: a check that the mark was read right.
        video: 24 bits of the keyed digest of what the manifest says of the dub.
    """

    installation: int
    video: int

    @classmethod
    def of_video(cls, key: bytes, statement: bytes, *, public: bool = True) -> Payload:
        """Return the payload of a video.

        Args:
            key: secret of the installation, 32 bytes.
            statement: what the manifest says of the dub (`DubFacts.statement`).
            public: whether anybody can read the mark (version 3), or only the installation (version 2).
        """
        digest = hmac.new(key, _VIDEO_PURPOSE + statement, hashlib.sha256).digest()
        return cls(installation_of(key, PUBLIC if public else SECRET), int.from_bytes(digest[: _VIDEO_BITS // 8], "big"))

    @classmethod
    def of_message(cls, message: int) -> Payload:
        """Return the payload of a decoded message, 0 to 2^36 - 1."""
        return cls(message >> _VIDEO_BITS, message & ((1 << _VIDEO_BITS) - 1))

    @property
    def word(self) -> UInt8:
        """The 64 bits of the mark, uint8 [64] of 0 and 1."""
        return encoded(self.installation << _VIDEO_BITS | self.video)

    def version(self, key: bytes) -> int:
        """Return the version of the watermark, PUBLIC or SECRET; 0: the payload does not name this key."""
        return next((version for version in _INVERTED if self.installation == installation_of(key, version)), 0)

    @property
    def name(self) -> str:
        """Name of the installation, 3 hexadecimal digits."""
        return f"{self.installation:03x}"

    def __str__(self) -> str:
        """Return the payload as 9 hexadecimal digits: 3 of the installation, 6 of the video."""
        return f"{self.installation << _VIDEO_BITS | self.video:0{MESSAGE_BITS // 4}x}"


def watermark_key(secret: bytes) -> bytes:
    """Return the key of an installation's watermarks, 32 bytes.

    Args:
        secret: the private key that the installation signs with. The watermark's key does not tell the secret.
    """
    return hmac.new(secret, _KEY_PURPOSE, hashlib.sha256).digest()


def installation_of(key: bytes, version: int = PUBLIC) -> int:
    """Return the 12 bits that name a key of watermarks, 0 to 4095. Each version of the watermark inverts other bits."""
    digest = hmac.new(key, _NAME_PURPOSE, hashlib.sha256).digest()
    return int.from_bytes(digest[:2], "big") >> (16 - _INSTALLATION_BITS) ^ _INVERTED[version]
