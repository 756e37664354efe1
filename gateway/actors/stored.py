"""Actors as the store returns them: their ids, the database's rows, and the blob that holds what was learned of the person.

Modules of dubs are imported in functions: lists of actors show rows of the database alone, and a command that lists actors starts
without the modules of dubs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.audit.entries import AuditEvent, EventKind
from gateway.consent.record import Consent, digest_of
from gateway.database.tables import ActorRow, EnrolmentRow, LineageRow
from services.common.errors import (
    ActorNotFoundError,
    ArtefactCorruptError,
    ArtefactNotFoundError,
    DubstageError,
    InvalidRequestError,
)
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from services.common.texts import Command, Text

if TYPE_CHECKING:
    from gateway.dub.learn.enrol import EnrolledActor
    from gateway.dub.request.dub_request import ActorRecord

_AT_ONCE: Final = 500
"""Most actors of one query."""
_ALLOWED: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
ENROLMENT: Final = "enrolment"
"""Kind of the blob that holds what was learned of a person."""
PICTURE: Final = "picture"
"""Kind of the blob that holds a small picture of a person, JPEG."""
FILES: Final = "files"
"""Kind of the blob that holds the SHA-256 of each file of a person's footage, JSON. Actors of one file have none."""
SUPERSEDED: Final = "superseded"
"""First word of the kinds of blobs that an enrolment made and replaced. Nothing uses these blobs. They are counted, so that an
erasure deletes them.
"""


def is_actor_id(text: str) -> bool:
    """Return whether a text is allowed as the id of an actor. The database is asked for allowed ids only."""
    return _ALLOWED.fullmatch(text) is not None


def check_actor_id(actor_id: str, field: str = "actor_id") -> str:
    """Return an id that is allowed: lower-case letters, digits and inner dashes, at most 63 characters.

    Args:
        field: field of the request, for the error.

    Raises:
        InvalidRequestError: the id is not allowed.
    """
    if not is_actor_id(actor_id):
        raise InvalidRequestError(
            f"{actor_id[:80]!r} is not allowed: an actor id has lower-case letters, digits and inner dashes, at most 63 characters",
            field=field,
            named=True,
        )
    return actor_id


def not_enrolled(actor_id: str) -> ActorNotFoundError:
    """Return the error for an id that no actor has."""
    return ActorNotFoundError(
        Text(
            "no actor {actor!r} is enrolled: {actors} shows the actors, {create} enrols one",
            actor=actor_id,
            actors=Command("actor list"),
            create=Command("actor create"),
        ),
        subject=actor_id,
    )


def already_enrolled(actor_id: str) -> InvalidRequestError:
    """Return the error for an id that another actor has."""
    return InvalidRequestError(
        Text(
            "there is an actor {actor!r} already: erase it first ({erase}), or choose another id",
            actor=actor_id,
            erase=Command("actor erase", actor_id),
        ),
        field="actor_id",
    )


@dataclass(frozen=True, slots=True)
class StoredActor:
    """An actor of the store, with everything that was learned of the person.

    Attributes:
        actor_id: id that was chosen when the person was enrolled.
        method: method that the person is enrolled for.
        consent: consent record; None: there is none.
        footage_sha256: SHA-256 of the footage of the enrolment, hexadecimal.
        created_at: time of the enrolment, RFC 3339, UTC.
        enrolled: what the pipeline works with.
        artefacts: every blob that came from the person's footage, by kind.
        warnings: warnings of the enrolment for the user, known only to the caller that enrolled the person.
    """

    actor_id: str
    method: str
    consent: Consent | None
    footage_sha256: str
    created_at: str
    enrolled: EnrolledActor
    artefacts: Mapping[str, ArtefactRef]
    warnings: tuple[str, ...] = ()

    @property
    def record(self) -> ActorRecord:
        """Facts of the actor that the consent checks of a dub need."""
        from gateway.dub.request.dub_request import ActorRecord

        return ActorRecord(
            actor_id=self.actor_id,
            consent=self.consent,
            footage_sha256=self.footage_sha256,
            faces=self.artefacts.get("faces"),
            footage=self.artefacts.get("footage"),
        )

    @property
    def summary(self) -> ActorSummary:
        """The actor as lists show actors."""
        return ActorSummary(
            self.actor_id,
            self.method,
            self.consent,
            self.footage_sha256,
            self.created_at,
            self.artefacts,
            self.enrolled.num_frames,
            self.enrolled.lag_frames,
        )


