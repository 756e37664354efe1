"""Receipts of erasures, signed with the installation's key."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from gateway.actors.private_files import secret_of


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """What was erased, signed (HMAC-SHA256 over the other fields' JSON) with a key that never leaves the installation."""

    actor_id: str
    erased_sha256: tuple[str, ...]
    kept_sha256: tuple[str, ...]
    erased_at: str
    signature: str

    def to_json(self) -> str:
        """Return the receipt as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the receipt that `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "erased_sha256": tuple(fields["erased_sha256"]), "kept_sha256": tuple(fields["kept_sha256"])})


def signed(key_file: Path, actor_id: str, erased: Iterable[str], kept: Iterable[str]) -> ErasureReceipt:
    """Return the signed receipt of an erasure that ends now.

    Args:
        key_file: of the installation; made where it is missing.
        actor_id: who was erased.
        erased: SHA-256 of the blobs that were deleted, hexadecimal.
        kept: SHA-256 of the blobs that somebody else counts.

    Raises:
        StorageRefused: the key cannot be used.
    """
    body = {"actor_id": actor_id, "erased_sha256": sorted(erased), "kept_sha256": sorted(kept), "erased_at": now()}
    text = json.dumps(body, sort_keys=True).encode()
    signature = hmac.new(secret_of(key_file, 32), text, hashlib.sha256).hexdigest()
    return ErasureReceipt(actor_id, tuple(body["erased_sha256"]), tuple(body["kept_sha256"]), str(body["erased_at"]), signature)


def now() -> str:
    """Return the time, RFC 3339 in UTC, whole seconds."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat()
