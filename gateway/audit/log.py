"""The audit log in the database of the actors. Entries are written in the transactions of what they record.

The log follows the settings of protection too: watermark, required consent records, signing key.

Work that is recorded from its beginning to its end: dubs of commands and of batches, and live streams.
"""

from __future__ import annotations

import asyncio
import datetime
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import ValidationError
from sqlalchemy import BigInteger, Integer, String, Text, delete, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from gateway.async_utilities import in_thread
from gateway.audit.entries import (
    START,
    AuditEvent,
    ChainBrokenError,
    ChainHead,
    EventKind,
    digest_of_line,
    entry_from,
    follow,
    line_of,
)
from gateway.consent.record import Consent, digest_of
from gateway.database.session import Database
from gateway.database.tables import ActorRow, Base
from gateway.provenance.binding import media_sha256
from gateway.provenance.claim import VideoWatermark
from gateway.settings import GatewaySettings
from gateway.signatures import KEY_SETTING, plain_json, signing_key
from services.common.errors import DubstageError, WorkCancelledError
from services.common.server import error_status
from services.common.server.call_context import current_caller


class AuditRow(Base):
    """One entry. Rows are added and never changed."""

    __tablename__ = "audit_log"

    sequence: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False)
    """Number of the entry, from 1, without gaps."""
    line: Mapped[str] = mapped_column(Text)
    """The entry in canonical JSON, ASCII."""
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the line, which the next entry holds."""
    work: Mapped[str] = mapped_column(String(160), index=True)
    """Name of the work that the entry is about, so that the end of the work finds its beginning; empty: none."""


class AuditPersonRow(Base):
    """The random name that a person has in the audit log. An erasure deletes the row: nothing else ties the name to the person."""

    __tablename__ = "audit_people"

    actor_id: Mapped[str] = mapped_column(String(63), primary_key=True)
    alias: Mapped[str] = mapped_column(String(32), index=True)


_AT_ONCE: Final = 1000
_MOST_WORK: Final = 160
"""Characters of the column with the name of the work."""
_DAMAGE: Final = "the entry was changed: `dubstage audit verify` checks the log"
BEGINNINGS: Final = (EventKind.DUB_BEGUN, EventKind.ENROLMENT_BEGUN, EventKind.LIVE_BEGUN, EventKind.BATCH_SUBMITTED)
"""Entries that tell who asked for a piece of work."""


class AuditLog:
    """Audit log of one database. All methods block.

    Args:
        database: database of the actors.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, event: AuditEvent, *, continues: str = "") -> None:
        """Write an entry in a transaction of its own. The arguments are those of `append`."""
        with self._database.writing() as session:
            self.append(session, event, continues=continues)

    def append(self, session: Session, event: AuditEvent, *, continues: str = "") -> None:
        """Write an entry in a transaction. Call this method last: the transaction waits for no other lock behind this one.

        Args:
            session: the transaction. Other gateways that append wait until it ends.
            event: what is recorded. If it names an actor and no consent record, the entry has the actor's own record.
                With `own_record` the entry has it besides others.
            continues: name of work that has begun. The entry has the caller of that beginning, and its face and consent records if
                `event` has none. Empty, or no such work: the present caller.
        """
        self._database.audit_one_by_one(session)
        begun = _beginning(session, continues)
        caller = current_caller()
        # Commands, and what a gateway does by itself, have no token. They act for the tenant of the database.
        by: Mapping[str, str] = {
            "tenant": caller.tenant if caller.fingerprint else self._database.tenant,
            "token": caller.fingerprint,
        }
        face = self._face(session, event)
        if begun is not None:
            by, face = begun["by"], face or begun["face"]
            event = replace(event, consents=event.consents or tuple(begun["consents"]))
        elif event.actor_id and (event.own_record or not event.consents):
            event = replace(event, consents=(*event.consents, *_own_record(session, event.actor_id)))
        last = session.scalar(select(AuditRow).order_by(AuditRow.sequence.desc()).limit(1))
        sequence, previous = (last.sequence + 1, last.digest) if last is not None else (1, START)
        line = line_of(event, sequence=sequence, previous=previous, time=_now(), by=by, face=face)
        digest = digest_of_line(line.encode("ascii"))
        session.add(AuditRow(sequence=sequence, line=line, digest=digest, work=_work_column(event.work)))
        session.flush()

    def forget(self, session: Session, actor_id: str) -> None:
        """Delete what ties a person to entries. The entries stay as they are."""
        session.execute(delete(AuditPersonRow).where(AuditPersonRow.actor_id == actor_id))

    def lines(self, *, after: int = 0) -> Iterator[AuditRow]:
        """Yield the rows of the log in order, behind an entry."""
        while True:
            with self._database.reading() as session:
                query = select(AuditRow).where(AuditRow.sequence > after).order_by(AuditRow.sequence).limit(_AT_ONCE)
                rows = session.scalars(query).all()
                session.expunge_all()
            if not rows:
                return
            yield from rows
            after = rows[-1].sequence

    def newest(self, limit: int, *, actor_id: str = "", event: str = "") -> list[dict[str, Any]]:
        """Return the newest entries in the order of the log, with the ids of people who are not erased (`actor_id`).

        An entry that was damaged is returned whatever is asked for, and has `sequence` and `damage` (a sentence) alone.

        Args:
            limit: most entries.
            actor_id: only entries about this actor; empty: all.
            event: only entries of this event, or of this first word of events; empty: all.
        """
        found: list[dict[str, Any]] = []
        before: int | None = None
        with self._database.reading() as session:
            names = {row.alias: row.actor_id for row in session.scalars(select(AuditPersonRow))}
            while rows := self._page_before(session, before):
                for row in rows:
                    entry = entry_from(row.line)
                    if entry is None:
                        found.append({"sequence": row.sequence, "damage": _DAMAGE})
                    elif _is_of(entry, event):
                        entry["actor_id"] = names.get(entry["face"], "")
                        if actor_id in ("", entry["actor_id"]):
                            found.append(entry)
                    if len(found) == limit:
                        return found[::-1]
                before = rows[-1].sequence
        return found[::-1]

    def _page_before(self, session: Session, before: int | None) -> Sequence[AuditRow]:
        query = select(AuditRow).order_by(AuditRow.sequence.desc()).limit(_AT_ONCE)
        return session.scalars(query if before is None else query.where(AuditRow.sequence < before)).all()

    def verify(self, since: ChainHead = ChainHead()) -> ChainHead:
        """Check the whole log in the database, and return its head.

        Args:
            since: head of an earlier export, which the log must still hold.

        Raises:
            ChainBroken: the log was changed. The number of a line is that of the entry.
        """
        head = ChainHead()
        for number, row in enumerate(self.lines(), 1):
            head = follow_row(head, row, number)
            if head.sequence == since.sequence and head.digest != since.digest:
                raise ChainBrokenError(number, "the entry is not that of the earlier export: the log was written anew")
        if head.sequence < since.sequence:
            raise ChainBrokenError(
                head.sequence + 1,
                f"entries {head.sequence + 1} to {since.sequence} of the earlier export are missing: the end was cut",
            )
        return head

    def _face(self, session: Session, event: AuditEvent) -> str:
        actor_id = event.actor_id
        row = session.get(AuditPersonRow, actor_id) if actor_id else None
        if row is not None or not actor_id:
            return row.alias if row is not None else ""
        if event.event is not EventKind.ENROLMENT_BEGUN and session.get(ActorRow, actor_id) is None:
            # The person was erased meanwhile: no row ties an entry to the person again.
            return ""
        row = AuditPersonRow(actor_id=actor_id, alias=secrets.token_hex(16))
        session.add(row)
        session.flush()
        return row.alias