@dataclass(frozen=True, slots=True)
class ActorSummary:
    """An actor as lists show it, damaged or not.

    Attributes:
        actor_id, method, consent, footage_sha256, created_at, artefacts: as in StoredActor; a damaged consent record is None.
        num_frames: number of footage frames that the enrolment used; None: the number cannot be read.
        lag_frames: frames of 40 ms by which the sound comes after the picture; None: the footage has no sound, or the number cannot
            be read.
        damage: why the actor cannot be used, and the remedy; empty: no damage was found.
        consent_problem: why the consent record allows no work now, such as a withdrawal; empty: no such reason was found.
    """

    actor_id: str
    method: str
    consent: Consent | None
    footage_sha256: str
    created_at: str
    artefacts: Mapping[str, ArtefactRef]
    num_frames: int | None
    lag_frames: int | None
    damage: str = ""
    consent_problem: str = ""

    @property
    def has_picture(self) -> bool:
        """Whether there is a picture that may be shown now."""
        return PICTURE in self.artefacts and not self.consent_problem


def check_enrolled_for(actor: StoredActor, method: str) -> None:
    """Check that an actor was enrolled for a method: style and renderer state fit the networks of one method only.

    Raises:
        InvalidRequestError: the actor was enrolled for another method.
    """
    if actor.method != method:
        raise InvalidRequestError(
            f"actor {actor.actor_id} is enrolled for {actor.method}, not for {method}: dub with {actor.method}, or "
            f"enrol the person for {method} under another id",
            field="method",
            named=True,
        )


def lineage_of(
    store: ArtefactStore, enrolled: EnrolledActor, more: Mapping[str, ArtefactRef], superseded: Sequence[ArtefactRef]
) -> dict[str, ArtefactRef]:
    """Store what was learned of a person, and return every blob that came from the person's footage, by kind.

    Args:
        store: the artefact store.
        enrolled: what the enrolment learned.
        more: further blobs of the actor, by kind.
        superseded: all blobs that the enrolment made. A blob that no other kind names gets a kind that begins with SUPERSEDED.
    """
    from gateway.dub.learn.enrol import actor_arrays
    from services.common.wire.convert import ref_from_proto

    refs = {kind: ref_from_proto(message, kind) for kind, message in enrolled.refs.items()}
    lineage = {ENROLMENT: store.put_arrays(*actor_arrays(enrolled)), **refs, **more}
    named = {ref.sha256 for ref in lineage.values()}
    others = {ref.sha256: ref for ref in superseded if ref.sha256 not in named}
    return {**lineage, **{f"{SUPERSEDED} {number}": ref for number, ref in enumerate(others.values())}}


def artefacts_of(session: Session, actor_id: str) -> dict[str, ArtefactRef]:
    """Return every blob that came from an actor's footage, by kind."""
    blobs = session.scalars(select(LineageRow).where(LineageRow.actor_id == actor_id))
    return {blob.kind: ArtefactRef(blob.uri, blob.sha256, blob.size_bytes) for blob in blobs}


def artefacts_of_all(session: Session, actor_ids: Sequence[str]) -> dict[str, dict[str, ArtefactRef]]:
    """Return what `artefacts_of` returns for each of several actors, by id."""
    artefacts: dict[str, dict[str, ArtefactRef]] = {actor_id: {} for actor_id in actor_ids}
    for ids in _pieces(actor_ids):
        for blob in session.scalars(select(LineageRow).where(LineageRow.actor_id.in_(ids))):
            artefacts[blob.actor_id][blob.kind] = ArtefactRef(blob.uri, blob.sha256, blob.size_bytes)
    return artefacts


