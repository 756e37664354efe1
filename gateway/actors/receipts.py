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

from gateway.private_files import secret_of


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """Receipt of an erasure.

    Attributes:
        actor_id: id of the erased person.
        erased_sha256: SHA-256 of the deleted blobs, hexadecimal.
        kept_sha256: SHA-256 of the blobs that another actor or job counts, hexadecimal.
        erased_at: time of the erasure, RFC 3339, UTC.
        signature: HMAC-SHA256 over the JSON of the other fields, hexadecimal. The key never leaves the installation.
    """

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
        key_file: file of the installation's key. The first receipt makes the file.
        actor_id: id of the erased person.
        erased: SHA-256 of the deleted blobs, hexadecimal.
        kept: SHA-256 of the blobs that another actor or job counts, hexadecimal.

    Raises:
        StorageRefused: the key file cannot be used.
    """
    body = {"actor_id": actor_id, "erased_sha256": sorted(erased), "kept_sha256": sorted(kept), "erased_at": now()}
    text = json.dumps(body, sort_keys=True).encode()
    signature = hmac.new(secret_of(key_file, 32), text, hashlib.sha256).hexdigest()
    return ErasureReceipt(actor_id, tuple(body["erased_sha256"]), tuple(body["kept_sha256"]), str(body["erased_at"]), signature)


def now() -> str:
    """Return the present time as RFC 3339 text, in UTC and whole seconds."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat()