def follow_row(head: ChainHead, row: AuditRow, number: int) -> ChainHead:
    """Return the head of a chain with one more row of the database.

    Args:
        head: head of the chain before the row.
        number: number of the entry for errors.

    Raises:
        ChainBroken: the row is not as it was written, or not the next one.
    """
    found = follow(head, row.line.encode("utf-8", "replace"), number)
    if row.digest != found.digest or row.sequence != found.sequence:
        raise ChainBrokenError(number, "the line is not the one that was written: it was changed in the database")
    # The end of a piece of work finds who asked for the work by this column.
    if row.work != _work_column(plain_json(row.line.encode())["work"]):
        raise ChainBrokenError(number, "the row names other work than its line: it was changed in the database")
    return found


def _work_column(work: str) -> str:
    return work[:_MOST_WORK]


def _is_of(entry: Mapping[str, Any], event: str) -> bool:
    """Return whether an entry is of an event, or of the kind of events that begins with this word. Empty: always."""
    return event in ("", entry["event"]) or str(entry["event"]).startswith(f"{event}.")


def _own_record(session: Session, actor_id: str) -> tuple[str, ...]:
    """Return the digest of an actor's consent record; nothing: there is none, or it is damaged."""
    row = session.get(ActorRow, actor_id)
    try:
        return (digest_of(Consent.model_validate(row.consent)),) if row is not None and row.consent is not None else ()
    except ValidationError:
        return ()


def _beginning(session: Session, work: str) -> dict[str, Any] | None:
    """Return the last entry that began a piece of work; None: there is none, or it was damaged."""
    if not work:
        return None
    # Quotes inside of values are escaped, so that only the key of the entry itself looks like this.
    begun = or_(*(AuditRow.line.contains(f'"event":"{event}"', autoescape=True) for event in BEGINNINGS))
    query = select(AuditRow).where(AuditRow.work == _work_column(work), begun).order_by(AuditRow.sequence.desc()).limit(1)
    row = session.scalar(query)
    return entry_from(row.line) if row is not None else None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