def _pieces(actor_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    # Databases limit the length of a list.
    return (actor_ids[begin : begin + _AT_ONCE] for begin in range(0, len(actor_ids), _AT_ONCE))


def consent_of(row: ActorRow, where: str) -> Consent | None:
    """Return an actor's consent record.

    Raises:
        ArtefactCorruptError: the database holds something else than a consent record.
    """
    if row.consent is None:
        return None
    try:
        return Consent.model_validate(row.consent)
    except ValidationError:
        raise ArtefactCorruptError(
            Text(
                "the consent record of actor {actor} in the database {where} is damaged: restore the database from a backup, or "
                "{remedy}",
                actor=row.actor_id,
                where=where,
                remedy=_enrol_again(row.actor_id),
            ),
            resource=row.actor_id,
        ) from None


def row_of(session: Session, actor_id: str) -> ActorRow | None:
    """Return the row of an actor; None: there is no actor of this id, or the id is not allowed."""
    # PostgreSQL cannot be asked for every text: its texts hold no NUL.
    return session.get(ActorRow, actor_id) if is_actor_id(actor_id) else None


def rows_after(session: Session, actor_id: str, limit: int) -> Sequence[ActorRow]:
    """Return at most `limit` rows of actors in the order of their ids, beginning behind an id."""
    after = actor_id.replace("\0", "")
    return session.scalars(select(ActorRow).where(ActorRow.actor_id > after).order_by(ActorRow.actor_id).limit(limit)).all()


def add_actor(session: Session, actor: StoredActor) -> None:
    """Add the rows of a new actor. The id must be free."""
    session.add(
        ActorRow(
            actor_id=actor.actor_id,
            method=actor.method,
            consent=actor.consent.fields() if actor.consent is not None else None,
            footage_sha256=actor.footage_sha256,
            created_at=actor.created_at,
            enrolment_sha256=actor.artefacts[ENROLMENT].sha256,
            consent_sha256=digest_of(actor.consent) if actor.consent is not None else "",
        )
    )
    session.flush()
    learned = actor.enrolled
    session.add(EnrolmentRow(actor_id=actor.actor_id, num_frames=learned.num_frames, lag_frames=learned.lag_frames))
    session.add_all(
        LineageRow(actor_id=actor.actor_id, sha256=ref.sha256, kind=kind, uri=ref.uri, size_bytes=ref.size_bytes)
        for kind, ref in actor.artefacts.items()
    )


def created_by(actor: StoredActor, operation: str) -> AuditEvent:
    """Return what the audit log records of a new actor.

    Args:
        operation: name of the operation that enrolled the person; empty: none.
    """
    return AuditEvent(event=EventKind.ACTOR_CREATED, work=operation, actor_ids=(actor.actor_id,), details={"method": actor.method})


def find_holders(session: Session, digest: str) -> tuple[str, ...]:
    """Return the ids of the actors whose consent record has a digest (`digest_of`), sorted.

    Args:
        session: session of the database.
        digest: SHA-256 of the record, hexadecimal.
    """
    mine = select(ActorRow.actor_id).where(ActorRow.consent_sha256 == digest).order_by(ActorRow.actor_id)
    return tuple(session.scalars(mine))


def enrolled_of(artefacts: ArtefactStore, refs: Mapping[str, ArtefactRef], actor_id: str) -> EnrolledActor:
    """Return what was learned of an actor.

    Raises:
        ArtefactCorruptError, ArtefactNotFoundError: the blob is damaged or gone.
        DubstageError: the artefact store cannot be used.
    """
    from gateway.dub.learn.enrol import actor_from_arrays

    remedy = _enrol_again(actor_id)
    try:
        return actor_from_arrays(artefacts.get_arrays(refs[ENROLMENT]))
    except ArtefactNotFoundError as problem:
        raise ArtefactNotFoundError(
            Text(
                "what was learned of actor {actor} is gone ({problem}): check DUBSTAGE_ARTEFACTS_URL, or {remedy}",
                actor=actor_id,
                problem=problem,
                remedy=remedy,
            ),
            resource=problem.resource,
        ) from None
    except ArtefactCorruptError as problem:
        raise ArtefactCorruptError(
            Text(
                "what was learned of actor {actor} is damaged ({problem}): {remedy}", actor=actor_id, problem=problem, remedy=remedy
            ),
            resource=problem.resource,
        ) from None
    except (KeyError, ValueError, TypeError):
        # The row of the blob is missing, or names a blob that holds something else.
        raise ArtefactCorruptError(
            Text(
                "the database's rows of actor {actor} are damaged: they name no enrolment. Restore the database from a backup, or "
                "{remedy}",
                actor=actor_id,
                remedy=remedy,
            ),
            resource=actor_id,
        ) from None


def _enrol_again(actor_id: str) -> Text:
    return Text("erase the actor ({erase}) and enrol it again", erase=Command("actor erase", actor_id))


def summaries_of(
    session: Session, rows: Sequence[ActorRow], artefacts: ArtefactStore, where: str, *, read_blob: bool
) -> list[ActorSummary]:
    """Return what is shown of actors, damaged or not.

    Args:
        session: session that `rows` were read in.
        rows: the actors' rows.
        artefacts: the artefact store.
        where: name of the database in error texts.
        read_blob: read what was learned of the actor, to see whether it can be used.
    """
    ids = [row.actor_id for row in rows]
    refs = artefacts_of_all(session, ids)
    figures = {
        one.actor_id: one
        for part in _pieces(ids)
        for one in session.scalars(select(EnrolmentRow).where(EnrolmentRow.actor_id.in_(part)))
    }
    return [_summary_of(row, refs[row.actor_id], figures.get(row.actor_id), artefacts, where, read_blob=read_blob) for row in rows]


def _summary_of(
    row: ActorRow,
    refs: Mapping[str, ArtefactRef],
    figures: EnrolmentRow | None,
    artefacts: ArtefactStore,
    where: str,
    *,
    read_blob: bool,
) -> ActorSummary:
    num_frames, lag_frames = (figures.num_frames, figures.lag_frames) if figures is not None else (None, None)
    consent, damage = None, ""
    try:
        consent = consent_of(row, where)
        if read_blob:
            enrolled = enrolled_of(artefacts, refs, row.actor_id)
            num_frames, lag_frames = enrolled.num_frames, enrolled.lag_frames
    except DubstageError as problem:
        damage = Text("{problem}", problem=problem)
    return ActorSummary(row.actor_id, row.method, consent, row.footage_sha256, row.created_at, refs, num_frames, lag_frames, damage)
