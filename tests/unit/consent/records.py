"""Consent records that doors must refuse, each with the reason of the refusal, and the keys that sign records."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway.consent.keys import signed
from gateway.consent.record import EMBEDDING_SIZE, Consent, embedding_text

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


ELSEWHERE = ["0" * 64]
"""Digests of footage that no test has."""


def face(seed: int = 0, **more: Any) -> dict[str, Any]:
    """The field with a made-up face, 1.3 long."""
    vector = np.random.default_rng(seed).normal(size=EMBEDDING_SIZE)
    text = embedding_text((1.3 * vector / np.linalg.norm(vector)).astype(np.float32))
    return {"network": "of-tests", "embedding": text, **more}


def record(**fields: Any) -> Consent:
    """The record of Ann with these fields. It does not say whose face it is about, unless the fields say so."""
    return Consent.model_validate({**RECORD, **fields})


def of_footage(*files: Path) -> dict[str, list[str]]:
    """The field that names the person of a record by files of footage."""
    return {"footage_sha256": [hashlib.sha256(file.read_bytes()).hexdigest() for file in files] or ELSEWHERE}


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
        of_requests: only a record that comes with a request is refused, and not the actor's own.
    """

    record: Consent | None
    reason: str
    says: str
    withdrawn: bool = False
    of_language: bool = False
    of_requests: bool = False


def allowed(*files: Path) -> Consent:
    """A record of the person in these files that covers the project `night` in German now."""
    fields = {"projects": ["day", "night"], "languages": ["de", "fr"], "valid_from": in_days(-9), "valid_until": in_days(9)}
    return signed(record(**fields, **of_footage(*files)), STUDIO)


def faults() -> dict[str, Fault]:
    """One record for each reason for which a door refuses, before the footage is looked at."""

    def named(**fields: Any) -> Consent:
        return record(**{**of_footage(), **fields})

    altered = signed(named(), STUDIO).model_copy(update={"scope": "two videos"})
    return {
        "missing": Fault(None, "CONSENT_MISSING", "requires a consent record"),
        "unsigned": Fault(named(), "CONSENT_UNSIGNED", "takes signed consent records only"),
        "stranger": Fault(signed(named(), STRANGER), "CONSENT_SIGNER_UNKNOWN", "DUBSTAGE_CONSENT_KEYS does not hold"),
        "altered": Fault(altered, "CONSENT_ALTERED", "does not fit the consent record"),
        "withdrawn": Fault(
            signed(named(reference="folder 4"), STUDIO), "CONSENT_WITHDRAWN", "the consent was withdrawn at", withdrawn=True
        ),
        "too early": Fault(signed(named(valid_from=in_days(2)), STUDIO), "CONSENT_NOT_YET_VALID", "the consent holds from"),
        "expired": Fault(signed(named(valid_until=in_days(-2)), STUDIO), "CONSENT_EXPIRED", "the consent ended at"),
        "other project": Fault(
            signed(named(projects=["day"]), STUDIO), "CONSENT_OUT_OF_SCOPE", "covers the projects day only, not 'night'"
        ),
        "other language": Fault(
            signed(named(languages=["fr", "den"]), STUDIO),
            "CONSENT_OUT_OF_SCOPE",
            "covers the languages fr, den only, not 'de'",
            of_language=True,
        ),
        "no subject": Fault(
            signed(record(), STUDIO), "CONSENT_WITHOUT_SUBJECT", "does not say whose face it is about", of_requests=True
        ),
        "other actor": Fault(signed(named(actor="eve"), STUDIO), "CONSENT_OTHER_SUBJECT", "covers the actor 'eve' alone"),
    }
