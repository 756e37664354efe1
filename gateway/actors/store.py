"""The enrolled people: create, read, list and erase actors.

Only the rows of one database say which blobs of a store are in use: a second database would delete what the first one counts. So a
store carries the id of its database, and every other database is refused when it is opened with that store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import URL
from sqlalchemy.exc import IntegrityError

from gateway.actors.consents import Consents
from gateway.actors.job_blobs import JobBlobs, check_enrolment
from gateway.actors.stored import (
    ENROLMENT,
    PICTURE,
    ActorSummary,
    StoredActor,
    add_actor,
    already_enrolled,
    artefacts_of,
    check_actor_id,
    consent_of,
    created_by,
    enrolled_of,
    lineage_of,
    not_enrolled,
    row_of,
    rows_after,
    summaries_of,
)
from gateway.audit.log import AuditLog
from gateway.consent.record import Consent
from gateway.database.session import Database
from gateway.private_files import data_folder
from gateway.settings import GatewaySettings
from gateway.times import now
from services.common.errors import ArtefactNotFoundError, BackendUnavailableError, StorageRefusedError
from services.common.server.call_context import DEFAULT_TENANT
from services.common.store.artefacts import ArtefactRef, ArtefactStore

if TYPE_CHECKING:
    from gateway.actors.erasure import Erasures
    from gateway.dub.learn.enrol import EnrolledActor

_TRIES: Final = 5
"""Most looks at a store that another process marks at the same time."""

MOST_PICTURE_BYTES: Final = 1 << 20
"""Largest picture of an actor that is read, bytes."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Owner of a store: the one database that counts the blobs of the store.

    Attributes:
        database: id of the database.
        where: URL of the database without its user and password, for people.
        since: time when the database became the owner, RFC 3339, UTC.
    """

    database: str
    where: str
    since: str


def claim_store(artefacts: ArtefactStore, database: Database) -> None:
    """Make a database the owner of a store that has none, or check that the database is the owner.

    Raises:
        StorageRefusedError: another database is the owner, or the store cannot be used.
        BackendUnavailableError: the store does not answer.
    """
    for _ in range(_TRIES):
        if check_owner(artefacts, database) or artefacts.set_owner(_mark(database)):
            return
    raise BackendUnavailableError(
        f"the artefact store {artefacts.url} does not keep {artefacts.owner_url}: see the log of the store"
    )


def check_owner(artefacts: ArtefactStore, database: Database) -> bool:
    """Return whether a database is the owner of a store. False: the store has no owner yet.

    Raises:
        StorageRefusedError: another database is the owner, or the store cannot be used.
        BackendUnavailableError: the store does not answer.
    """
    owner = owner_of(artefacts)
    if owner is not None and owner.database != database.id:
        raise _refused(artefacts, database, owner)
    return owner is not None


def take_store(artefacts: ArtefactStore, database: Database, previous: str) -> None:
    """Make a restored database the owner of the store of its backup. The previous owner is refused from now on.

    Args:
        artefacts: the store.
        database: the restored database.
        previous: id of the database that the backup was written from.

    Raises:
        StorageRefusedError: a database that is neither of the two is the owner, or the store cannot be used.
        BackendUnavailableError: the store does not answer.
    """
    owner = owner_of(artefacts)
    if owner is None or owner.database != previous:
        claim_store(artefacts, database)
    else:
        artefacts.set_owner(_mark(database), replace=True)


def owner_of(artefacts: ArtefactStore) -> Owner | None:
    """Return the owner of a store; None: the store has no owner yet.

    Raises:
        StorageRefusedError: the object that names the owner is damaged, or the store cannot be used.
        BackendUnavailableError: the store does not answer.
    """
    content = artefacts.owner()
    if content is None:
        return None
    try:
        return TypeAdapter(Owner).validate_json(content)
    except ValidationError:
        raise StorageRefusedError(
            f"{artefacts.owner_url} is damaged: it names the database that counts the blobs. If no other database than yours "
            "uses the store, remove that file and try again",
            subject=artefacts.url,
        ) from None


def _mark(database: Database) -> bytes:
    url = database.engine.url
    where = URL.create(url.drivername, host=url.host, port=url.port, database=url.database).render_as_string()
    return f"{json.dumps(asdict(Owner(database.id, where, now())), indent=1)}\n".encode()


def _refused(artefacts: ArtefactStore, database: Database, owner: Owner) -> StorageRefusedError:
    # Callers of a gateway see the errors of their own tenant's store, and need not know other databases.
    named = f" ({owner.where}, since {owner.since})" if database.tenant == DEFAULT_TENANT else ""
    return StorageRefusedError(
        f"the artefact store {artefacts.url} belongs to another database{named}, and {database.where} would delete what that "
        "database counts: work with that database (DUBSTAGE_DATA_DIR or DUBSTAGE_DATABASE_URL), or give this one a store of its "
        f"own (DUBSTAGE_ARTEFACTS_URL). If the other database is gone for good, remove {artefacts.owner_url} and try again",
        subject=artefacts.url,
    )


class ActorStore:
    """The actors of an installation. All methods block.

    Attributes:
        jobs: jobs that have begun, and the blobs that the jobs count.
        consents: rules of consent, and withdrawals.
        audit: the audit log.
        data_dir: the data folder.

    Args:
        settings: data folder, database URL and artefact store.
        beside: store of another tenant, whose connections to the database this store uses; None: it has its own.
        claim_artefacts: make the database the owner of the artefact store, or check that it is (`claim_store`). False: the caller
            counts and deletes no blobs, and needs no artefact store that answers.

    Raises:
        StorageRefusedError: the data folder, the database or the artefact store cannot be used, the database is damaged, or the
            artefact store belongs to another database.
        BackendUnavailableError: the database or the artefact store does not answer.
    """

    def __init__(self, settings: GatewaySettings, *, beside: ActorStore | None = None, claim_artefacts: bool = True) -> None:
        data_folder(settings.data_dir)
        self.data_dir = settings.data_dir
        shared = beside.database if beside is not None else None
        self._artefacts = ArtefactStore(settings.artefacts_url)
        self._artefacts.make_folder()
        self._database = Database(
            settings.database_url,
            settings.data_dir,
            tenant=settings.tenant,
            beside=shared,
            connections=settings.database_connections,
        )
        if claim_artefacts:
            try:
                claim_store(self._artefacts, self._database)
            except BaseException:
                self._database.close()
                raise
        self.jobs = JobBlobs(self._database, self._artefacts)
        self.consents = Consents(self._database, settings)
        self.audit = AuditLog(self._database)
        self._signing_key_file = settings.signing_key_file

    @property
    def database(self) -> Database:
        """Database of the actors. Operations are stored in the same database."""
        return self._database

    @cached_property
    def erasures(self) -> Erasures:
        """Erasures of actors."""
        # Imported here: an erasure looks through the folders of dubs, whose modules a command that lists actors does not need.
        from gateway.actors.erasure import Erasures

        return Erasures(self._database, self._artefacts, self.data_dir, self._signing_key_file)

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
        operation: str = "",
        folder: Path | None = None,
    ) -> StoredActor:
        """Store an actor, and return the actor as `get` would.

        An erasure or a withdrawal in any process either comes first, and the actor is refused, or finds the actor.

        Args:
            actor_id: id of the new actor.
            method: method that the person is enrolled for.
            enrolled: what the enrolment learned.
            footage_sha256: SHA-256 of the footage, hexadecimal.
            consent: consent record of the person; None: there is none.
            more: further blobs of the actor, by kind.
            superseded: all blobs that the enrolment made. Those that the actor does not use are counted too, so that an erasure
                deletes them.
            operation: name of the operation that enrols the person; empty: none.
            folder: folder of the enrolment's job, which an erasure ends; None: there is no job.

        Raises:
            ActorError: the person was erased meanwhile, or is being erased now.
            ConsentWithdrawnError, ConsentNotYetValidError, ConsentExpiredError: the consent does not hold any more.
            InvalidRequestError: the id is taken or not allowed.
        """
        check_actor_id(actor_id)
        artefacts = lineage_of(self._artefacts, enrolled, more or {}, superseded)
        actor = StoredActor(actor_id, method, consent, footage_sha256, now(), enrolled, artefacts)
        try:
            with self._database.writing() as session:
                if folder is not None:
                    check_enrolment(session, folder, actor_id)
                self._database.one_by_one(session)
                self._database.count_blobs(session, {ref.sha256 for ref in artefacts.values()})
                self.consents.check_within(session, [consent], subject=actor_id)
                add_actor(session, actor)
                self.audit.append(session, created_by(actor, operation), continues=operation)
        except BaseException as problem:
            self.jobs.delete_unused([artefacts[ENROLMENT]])
            if not isinstance(problem, IntegrityError):
                raise
            raise already_enrolled(actor_id) from None
        if not self._artefacts.exists(artefacts[ENROLMENT]):
            # Another enrolment of the same footage was refused before this one was counted, and deleted the same blob.
            lineage_of(self._artefacts, enrolled, more or {}, superseded)
        return actor

    def check_free(self, actor_id: str) -> None:
        """Check an id before work is spent on an enrolment.

        Raises:
            InvalidRequestError: the id is taken or not allowed.
        """
        check_actor_id(actor_id)
        with self._database.reading() as session:
            if row_of(session, actor_id) is not None:
                raise already_enrolled(actor_id)

    def get(self, actor_id: str) -> StoredActor:
        """Return an actor.

        Raises:
            ActorError: there is no actor of this id.
            ArtefactCorruptError, ArtefactNotFoundError: the artefact store lost what was learned of the actor, or the actor's rows
                are damaged.
        """
        actor = self.find(actor_id)
        if actor is None:
            raise not_enrolled(actor_id)
        return actor

    def find(self, actor_id: str) -> StoredActor | None:
        """Return an actor as `get` does; None: there is no actor of this id."""
        with self._database.reading() as session:
            row = row_of(session, actor_id)
            if row is None:
                return None
            refs = artefacts_of(session, actor_id)
            consent = consent_of(row, self._database.where)
            enrolled = enrolled_of(self._artefacts, refs, actor_id)
            return StoredActor(actor_id, row.method, consent, row.footage_sha256, row.created_at, enrolled, refs)

    def show(self, actor_id: str) -> ActorSummary:
        """Return what is shown of an actor, damaged or not. What was learned of the actor is read, to see whether it can be used.

        Raises:
            ActorError: there is no actor of this id.
        """
        with self._database.reading() as session:
            row = row_of(session, actor_id)
            if row is None:
                raise not_enrolled(actor_id)
            summaries = summaries_of(session, [row], self._artefacts, self._database.where, read_blob=True)
        return self._with_problems(summaries)[0]

    def picture(self, actor_id: str) -> bytes:
        """Return the small picture of an actor, JPEG.

        Raises:
            ActorError: there is no actor of this id.
            ConsentRefusedError: the consent does not hold any more: the person may not be shown.
            ArtefactNotFoundError: the actor has no picture, or the blob is gone.
            ArtefactCorruptError: the blob is damaged.
        """
        with self._database.reading() as session:
            if row_of(session, actor_id) is None:
                raise not_enrolled(actor_id)
            self.consents.check_within(session, [], actor_id=actor_id)
            ref = artefacts_of(session, actor_id).get(PICTURE)
        if ref is None:
            raise ArtefactNotFoundError(f"actor {actor_id} has no picture", resource=actor_id)
        return self._artefacts.get_bytes(ref, max_bytes=MOST_PICTURE_BYTES)

    def list(self, *, after: str = "", limit: int = 100) -> Sequence[ActorSummary]:
        """Return at most `limit` actors in the order of their ids, beginning behind the id `after`.

        What was learned of the actors is not read.
        """
        with self._database.reading() as session:
            rows = rows_after(session, after, limit)
            actors = summaries_of(session, rows, self._artefacts, self._database.where, read_blob=False)
        return self._with_problems(actors)

    def _with_problems(self, actors: Sequence[ActorSummary]) -> Sequence[ActorSummary]:
        problems = self.consents.problems([actor.consent for actor in actors])
        return [replace(actor, consent_problem=problem) for actor, problem in zip(actors, problems, strict=True)]
