"""Actors as the store gives them: what the database's rows say, and what was learned of a person, which lies in a blob."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.actors.tables import ActorRow, EnrolmentRow, LineageRow
from gateway.consent import Consent
from gateway.pipeline.enrol import EnrolledActor
from gateway.pipeline.enrolment_artefact import actor_from_arrays
from services.common.artefacts import ArtefactRef, ArtefactStore
from services.common.errors import ArtefactCorrupt, ArtefactNotFound, DubstageError

ENROLMENT = "enrolment"
"""Kind of the blob that holds what was learned of a person."""
SUPERSEDED = "superseded"
"""First word of the kinds of blobs that an enrolment made and replaced: they are counted, so that they are erased, and not used."""


@dataclass(frozen=True, slots=True)
class StoredActor:
    """An actor of the store, with everything that was learned of them.

    Attributes:
        actor_id: chosen by the caller who enrolled them.
        method: that they are enrolled for.
        consent: record, or None.
        footage_sha256: of the footage that they were enrolled from.
        created_at: RFC 3339, UTC.
        enrolled: what the pipeline works with.
        artefacts: every blob that came from their footage, by kind.
    """

    actor_id: str
    method: str
    consent: Consent | None
    footage_sha256: str
    created_at: str
    enrolled: EnrolledActor
    artefacts: Mapping[str, ArtefactRef]

    @property
    def summary(self) -> ActorSummary:
        """The actor as lists show it."""
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
    """What is shown of an actor: it can be shown even where the actor is damaged.

    Attributes:
        actor_id, method, consent, footage_sha256, created_at, artefacts: as StoredActor; a damaged consent record is None.
        num_frames: footage frames that were used; None where that cannot be read.
        lag_frames: sound against picture, frames of 40 ms; None where the footage has no sound, or where it cannot be read.
        damage: why the actor cannot be used, and the remedy; empty where nothing wrong was seen.
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


def artefacts_of(session: Session, actor_id: str) -> dict[str, ArtefactRef]:
    """Return every blob that came from an actor's footage, by kind."""
    blobs = session.scalars(select(LineageRow).where(LineageRow.actor_id == actor_id))
    return {blob.kind: ArtefactRef(blob.uri, blob.sha256, blob.size_bytes) for blob in blobs}


def consent_of(row: ActorRow, where: str) -> Consent | None:
    """Return an actor's consent record.

    Raises:
        ArtefactCorrupt: what is stored is no consent record.
    """
    if row.consent is None:
        return None
    try:
        return Consent.model_validate(row.consent)
    except ValidationError:
        raise ArtefactCorrupt(
            f"the consent record of actor {row.actor_id} in the database {where} is damaged: restore the database from a backup, "
            f"or erase the actor (`dubstage actor erase {row.actor_id}`) and enrol it again",
            resource=row.actor_id,
        ) from None


def enrolled_of(artefacts: ArtefactStore, refs: Mapping[str, ArtefactRef], actor_id: str) -> EnrolledActor:
    """Return what was learned of an actor.

    Raises:
        ArtefactCorrupt, ArtefactNotFound: the blob is damaged or gone.
        DubstageError: the store cannot be used.
    """
    remedy = f"erase the actor (`dubstage actor erase {actor_id}`) and enrol it again"
    try:
        return actor_from_arrays(artefacts.get_arrays(refs[ENROLMENT]))
    except ArtefactNotFound as problem:
        raise ArtefactNotFound(
            f"what was learned of actor {actor_id} is gone ({problem.message}): check DUBSTAGE_ARTEFACTS_URL, or {remedy}",
            resource=problem.resource,
        ) from None
    except ArtefactCorrupt as problem:
        raise ArtefactCorrupt(
            f"what was learned of actor {actor_id} is damaged ({problem.message}): {remedy}", resource=problem.resource
        ) from None
    except (KeyError, ValueError, TypeError):
        # The row is missing, or names a blob that holds something else.
        raise ArtefactCorrupt(
            f"the database's rows of actor {actor_id} are damaged, they name no enrolment: restore the database from a backup, or "
            f"{remedy}",
            resource=actor_id,
        ) from None


def summary_of(session: Session, row: ActorRow, artefacts: ArtefactStore, where: str, *, read_blob: bool) -> ActorSummary:
    """Return what is shown of an actor, damaged or not.

    Args:
        session: that `row` is of.
        row: the actor's.
        artefacts: the store with what was learned of them.
        where: the database, for error texts.
        read_blob: read what was learned, to see whether it can be used. Otherwise the blob is only read of actors that an earlier
            version enrolled, whose rows do not hold the figures.
    """
    refs = artefacts_of(session, row.actor_id)
    figures = session.get(EnrolmentRow, row.actor_id)
    num_frames, lag_frames = (figures.num_frames, figures.lag_frames) if figures is not None else (None, None)
    consent, damage = None, ""
    try:
        consent = consent_of(row, where)
        if read_blob or figures is None:
            enrolled = enrolled_of(artefacts, refs, row.actor_id)
            num_frames, lag_frames = enrolled.num_frames, enrolled.lag_frames
    except DubstageError as problem:
        damage = problem.message
    return ActorSummary(row.actor_id, row.method, consent, row.footage_sha256, row.created_at, refs, num_frames, lag_frames, damage)
