"""Create, read, list and erase actors. SQLite beside the data by default, PostgreSQL by url."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from gateway.actors.database import Database
from gateway.actors.erasure import Erasures, not_enrolled
from gateway.actors.job_blobs import JobBlobs
from gateway.actors.private_files import data_folder
from gateway.actors.receipts import ErasureReceipt, now
from gateway.actors.stored import (
    ENROLMENT,
    SUPERSEDED,
    ActorSummary,
    StoredActor,
    artefacts_of,
    consent_of,
    enrolled_of,
    summary_of,
)
from gateway.actors.tables import ActorRow, EnrolmentRow, LineageRow
from gateway.consent import Consent
from gateway.pipeline.enrol import EnrolledActor
from gateway.pipeline.enrolment_artefact import actor_arrays, actor_refs
from gateway.pipeline.messages import ref_from
from gateway.settings import GatewaySettings
from services.common.artefacts import ArtefactRef, ArtefactStore
from services.common.errors import ActorNotReady, InvalidRequest

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def check_enrolled_for(actor: StoredActor, method: str) -> None:
    """Raise InvalidRequest where an actor was enrolled for another method: style and renderer state are of their networks."""
    if actor.method != method:
        raise InvalidRequest(f"method: actor {actor.actor_id} is enrolled for {actor.method}, not {method}", field="method")


def check_actor_id(actor_id: str) -> str:
    """The id, if it is one: lower-case letters, digits and dashes, at most 63.

    Raises:
        InvalidRequest: it is not.
    """
    if not _NAME.fullmatch(actor_id):
        raise InvalidRequest(
            f"an actor id has lower-case letters, digits and inner dashes, at most 63, not {actor_id[:80]!r}", field="actor_id"
        )
    return actor_id


class ActorStore:
    """The actors of an installation.

    Attributes:
        jobs: which jobs are begun, and the blobs that they count.
        erasures: how actors are erased.

    Args:
        settings: data folder, database url and artefact store.

    Raises:
        StorageRefused: the data folder or the database cannot be used, or the database is damaged.
        BackendUnavailable: the database does not answer.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        data_folder(settings.data_dir)
        self._database = Database(settings.database_url, settings.data_dir)
        self._artefacts = ArtefactStore(settings.artefacts_url)
        self.jobs = JobBlobs(self._database, self._artefacts)
        self.erasures = Erasures(self._database, self._artefacts, settings.data_dir / "receipt.key")

    @property
    def database(self) -> Database:
        """Database of the actors. Operations are stored in the same database."""
        return self._database

    def close(self) -> None:
        """Close the database's connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def create(
        self,
        actor_id: str,
        *,
        method: str,
        enrolled: EnrolledActor,
        footage_sha256: str,
        consent: Consent | None,
        more: Mapping[str, ArtefactRef] | None = None,
        superseded: Sequence[ArtefactRef] = (),
    ) -> StoredActor:
        """Keep an actor; `more` are further blobs of theirs, by kind; `superseded` all others that came up on the way.

        Raises:
            InvalidRequest: the id is taken, or is none.
        """
        check_actor_id(actor_id)
        enrolment = self._artefacts.put_arrays(*actor_arrays(enrolled))
        refs = {kind: ref_from(message) for kind, message in actor_refs(enrolled).items()}
        artefacts = {ENROLMENT: enrolment, **refs, **(more or {})}
        known = {ref.sha256 for ref in artefacts.values()}
        others = {ref.sha256: ref for ref in superseded if ref.sha256 not in known}
        artefacts.update({f"{SUPERSEDED} {number}": ref for number, ref in enumerate(others.values())})
        created_at = now()
        try:
            with self._database.writing() as session:
                session.add(
                    ActorRow(
                        actor_id=actor_id,
                        method=method,
                        consent=json.loads(consent.model_dump_json()) if consent is not None else None,
                        footage_sha256=footage_sha256,
                        created_at=created_at,
                        enrolment_sha256=enrolment.sha256,
                    )
                )
                session.flush()
                session.add(EnrolmentRow(actor_id=actor_id, num_frames=enrolled.num_frames, lag_frames=enrolled.lag_frames))
                session.add_all(
                    LineageRow(actor_id=actor_id, sha256=ref.sha256, kind=kind, uri=ref.uri, size_bytes=ref.size_bytes)
                    for kind, ref in artefacts.items()
                )
        except BaseException as problem:
            for ref in self.jobs.uncounted([enrolment]):
                self._artefacts.delete(ref)
            if not isinstance(problem, IntegrityError):
                raise
            raise InvalidRequest(
                f"there is an actor {actor_id!r} already: erase it first, or choose another id", field="actor_id"
            ) from None
        return StoredActor(actor_id, method, consent, footage_sha256, created_at, enrolled, artefacts)

    def check_free(self, actor_id: str) -> None:
        """Raise InvalidRequest where the id is taken or is none, before work is spent on an enrolment."""
        check_actor_id(actor_id)
        with self._database.reading() as session:
            if _row(session, actor_id) is not None:
                raise InvalidRequest(
                    f"there is an actor {actor_id!r} already: erase it first, or choose another id", field="actor_id"
                )

    def get(self, actor_id: str) -> StoredActor:
        """An actor.

        Raises:
            ActorNotReady: there is none of this id.
            ArtefactCorrupt, ArtefactNotFound: the store lost what was learned of them, or their rows are damaged.
        """
        found = self.find(actor_id)
        if found is None:
            raise ActorNotReady(f"no actor {actor_id!r} is enrolled: `dubstage actor create`", subject=actor_id)
        return found

    def find(self, actor_id: str) -> StoredActor | None:
        """As `get`; None where there is no actor of this id."""
        with self._database.reading() as session:
            row = _row(session, actor_id)
            if row is None:
                return None
            refs = artefacts_of(session, actor_id)
            consent = consent_of(row, self._database.where)
            enrolled = enrolled_of(self._artefacts, refs, actor_id)
            return StoredActor(actor_id, row.method, consent, row.footage_sha256, row.created_at, enrolled, refs)

    def show(self, actor_id: str) -> ActorSummary:
        """What is shown of an actor, damaged or not; what was learned of them is read.

        Raises:
            ActorNotReady: there is none of this id.
        """
        with self._database.reading() as session:
            row = _row(session, actor_id)
            if row is None:
                raise ActorNotReady(f"no actor {actor_id!r} is enrolled: `dubstage actor create`", subject=actor_id)
            return summary_of(session, row, self._artefacts, self._database.where, read_blob=True)

    def list(self, *, after: str = "", limit: int = 100) -> list[ActorSummary]:
        """Actors in the order of their ids, those behind `after`, at most `limit`. What was learned of them is not read."""
        after = after.replace("\0", "")
        with self._database.reading() as session:
            rows = session.scalars(select(ActorRow).where(ActorRow.actor_id > after).order_by(ActorRow.actor_id).limit(limit))
            return [summary_of(session, row, self._artefacts, self._database.where, read_blob=False) for row in rows.all()]

    def erase(self, actor_id: str) -> ErasureReceipt:
        """Erase an actor and everything made from their footage: artefacts, journalled windows, job folders, operations.

        Only for the process that holds the database, or where no gateway runs: see `Erasures.erase_or_ask`.

        Raises:
            ActorNotReady: there is none of this id.
        """
        if not _NAME.fullmatch(actor_id):
            raise not_enrolled(actor_id)
        return self.erasures.erase(actor_id)


def _row(session: Session, actor_id: str) -> ActorRow | None:
    # Not every text can be asked for: PostgreSQL's has no NUL.
    return session.get(ActorRow, actor_id) if _NAME.fullmatch(actor_id) else None
