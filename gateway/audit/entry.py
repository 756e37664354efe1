"""Entries of the audit log, and their canonical form."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from gateway.signatures.canonical import canonical, plain_json

START: Final = "0" * 64
"""Digest that the first entry of a chain holds."""
FIELDS: Final = frozenset({"sequence", "previous", "time", "event", "by", "work", "face", "consents", "outputs", "details"})
"""Keys of every entry."""
MOST_CHARACTERS: Final = 200
"""Most characters of a detail. Longer texts are cut."""


class Event(StrEnum):
    """What an entry records."""

    ENROLMENT_BEGUN = "enrolment.begun"
    ENROLMENT_FAILED = "enrolment.failed"
    ENROLMENT_CANCELLED = "enrolment.cancelled"
    ACTOR_CREATED = "actor.created"
    ACTOR_ERASED = "actor.erased"
    CONSENT_WITHDRAWN = "consent.withdrawn"
    DUB_BEGUN = "dub.begun"
    DUB_ENDED = "dub.ended"
    DUB_FAILED = "dub.failed"
    DUB_CANCELLED = "dub.cancelled"
    LIVE_BEGUN = "live.begun"
    LIVE_ENDED = "live.ended"
    LIVE_FAILED = "live.failed"
    LIVE_CANCELLED = "live.cancelled"
    OPERATION_CANCELLED = "operation.cancelled"
    OPERATION_REMOVED = "operation.removed"
    BATCH_SUBMITTED = "batch.submitted"
    BATCH_CANCELLED = "batch.cancelled"
    BATCH_RETRIED = "batch.retried"
    BATCH_REMOVED = "batch.removed"
    BACKUP_WRITTEN = "backup.written"
    BACKUP_RESTORED = "backup.restored"
    SETTINGS = "settings.changed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Happening:
    """What is recorded, without its place in the chain.

    Attributes:
        event: what happened.
        work: name of the work, such as `operations/…`; empty: none.
        actor_id: whose face; empty: nobody's, or a person who is not enrolled. The log holds a random name in place of the id.
        consents: digests of the consent records that allowed the work, hexadecimal.
        own_record: whether the actor's own record allowed the work too.
        outputs: digests of what was made, hexadecimal.
        details: further facts: names of settings, methods, reasons, numbers. No names of people or files.
    """

    event: Event
    work: str = ""
    actor_id: str = ""
    consents: tuple[str, ...] = ()
    own_record: bool = False
    outputs: tuple[str, ...] = ()
    details: Mapping[str, str | int | bool] = field(default_factory=dict)


def line_of(happening: Happening, *, sequence: int, previous: str, time: str, by: Mapping[str, str], face: str) -> str:
    """Return an entry in canonical JSON.

    Args:
        happening: what is recorded.
        sequence: number of the entry.
        previous: SHA-256 of the line of the former entry; START: there is none.
        time: time of the entry, RFC 3339, UTC.
        by: tenant and fingerprint of the token of who asked for it.
        face: random name of the actor; empty: none.
    """
    entry: dict[str, Any] = {
        "sequence": sequence,
        "previous": previous,
        "time": time,
        "event": str(happening.event),
        "by": dict(by),
        "work": happening.work[:MOST_CHARACTERS],
        "face": face,
        "consents": sorted(set(happening.consents)),
        "outputs": sorted(set(happening.outputs)),
        "details": {
            name: value[:MOST_CHARACTERS] if isinstance(value, str) else value for name, value in happening.details.items()
        },
    }
    return canonical(entry).decode("ascii")


def entry_from(line: str) -> dict[str, Any] | None:
    """Return the entry of a line; None: the line is no entry, because the database was changed."""
    try:
        found = plain_json(line.encode())
    except ValueError:
        return None
    if not isinstance(found, dict) or found.keys() != FIELDS:
        return None
    by, texts = found["by"], [found[name] for name in ("previous", "time", "event", "work", "face")]
    if not isinstance(by, dict) or by.keys() != {"tenant", "token"} or not isinstance(found["details"], dict):
        return None
    if not isinstance(found["consents"], list) or not isinstance(found["outputs"], list):
        return None
    texts += [*by.values(), *found["consents"], *found["outputs"]]
    return found if all(isinstance(text, str) for text in texts) else None


def digest_of_line(line: bytes) -> str:
    """Return the SHA-256 of a line without its line break, hexadecimal."""
    return hashlib.sha256(line).hexdigest()
