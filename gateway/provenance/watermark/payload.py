"""What a watermark says: 12 bits name the installation's key, 24 bits name the job; a word of 64 bits carries them."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from gateway.provenance.watermark.code import MESSAGE_BITS, encoded
from services.common.array_types import UInt8

_JOB_BITS: Final = 24
_KEY_PURPOSE: Final = b"dubstage watermark key 1"
_NAME_PURPOSE: Final = b"dubstage watermark installation 1"


@dataclass(frozen=True, slots=True)
class Payload:
    """What a watermark says.

    Attributes:
        installation: 12 bits that follow from the key: a check that the mark was read right.
        job: 24 bits of the job's digest.
    """

    installation: int
    job: int

    @classmethod
    def of_job(cls, key: bytes, job_digest: str) -> Payload:
        """Return the payload of a job.

        Args:
            key: secret of the installation, 32 bytes.
            job_digest: digest of the job, hexadecimal, 6 digits or more.
        """
        return cls(installation_of(key), int(job_digest[: _JOB_BITS // 4], 16))

    @classmethod
    def of_message(cls, message: int) -> Payload:
        """Return the payload of a decoded message, 0 to 2^36 - 1."""
        return cls(message >> _JOB_BITS, message & ((1 << _JOB_BITS) - 1))

    @property
    def word(self) -> UInt8:
        """The 64 bits of the mark, uint8 [64] of 0 and 1."""
        return encoded(self.installation << _JOB_BITS | self.job)

    def __str__(self) -> str:
        """Return the payload as 9 hexadecimal digits: 3 of the installation, 6 of the job."""
        return f"{self.installation << _JOB_BITS | self.job:0{MESSAGE_BITS // 4}x}"


def watermark_key(secret: bytes) -> bytes:
    """Return the key of an installation's watermarks, 32 bytes.

    Args:
        secret: the private key that the installation signs with. The watermark's key does not tell the secret.
    """
    return hmac.new(secret, _KEY_PURPOSE, hashlib.sha256).digest()


def installation_of(key: bytes) -> int:
    """Return the 12 bits that name a key of watermarks."""
    return int.from_bytes(hmac.new(key, _NAME_PURPOSE, hashlib.sha256).digest()[:2], "big") >> 4
