"""Entries of the audit log in their canonical form, and the check of their chain.

The check tells entries that were changed, removed, swapped, inserted, or cut off at the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from typing import Any, Final

from gateway.signatures import canonical, plain_json

START: Final = "0" * 64
"""Digest that the first entry of a chain holds."""
FIELDS: Final = frozenset({"sequence", "previous", "time", "event", "by", "work", "faces", "consents", "outputs", "details"})
"""Keys of every entry."""
MOST_CHARACTERS: Final = 200
"""Most characters of a detail. Longer texts are cut."""
MOST_BYTES: Final = 64 << 10
"""Longest line that is read, bytes."""


class EventKind(StrEnum):
    """Kind of event that an entry records."""

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
    BATCH_DELIVERED = "batch.delivered"
    BATCH_POSTED = "batch.posted"
    SHOT_REVIEWED = "shot.reviewed"
    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_REMOVED = "webhook.removed"
    WEBHOOK_REPLAYED = "webhook.replayed"
    BACKUP_WRITTEN = "backup.written"
    BACKUP_RESTORED = "backup.restored"
    SETTINGS = "settings.changed"


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditEvent:
    """A recorded event, without its position in the chain.

    Attributes:
        event: what happened.
        work: name of the work, such as `operations/…`; empty: none.
        actor_ids: enrolled people whose faces are shown or learned. The log holds a random name in place of each id.
        consents: digests of the consent records that allowed the work, hexadecimal. The log adds the actors' own records.
        outputs: digests of what was made, hexadecimal.
        details: further facts: names of settings, methods, reasons, numbers. No names of people or files.
    """

    event: EventKind
    work: str = ""
    actor_ids: tuple[str, ...] = ()
    consents: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    details: Mapping[str, str | int | bool] = field(default_factory=dict)


def line_of(event: AuditEvent, *, sequence: int, previous: str, time: str, by: Mapping[str, str], faces: Collection[str]) -> str:
    """Return an entry in canonical JSON.

    Args:
        event: what is recorded.
        sequence: number of the entry.
        previous: SHA-256 of the line of the previous entry; START: there is none.
        time: time of the entry, RFC 3339, UTC.
        by: tenant and fingerprint of the token of who asked for it.
        faces: random names of the actors.
    """
    entry: dict[str, Any] = {
        "sequence": sequence,
        "previous": previous,
        "time": time,
        "event": str(event.event),
        "by": dict(by),
        "work": event.work[:MOST_CHARACTERS],
        "faces": sorted(set(faces)),
        "consents": sorted(set(event.consents)),
        "outputs": sorted(set(event.outputs)),
        "details": {name: value[:MOST_CHARACTERS] if isinstance(value, str) else value for name, value in event.details.items()},
    }
    return canonical(entry).decode("ascii")


def entry_from(line: str) -> dict[str, Any] | None:
    """Return the entry of a line; None: the line is no entry, because the database was changed."""
    try:
        entry = plain_json(line.encode())
    except ValueError:
        return None
    if not isinstance(entry, dict) or entry.keys() != FIELDS:
        return None
    by, texts = entry["by"], [entry[name] for name in ("previous", "time", "event", "work")]
    if not isinstance(by, dict) or by.keys() != {"tenant", "token"} or not isinstance(entry["details"], dict):
        return None
    lists = [entry[name] for name in ("faces", "consents", "outputs")]
    if not all(isinstance(listed, list) for listed in lists):
        return None
    texts += [*by.values(), *chain.from_iterable(lists)]
    return entry if all(isinstance(text, str) for text in texts) else None


def digest_of_line(line: bytes) -> str:
    """Return the SHA-256 of a line without its line break, hexadecimal."""
    return hashlib.sha256(line).hexdigest()


class ChainBrokenError(Exception):
    """The log is not as it was written.

    Attributes:
        line: number of the first wrong line, from 1.
        reason: what is wrong.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ChainHead:
    """Last entry of a chain.

    Attributes:
        sequence: number of the entry; 0: the chain has no entry.
        digest: SHA-256 of the entry's line; START: the chain has no entry.
    """

    sequence: int = 0
    digest: str = START


def document_of(line: bytes, number: int) -> dict[str, Any]:
    """Return the JSON object of a line.

    Raises:
        ChainBrokenError: the line is no object in canonical JSON, or is too long.
    """
    if len(line) > MOST_BYTES:
        raise ChainBrokenError(number, f"the line has more than {MOST_BYTES} bytes")
    try:
        document = plain_json(line)
        same = canonical(document) == line
    except (ValueError, RecursionError):
        raise ChainBrokenError(number, "the line is no JSON: it was changed or cut") from None
    if not isinstance(document, dict):
        raise ChainBrokenError(number, "the line is no JSON object: it was changed")
    if not same:
        raise ChainBrokenError(number, "the line is not in the canonical form that the log is written in: it was changed")
    return document


def follow(head: ChainHead, line: bytes, number: int) -> ChainHead:
    """Return the head of a chain with one more line.

    Args:
        head: head of the chain before the line.
        line: the line, without its line break.
        number: number of the line for errors.

    Raises:
        ChainBrokenError: the line is no entry, or not the next one.
    """
    entry = document_of(line, number)
    if entry.keys() != FIELDS:
        raise ChainBrokenError(number, "the line is no entry of an audit log")
    sequence, due = entry["sequence"], head.sequence + 1
    if type(sequence) is not int or sequence != due:
        shown = str(sequence)[:20]
        raise ChainBrokenError(
            number, f"entry {due} is due here, and this is entry {shown}: an entry was removed, inserted or moved"
        )
    if entry["previous"] != head.digest:
        before = f"entry {head.sequence}" if head.sequence else "the beginning of the log"
        raise ChainBrokenError(number, f"the entry does not hold the digest of {before}: one of the two was changed")
    return ChainHead(sequence, digest_of_line(line))


def batch_work(batch: str) -> str:
    """Return the name that a batch has in the audit log."""
    return f"batches/{batch}"
