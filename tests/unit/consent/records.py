"""Consent records that doors must refuse, each with the reason of the refusal, and the keys that sign records."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway.consent.keys import signed
from gateway.consent.record import Consent

STUDIO = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
"""A key that installations of tests trust."""
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
RECORD: dict[str, Any] = {
    "subject": "Ann",
    "granted_by": "Ann",
    "scope": "one film",
    "date": "2026-02-01",
    "reference": "folder 3",
}


def record(**fields: Any) -> Consent:
    """The record of Ann with these fields."""
    return Consent.model_validate({**RECORD, **fields})


def in_days(days: int) -> str:
    """A time so many days from now, as records write times."""
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def public_pem(*keys: Ed25519PrivateKey) -> bytes:
    """The public keys of these keys, one PEM block after the other."""
    return b"".join(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in keys)


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """A private key in PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def trusted(folder: Path) -> Path:
    """A folder of trusted keys, with the studio's key in it."""
    folder.mkdir()
    (folder / "studio.pem").write_bytes(public_pem(STUDIO))
    return folder


@dataclass(frozen=True)
class Fault:
    """A record that no door of an installation that requires signed records accepts for the project `night` in German.

    Attributes:
        record: the record; None: there is none.
        reason: reason of the refusal.
        says: words of the refusal.
        withdrawn: the record is withdrawn first.
        of_language: only work with speech is refused.
    """

    record: Consent | None
    reason: str
    says: str
    withdrawn: bool = False
    of_language: bool = False


def allowed() -> Consent:
    """A record that covers the project `night` in German now."""
    fields = {"projects": ["day", "night"], "languages": ["de", "fr"], "valid_from": in_days(-9), "valid_until": in_days(9)}
    return signed(record(**fields), STUDIO)


def faults() -> dict[str, Fault]:
    """One record for each reason for which a door refuses."""
    altered = signed(record(), STUDIO).model_copy(update={"scope": "two films"})
    return {
        "missing": Fault(None, "CONSENT_MISSING", "requires a consent record"),
        "unsigned": Fault(record(), "CONSENT_UNSIGNED", "takes signed consent records only"),
        "stranger": Fault(signed(record(), STRANGER), "CONSENT_SIGNER_UNKNOWN", "DUBSTAGE_CONSENT_KEYS does not hold"),
        "altered": Fault(altered, "CONSENT_ALTERED", "does not fit the consent record"),
        "withdrawn": Fault(
            signed(record(reference="folder 4"), STUDIO), "CONSENT_WITHDRAWN", "the consent was withdrawn at", withdrawn=True
        ),
        "too early": Fault(signed(record(valid_from=in_days(2)), STUDIO), "CONSENT_NOT_YET_VALID", "the consent holds from"),
        "expired": Fault(signed(record(valid_until=in_days(-2)), STUDIO), "CONSENT_EXPIRED", "the consent ended at"),
        "other project": Fault(
            signed(record(projects=["day"]), STUDIO), "CONSENT_OUT_OF_SCOPE", "covers the projects day only, not 'night'"
        ),
        "other language": Fault(
            signed(record(languages=["fr", "den"]), STUDIO),
            "CONSENT_OUT_OF_SCOPE",
            "covers the languages fr, den only, not 'de'",
            of_language=True,
        ),
    }
