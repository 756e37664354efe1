"""Receipts of erasures, signed with the installation's key pair, so that anybody who has the public key can check them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from gateway.consent.keys import key_id
from gateway.signatures import InstallationKey, canonical, is_signed, plain_json
from gateway.times import now

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT: Final = "dubstage erasure receipt 2"
_CONTEXT: Final = b"dubstage erasure receipt v2\n"
"""First bytes of what is signed, so that no signature of another kind of text is a signature of a receipt."""
_FIELDS: Final = frozenset({"format", "actor_id", "erased_at", "erased", "kept", "looked_at", "out_of_reach", "key", "signature"})
_MOST_PARTS: Final = 100_000
"""Most lists, objects and fields of a receipt, so that a file of empty lists does not fill the memory."""

Digests = Mapping[str, Collection[str]]
"""SHA-256, hexadecimal, by kind, such as `bank` or `job file`."""


class ReceiptRefusedError(Exception):
    """A receipt does not verify. The text says why."""


@dataclass(frozen=True, slots=True)
class SweptPlace:
    """One place that was looked through after an erasure.

    Attributes:
        place: the place, such as `artefact store`.
        looked_at: number of things that were looked at there.
    """

    place: str
    looked_at: int


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """Receipt of an erasure.

    Attributes:
        document: what the receipt says, JSON.
    """

    document: Mapping[str, Any]

    @property
    def actor_id(self) -> str:
        """Id of the erased person."""
        return str(self.document["actor_id"])

    @property
    def erased_sha256(self) -> tuple[str, ...]:
        """SHA-256 of everything that was deleted, hexadecimal, sorted."""
        return _flat(self.document, "erased")

    @property
    def kept_sha256(self) -> tuple[str, ...]:
        """SHA-256 of what other actors or jobs count, hexadecimal, sorted."""
        return _flat(self.document, "kept")

    @property
    def erased_at(self) -> str:
        """Time of the erasure, RFC 3339, UTC."""
        return str(self.document["erased_at"])

    @property
    def key(self) -> str:
        """Id of the key that signed the receipt."""
        return str(self.document["key"])

    @property
    def signature(self) -> str:
        """Ed25519 signature, Base64."""
        return str(self.document["signature"])

    def to_json(self) -> str:
        """Return the receipt as JSON in canonical form."""
        return canonical(self.document).decode("ascii")

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the receipt that `to_json` wrote."""
        return cls(plain_json(text.encode()))


def signed(
    key: InstallationKey,
    actor_id: str,
    *,
    erased: Digests,
    kept: Digests,
    looked_at: Sequence[SweptPlace],
    out_of_reach: Iterable[str],
) -> ErasureReceipt:
    """Return the signed receipt of an erasure that ends now.

    Args:
        key: the installation's key.
        actor_id: id of the erased person.
        erased: what was deleted.
        kept: what other actors or jobs count.
        looked_at: places that were looked through, in which nothing was left.
        out_of_reach: places that the installation cannot look through.
    """
    body = {
        "format": FORMAT,
        "actor_id": actor_id,
        "erased_at": now(),
        "erased": {kind: sorted(set(digests)) for kind, digests in erased.items() if digests},
        "kept": {kind: sorted(set(digests)) for kind, digests in kept.items() if digests},
        "looked_at": [{"place": one.place, "looked_at": one.looked_at, "left": 0} for one in looked_at],
        "out_of_reach": list(out_of_reach),
        "key": key.id,
    }
    return ErasureReceipt({**body, "signature": key.sign(_CONTEXT + canonical(body))})


def verified(content: bytes, key_of: Callable[[str], Ed25519PublicKey]) -> ErasureReceipt:
    """Return the receipt of a file, which is as the installation signed it.

    Args:
        content: bytes of the file. Spaces and line breaks between the words of the JSON do not count.
        key_of: returns the trusted public key for the id that the receipt names.

    Raises:
        ReceiptRefusedError: the receipt was changed, cut or forged, or another key signed it.
    """
    try:
        if sum(content.count(sign) for sign in (b"[", b"{", b":")) > _MOST_PARTS:
            raise ValueError("a receipt has fewer lists and fields")
        document = plain_json(content)
        canonical(document)
    except (ValueError, RecursionError):
        raise ReceiptRefusedError("the file is no JSON: the receipt was cut or changed") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.keys() != _FIELDS:
        raise ReceiptRefusedError("the file is no whole receipt of an erasure: fields are missing, or too many")
    asked = document["key"] if isinstance(document["key"], str) else ""
    key = key_of(asked)
    if asked != key_id(key):
        raise ReceiptRefusedError(f"the receipt names the key {asked[:64]}, and the given key is {key_id(key)}")
    body = {name: value for name, value in document.items() if name != "signature"}
    if not is_signed(_CONTEXT + canonical(body), document["signature"], key):
        raise ReceiptRefusedError("the signature does not fit the receipt: the receipt was changed or forged")
    return ErasureReceipt(document)


def _flat(document: Mapping[str, Any], field: str) -> tuple[str, ...]:
    return tuple(sorted({digest for digests in document[field].values() for digest in digests}))
