"""Create, read, list and erase actors. SQLite beside the data by default, PostgreSQL by url."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from gateway.actors.database import ActorRow, Database, JobBlobRow, JobRow, LineageRow
from gateway.consent import Consent
from gateway.pipeline.enrol import EnrolledActor
from gateway.pipeline.enrolment_artefact import actor_arrays, actor_from_arrays, actor_refs
from gateway.pipeline.journal import Journal
from gateway.pipeline.messages import ref_from
from gateway.settings import GatewaySettings
from services.common.artefacts import ArtefactRef, ArtefactStore
from services.common.errors import ActorNotReady, InvalidRequest

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class StoredActor:
    """An actor of the store, with everything that was learned of them.

    Attributes:
        actor_id: chosen by whoever enrolled them.
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


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """What was erased, signed (HMAC-SHA256 over the other fields' JSON) with a key that never leaves the installation."""

    actor_id: str
    erased_sha256: tuple[str, ...]
    kept_sha256: tuple[str, ...]
    erased_at: str
    signature: str


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

    Args:
        settings: data folder, database url and artefact store.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self._database = Database(settings.database_url, settings.data_dir)
        self._artefacts = ArtefactStore(settings.artefacts_url)
        self._key_file = settings.data_dir / "receipt.key"

    @property
    def database(self) -> Database:
        """That the actors are in; operations go there too."""
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
        artefacts = {"enrolment": enrolment, **refs, **(more or {})}
        known = {ref.sha256 for ref in artefacts.values()}
        others = {ref.sha256: ref for ref in superseded if ref.sha256 not in known}
        artefacts.update({f"superseded {number}": ref for number, ref in enumerate(others.values())})
        now = _now()
        try:
            with self._database.writing() as session:
                session.add(
                    ActorRow(
                        actor_id=actor_id,
                        method=method,
                        consent=json.loads(consent.model_dump_json()) if consent is not None else None,
                        footage_sha256=footage_sha256,
                        created_at=now,
                        enrolment_sha256=enrolment.sha256,
                    )
                )
                session.flush()
                session.add_all(
                    LineageRow(actor_id=actor_id, sha256=ref.sha256, kind=kind, uri=ref.uri, size_bytes=ref.size_bytes)
                    for kind, ref in artefacts.items()
                )
        except IntegrityError:
            raise InvalidRequest(
                f"there is an actor {actor_id!r} already: erase it first, or choose another id", field="actor_id"
            ) from None
        return StoredActor(actor_id, method, consent, footage_sha256, now, enrolled, artefacts)

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
            ArtefactCorrupt, ArtefactNotFound: the store lost what was learned of them.
        """
        with self._database.reading() as session:
            row = _row(session, actor_id)
            if row is None:
                raise ActorNotReady(f"no actor {actor_id!r} is enrolled: `dubstage actor create`", subject=actor_id)
            return self._stored(session, row)

    def list(self, *, after: str = "", limit: int = 100) -> list[StoredActor]:
        """Actors in the order of their ids, those behind `after`, at most `limit`."""
        after = after.replace("\0", "")
        with self._database.reading() as session:
            rows = session.scalars(select(ActorRow).where(ActorRow.actor_id > after).order_by(ActorRow.actor_id).limit(limit))
            return [self._stored(session, row) for row in rows]

    def find(self, actor_id: str) -> StoredActor | None:
        """An actor, or None where there is none of this id."""
        with self._database.reading() as session:
            row = _row(session, actor_id)
            return self._stored(session, row) if row is not None else None

    def note_job(self, actor_id: str, folder: Path) -> None:
        """Remember that a job folder holds work made with an actor.

        Raises:
            ActorNotReady: the actor was erased.
        """
        try:
            with self._database.writing() as session:
                session.merge(JobRow(actor_id=actor_id, folder=str(folder)))
        except IntegrityError:
            raise ActorNotReady(f"no actor {actor_id!r} is enrolled", subject=actor_id) from None

    def hold(self, folder: Path, ref: ArtefactRef) -> None:
        """Count a blob for a job."""
        with self._database.writing() as session:
            session.merge(JobBlobRow(folder=str(folder), sha256=ref.sha256, uri=ref.uri, size_bytes=ref.size_bytes))

    def release(self, folder: Path) -> Sequence[ArtefactRef]:
        """Forget a job; returns the blobs that were counted for it."""
        with self._database.writing() as session:
            mine = session.scalars(select(JobBlobRow).where(JobBlobRow.folder == str(folder)))
            refs = [ArtefactRef(blob.uri, blob.sha256, blob.size_bytes) for blob in mine]
            session.execute(delete(JobBlobRow).where(JobBlobRow.folder == str(folder)))
            session.execute(delete(JobRow).where(JobRow.folder == str(folder)))
        return refs

    def uncounted(self, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        """Those of some blobs that no actor and no job counts."""
        with self._database.reading() as session:
            counted = _counted(session, {ref.sha256 for ref in refs})
        return [ref for ref in refs if ref.sha256 not in counted]

    def erase(self, actor_id: str) -> ErasureReceipt:
        """Erase an actor and everything made from their footage: artefacts, journalled windows, job folders.

        A blob that another actor's lineage counts is kept for that one.

        Raises:
            ActorNotReady: there is none of this id.
        """
        with self._database.writing() as session:
            row = _row(session, actor_id)
            if row is None:
                raise ActorNotReady(f"no actor {actor_id!r} is enrolled", subject=actor_id)
            mine = list(session.scalars(select(LineageRow).where(LineageRow.actor_id == actor_id)))
            folders = [Path(name) for name in session.scalars(select(JobRow.folder).where(JobRow.actor_id == actor_id))]
            refs = [ArtefactRef(blob.uri, blob.sha256, blob.size_bytes) for blob in mine]
            journalled = [
                ref for folder in folders if folder.is_dir() for ref in Journal(folder / "journal", self._artefacts).refs()
            ]
            for table in (LineageRow, JobRow):
                session.execute(delete(table).where(table.actor_id == actor_id))
            session.execute(delete(JobBlobRow).where(JobBlobRow.folder.in_([str(folder) for folder in folders])))
            session.delete(row)
            session.flush()
            everything = (*refs, *journalled)
            kept = _counted(session, {ref.sha256 for ref in everything})
            for ref in everything:
                if ref.sha256 not in kept:
                    self._artefacts.delete(ref)
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
        return self._signed(actor_id, {ref.sha256 for ref in everything} - kept, kept)

    def _stored(self, session: Session, row: ActorRow) -> StoredActor:
        blobs = session.scalars(select(LineageRow).where(LineageRow.actor_id == row.actor_id))
        artefacts = {blob.kind: ArtefactRef(blob.uri, blob.sha256, blob.size_bytes) for blob in blobs}
        enrolled = actor_from_arrays(self._artefacts.get_arrays(artefacts["enrolment"]))
        consent = Consent.model_validate(row.consent) if row.consent is not None else None
        return StoredActor(row.actor_id, row.method, consent, row.footage_sha256, row.created_at, enrolled, artefacts)

    def _signed(self, actor_id: str, erased: AbstractSet[str], kept: AbstractSet[str]) -> ErasureReceipt:
        body = {"actor_id": actor_id, "erased_sha256": sorted(erased), "kept_sha256": sorted(kept), "erased_at": _now()}
        text = json.dumps(body, sort_keys=True).encode()
        signature = hmac.new(self._key(), text, hashlib.sha256).hexdigest()
        return ErasureReceipt(actor_id, tuple(sorted(erased)), tuple(sorted(kept)), str(body["erased_at"]), signature)

    def _key(self) -> bytes:
        if not self._key_file.exists():
            self._key_file.touch(mode=0o600)
            self._key_file.write_bytes(secrets.token_bytes(32))
        return self._key_file.read_bytes()


def _row(session: Session, actor_id: str) -> ActorRow | None:
    # Not every text can be asked for: PostgreSQL's has no NUL.
    return session.get(ActorRow, actor_id) if _NAME.fullmatch(actor_id) else None


def _counted(session: Session, digests: AbstractSet[str]) -> set[str]:
    """Those of some digests that an actor or a job counts."""
    found: set[str] = set()
    wanted = sorted(digests)
    for begin in range(0, len(wanted), 500):  # databases bound the length of a list
        part = wanted[begin : begin + 500]
        for table in (LineageRow, JobBlobRow):
            found.update(session.scalars(select(table.sha256).where(table.sha256.in_(part))))
    return found


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat()
