"""The audit log in the database of the actors. Entries are written in the transactions of what they record."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import BigInteger, ForeignKey, Integer, String, Text, delete, func, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship, selectinload

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
from gateway.times import now_ms
from services.common.server.call_context import current_caller

_AT_ONCE: Final = 1000
_MOST_WORK: Final = 160
"""Characters of the column with the name of the work."""
_MOST_FACE: Final = 32
"""Characters of the column with a face."""
_DAMAGE: Final = "the entry was changed: `dubstage audit verify` checks the log"
BEGINNINGS: Final = (EventKind.DUB_BEGUN, EventKind.ENROLMENT_BEGUN, EventKind.LIVE_BEGUN, EventKind.BATCH_SUBMITTED)
"""Entries that tell who asked for a piece of work."""


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
    faces: Mapped[list[AuditFaceRow]] = relationship(lazy="raise")
    """People whose faces the entry is about."""


class AuditFaceRow(Base):
    """A person whose face an entry is about."""

    __tablename__ = "audit_faces"

    face: Mapped[str] = mapped_column(String(32), primary_key=True)
    """Random name of the person."""
    sequence: Mapped[int] = mapped_column(ForeignKey(AuditRow.sequence, ondelete="CASCADE"), primary_key=True, index=True)
    """Number of the entry."""


class AuditPersonRow(Base):
    """The random name that a person has in the audit log. An erasure deletes the row: nothing else ties the name to the person."""

    __tablename__ = "audit_people"

    actor_id: Mapped[str] = mapped_column(String(63), primary_key=True)
    alias: Mapped[str] = mapped_column(String(32), index=True)


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
            event: what is recorded. The entry holds the consent records of the event, and those that the actors have of their own.
            continues: name of work that has begun. The entry has the caller of that beginning, and its faces and consent records
                if `event` has none. Empty, or no such work: the present caller.
        """
        self._database.audit_one_by_one(session)
        begun = _beginning(session, continues)
        caller = current_caller()
        # Commands, and what a gateway does by itself, have no token. They act for the tenant of the database.
        by: Mapping[str, str] = {
            "tenant": caller.tenant if caller.fingerprint else self._database.tenant,
            "token": caller.fingerprint,
        }
        faces = [face for actor_id in event.actor_ids if (face := self._face(session, event, actor_id))]
        consents = [*event.consents, *(digest for actor_id in event.actor_ids for digest in _own_record(session, actor_id))]
        if begun is not None:
            by, faces, consents = begun["by"], faces or begun["faces"], consents or begun["consents"]
        event = replace(event, consents=tuple(consents))
        last = session.scalar(select(AuditRow).order_by(AuditRow.sequence.desc()).limit(1))
        sequence, previous = (last.sequence + 1, last.digest) if last is not None else (1, START)
        line = line_of(event, sequence=sequence, previous=previous, time=now_ms(), by=by, faces=faces)
        digest = digest_of_line(line.encode("ascii"))
        rows = [AuditFaceRow(face=face) for face in _face_rows(faces)]
        session.add(AuditRow(sequence=sequence, line=line, digest=digest, work=_work_column(event.work), faces=rows))
        session.flush()

    def forget(self, session: Session, actor_id: str) -> None:
        """Delete what ties a person to entries. The entries stay as they are."""
        session.execute(delete(AuditPersonRow).where(AuditPersonRow.actor_id == actor_id))

    def lines(self) -> Iterator[AuditRow]:
        """Yield the rows of the log in order."""
        after = 0
        while True:
            with self._database.reading() as session:
                query = select(AuditRow).where(AuditRow.sequence > after).order_by(AuditRow.sequence).limit(_AT_ONCE)
                rows = session.scalars(query.options(selectinload(AuditRow.faces))).all()
                session.expunge_all()
            if not rows:
                return
            yield from rows
            after = rows[-1].sequence

    def newest(self, limit: int, *, actor_id: str = "", event: str = "") -> list[dict[str, Any]]:
        """Return the newest entries in the order of the log, with the ids of their actors (`actor_ids`, in the order of `faces`;
        empty: the person was erased).

        An entry that was damaged has `sequence` and `damage` (a sentence) alone, and is returned whatever event is asked for.

        Args:
            limit: most entries.
            actor_id: only entries about this actor, which an index finds; empty: all.
            event: only entries of this event, or of this first word of events; empty: all.
        """
        newest: list[dict[str, Any]] = []
        before: int | None = None
        with self._database.reading() as session:
            alias = _alias(session, actor_id) if actor_id else ""
            if alias is None:
                return []
            while rows := _page_before(session, before, _AT_ONCE if event else min(limit, _AT_ONCE), alias):
                entries = [entry_from(row.line) for row in rows]
                names = _names(session, {face for entry in entries if entry is not None for face in _face_rows(entry["faces"])})
                for row, entry in zip(rows, entries, strict=True):
                    if entry is None:
                        newest.append({"sequence": row.sequence, "damage": _DAMAGE})
                    elif _is_of(entry, event):
                        entry["actor_ids"] = [names.get(face, "") for face in entry["faces"]]
                        newest.append(entry)
                    if len(newest) == limit:
                        return newest[::-1]
                before = rows[-1].sequence
        return newest[::-1]

    def counts(self, event: EventKind, actor_ids: Sequence[str]) -> dict[str, int]:
        """Return the number of entries of one event by actor.

        Args:
            event: what the entries record.
            actor_ids: the actors. Actors without an entry are left out.
        """
        is_of = AuditRow.line.contains(f'"event":"{event}"', autoescape=True)
        query = (
            select(AuditPersonRow.actor_id, func.count())
            .join(AuditFaceRow, AuditFaceRow.face == AuditPersonRow.alias)
            .join(AuditRow, AuditRow.sequence == AuditFaceRow.sequence)
            .where(AuditPersonRow.actor_id.in_(actor_ids), is_of)
            .group_by(AuditPersonRow.actor_id)
        )
        with self._database.reading() as session:
            return {actor_id: int(number) for actor_id, number in session.execute(query)}

    def verify(self, since: ChainHead = ChainHead()) -> ChainHead:
        """Check the whole log in the database, and return its head.

        Args:
            since: head of an earlier export, which the log must still hold.

        Raises:
            ChainBrokenError: the log was changed. The number of a line is that of the entry.
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

    def _face(self, session: Session, event: AuditEvent, actor_id: str) -> str:
        """Return the random name of an actor; empty: the person was erased."""
        row = session.get(AuditPersonRow, actor_id)
        if row is not None:
            return row.alias
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
        ChainBrokenError: the row is not as it was written, or not the next one.
    """
    following = follow(head, row.line.encode("utf-8", "replace"), number)
    if row.digest != following.digest or row.sequence != following.sequence:
        raise ChainBrokenError(number, "the line is not the one that was written: it was changed in the database")
    # The end of a piece of work finds who asked for the work by this column.
    entry = entry_from(row.line)
    if entry is None:
        raise ChainBrokenError(number, "the line is no entry of an audit log")
    if row.work != _work_column(entry["work"]):
        raise ChainBrokenError(number, "the row names other work than its line: it was changed in the database")
    if sorted(face.face for face in row.faces) != _face_rows(entry["faces"]):
        raise ChainBrokenError(number, "the row names other faces than its line: it was changed in the database")
    return following


