"""Payload of a watermark: 12 bits name the installation's key, 24 bits name the film; a word of 64 bits carries them.

The 24 bits are a keyed digest of what the film's manifest says of the dub. So a mark belongs to one manifest, and only the
installation can tell which marks belong to which manifests.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from gateway.provenance.watermark.code import MESSAGE_BITS, encoded
from services.common.array_types import UInt8

_FILM_BITS: Final = 24
_INSTALLATION_BITS: Final = MESSAGE_BITS - _FILM_BITS
_KEY_PURPOSE: Final = b"dubstage watermark key 1"
_NAME_PURPOSE: Final = b"dubstage watermark installation 1"
_FILM_PURPOSE: Final = b"dubstage watermark film 2"


@dataclass(frozen=True, slots=True)
class Payload:
    """What a watermark says.

    Attributes:
        installation: 12 bits that follow from the key and from the version of the watermark: a check that the mark was read right.
        film: 24 bits. In version 2, of the keyed digest of what the manifest says of the dub; in version 1, of the job's digest.
    """

    installation: int
    film: int

    @classmethod
    def of_film(cls, key: bytes, statement: bytes) -> Payload:
        """Return the payload of a film.

        Args:
            key: secret of the installation, 32 bytes.
            statement: what the manifest says of the dub (`DubFacts.statement`).
        """
        digest = hmac.new(key, _FILM_PURPOSE + statement, hashlib.sha256).digest()
        return cls(installation_of(key), int.from_bytes(digest[: _FILM_BITS // 8], "big"))

    @classmethod
    def of_message(cls, message: int) -> Payload:
        """Return the payload of a decoded message, 0 to 2^36 - 1."""
        return cls(message >> _FILM_BITS, message & ((1 << _FILM_BITS) - 1))

    @property
    def word(self) -> UInt8:
        """The 64 bits of the mark, uint8 [64] of 0 and 1."""
        return encoded(self.installation << _FILM_BITS | self.film)

    def version(self, key: bytes) -> int:
        """Return the version of the watermark, 1 or 2; 0: the payload does not name this key, so the mark was not read right."""
        return next((version for version in (2, 1) if self.installation == installation_of(key, version)), 0)

    def __str__(self) -> str:
        """Return the payload as 9 hexadecimal digits: 3 of the installation, 6 of the film."""
        return f"{self.installation << _FILM_BITS | self.film:0{MESSAGE_BITS // 4}x}"


def watermark_key(secret: bytes) -> bytes:
    """Return the key of an installation's watermarks, 32 bytes.

    Args:
        secret: the private key that the installation signs with. The watermark's key does not tell the secret.
    """
    return hmac.new(secret, _KEY_PURPOSE, hashlib.sha256).digest()


def installation_of(key: bytes, version: int = 2) -> int:
    """Return the 12 bits that name a key of watermarks. Those of version 2 are those of version 1, each bit inverted."""
    first = int.from_bytes(hmac.new(key, _NAME_PURPOSE, hashlib.sha256).digest()[:2], "big") >> 4
    return first if version == 1 else first ^ ((1 << _INSTALLATION_BITS) - 1)