SETTINGS_WORK: Final = "settings"
"""Name under which entries about settings are found again."""
REMEDY: Final = (
    f"if the key was not replaced on purpose, several gateways of one database sign with different keys: give all of them the same "
    f"{KEY_SETTING}, or one data folder"
)

_log = structlog.stdlib.get_logger("dubstage.audit")


def record_settings(database: Database, settings: GatewaySettings) -> None:
    """Write an entry if the watermark, the consent requirement or the signing key is another than the log says.

    Another signing key than that of the last start is also told in the gateway's log: the key was replaced, or two gateways of one
    database have different keys.

    Args:
        database: database of the actors.
        settings: settings that a gateway starts with.

    Raises:
        DubstageError: the database or the signing key cannot be used.
    """
    now: dict[str, str | int | bool] = {
        "require_consent": str(settings.require_consent),
        "watermark": settings.watermark,
        "watermark_public": settings.watermark and settings.watermark_public,
        "signing_key": signing_key(settings.data_dir, settings.signing_key_file).id,
    }
    with database.writing() as session:
        last = _last(session)
        before = _key_of(last)
        if before not in ("", now["signing_key"]):
            _log.warning("another_signing_key", before=before, now=now["signing_key"], remedy=REMEDY)
        if last is None or last["details"] != now:
            AuditLog(database).append(session, AuditEvent(event=EventKind.SETTINGS, work=SETTINGS_WORK, details=now))


def recorded_signing_key(database: Database) -> str:
    """Return the id of the signing key of the gateway that started last; empty: no gateway has started yet."""
    with database.reading() as session:
        return _key_of(_last(session))


def _last(session: Session) -> dict[str, Any] | None:
    row = session.scalar(select(AuditRow).where(AuditRow.work == SETTINGS_WORK).order_by(AuditRow.sequence.desc()).limit(1))
    return entry_from(row.line) if row is not None else None


def _key_of(entry: dict[str, Any] | None) -> str:
    return str(entry["details"].get("signing_key", "")) if entry is not None else ""


_ENDS: Final[Mapping[EventKind, tuple[EventKind, EventKind, EventKind]]] = {
    EventKind.DUB_BEGUN: (EventKind.DUB_ENDED, EventKind.DUB_FAILED, EventKind.DUB_CANCELLED),
    EventKind.LIVE_BEGUN: (EventKind.LIVE_ENDED, EventKind.LIVE_FAILED, EventKind.LIVE_CANCELLED),
}
"""How work that begins with an entry ends: well, with an error, cancelled."""


@dataclass(slots=True)
class WorkRecord:
    """Content of the entry for the end of a piece of work.

    Attributes:
        outputs: digests of what was made, hexadecimal.
        details: further facts.
    """

    outputs: tuple[str, ...]
    details: dict[str, str | int | bool]

    async def video(self, video: Path, watermark: VideoWatermark) -> None:
        """Note the digest of a video without its manifest, as `dubstage inspect` prints it, and the watermark of the video."""
        self.outputs = (await in_thread(media_sha256, video),)
        self.details |= watermark_details(watermark)


@asynccontextmanager
async def recorded(log: AuditLog, begun: AuditEvent, *, continues: str = "") -> AsyncIterator[WorkRecord]:
    """Record the beginning of the work of the context, and its end. Work whose beginning cannot be recorded does not begin.

    Args:
        log: the audit log.
        begun: the beginning: DUB_BEGUN or LIVE_BEGUN, with a name of the work that no other work has.
        continues: as for `AuditLog.append`.

    Raises:
        DubstageError: the database cannot be used, before the work or after work that succeeded.
    """
    ended, failed, cancelled = _ENDS[begun.event]
    await in_thread(lambda: log.record(begun, continues=continues))
    end = replace(begun, event=ended, actor_id="", consents=(), details={})
    note = WorkRecord((), {})
    try:
        yield note
    except BaseException as problem:
        if isinstance(problem, asyncio.CancelledError | GeneratorExit | WorkCancelledError):
            last = replace(end, event=cancelled)
        else:
            found = error_status.domain_error(problem) if isinstance(problem, Exception) else None
            last = replace(end, event=failed, details={"reason": found.reason if found is not None else ""})
        try:
            await in_thread(lambda: log.record(replace(last, details={**note.details, **last.details}), continues=begun.work))
        except DubstageError as unwritten:
            # The caller is told why the work failed. The beginning without an end shows what is missing.
            _log.error("audit_entry_not_written", audit_event=str(last.event), work=begun.work, message=unwritten.message)
        raise
    last = replace(end, outputs=note.outputs, details=note.details)
    await in_thread(lambda: log.record(last, continues=begun.work))


def watermark_details(watermark: VideoWatermark) -> dict[str, str | int | bool]:
    """Return what the entry of a finished video says of its watermark: whether the setting was on, and what the watermark says."""
    payload = {"watermark_payload": watermark.payload} if watermark.payload else {}
    return {"watermark": watermark.on, **payload}


def batch_work(batch: str) -> str:
    """Return the name that a batch has in the audit log."""
    return f"batches/{batch}"