def _work_column(work: str) -> str:
    return work[:_MOST_WORK]


def _face_rows(faces: Collection[str]) -> list[str]:
    # A line that was changed may begin work under any text as a face.
    return sorted({face[:_MOST_FACE] for face in faces if face.isascii() and face.isalnum()})


def _is_of(entry: Mapping[str, Any], event: str) -> bool:
    """Return whether an entry is of an event, or of the kind of events that begins with this word. Empty: always."""
    return event in ("", entry["event"]) or str(entry["event"]).startswith(f"{event}.")


def _page_before(session: Session, before: int | None, limit: int, alias: str) -> Sequence[AuditRow]:
    """Return the newest rows in front of an entry, the newest first.

    Args:
        session: a session.
        before: number of the entry; None: the end of the log.
        limit: most rows.
        alias: only entries about the person of this name in the log; empty: all.
    """
    query = select(AuditRow).order_by(AuditRow.sequence.desc()).limit(limit)
    if before is not None:
        query = query.where(AuditRow.sequence < before)
    if alias:
        query = query.join(AuditRow.faces).where(AuditFaceRow.face == alias)
    return session.scalars(query).all()


def _alias(session: Session, actor_id: str) -> str | None:
    """Return the name of a person in the log; None: there is no such person, or the person was erased."""
    # PostgreSQL cannot be asked for every text: its texts hold no NUL.
    row = session.get(AuditPersonRow, actor_id) if "\0" not in actor_id else None
    return row.alias if row is not None else None


def _names(session: Session, aliases: AbstractSet[str]) -> dict[str, str]:
    """Return the ids of the people who are not erased, by their names in the log."""
    rows = session.scalars(select(AuditPersonRow).where(AuditPersonRow.alias.in_(sorted(aliases))))
    return {row.alias: row.actor_id for row in rows}


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
