"""A store that has served for years, and the work that one dub and one look at a list give the database."""

from pathlib import Path

from sqlalchemy import Engine, LargeBinary, bindparam, text

from gateway.actors.store import ActorStore
from gateway.consent.record import Consent, ConsentUse
from gateway.database.session import Database
from gateway.dub.learn.enrol import EnrolledActor
from gateway.operations.leases import OperationQueue
from gateway.operations.store import OperationStore
from services.common.store.artefacts import ArtefactStore

ANN = "ann"
BLOBS_OF_AN_ACTOR = 8
_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) "
_HEX = "substr('00000000000000000000000000000000', 1, 32 - length(CAST(i AS VARCHAR))) || CAST(i AS VARCHAR)"


def fill(database: Database, *, actors: int, operations: int) -> None:
    """Add actors, each with BLOBS_OF_AN_ACTOR blobs, and finished operations, each of one of the actors."""
    text_of = {
        "actors": "INSERT INTO actors (actor_id, method, consent, footage_sha256, created_at, enrolment_sha256, consent_sha256) "
        + _NUMBERS
        + "SELECT "
        f"'p' || CAST(i AS VARCHAR), 'ugc', NULL, {_HEX}, '2026-01-01T00:00:00+00:00', {_HEX}, '' FROM n",
        "enrolments": "INSERT INTO enrolments (actor_id, num_frames, lag_frames) "
        + _NUMBERS
        + "SELECT 'p' || CAST(i AS VARCHAR), 100, 0 FROM n",
        "lineage": "INSERT INTO lineage (actor_id, sha256, kind, uri, size_bytes) "
        + _NUMBERS
        + f"SELECT 'p' || CAST(i AS VARCHAR), "
        f"CAST(b AS VARCHAR) || {_HEX}, 'kind' || CAST(b AS VARCHAR), 'file:///blob', 1000 FROM n, "
        f"({' UNION ALL '.join(f'SELECT {blob} AS b' for blob in range(BLOBS_OF_AN_ACTOR))}) AS blobs",
    }
    finished = (
        "INSERT INTO operations (name, kind, actor_id, output, created_at, request, done, metadata_bytes, response) "
        + _NUMBERS
        + f"SELECT 'operations/' || {_HEX}, 'dub', 'p' || CAST(i % :actors AS VARCHAR), '/videos/' || CAST(i AS VARCHAR), "
        "'2026-06-01T00:00:00+00:00', :blob, i > 0, :blob, :blob FROM n"
    )
    with database.writing() as session:
        for statement in text_of.values():
            session.execute(text(statement), {"count": actors})
        insert = text(finished).bindparams(bindparam("blob", b"\0" * 300, LargeBinary))
        session.execute(insert, {"count": operations, "actors": actors})


def enrol(actors: ActorStore, blobs: ArtefactStore, enrolled: EnrolledActor, consent: Consent) -> None:
    """Enrol the person whom `dub` dubs."""
    actors.create(ANN, method="dubstage", enrolled=enrolled, footage_sha256="0" * 64, consent=consent)
    assert blobs.url


class Dubs:
    """Work of dubs in the database.

    Args:
        actors: store of actors, in which ANN is enrolled.
    """

    def __init__(self, actors: ActorStore, blobs: ArtefactStore) -> None:
        self._actors = actors
        self._window = blobs.put_bytes(b"a window")
        self._store = OperationStore(actors.database, kinds=("dub", "actor"))
        self._queue = OperationQueue(actors.database, kinds=("dub", "actor"))

    def dub(self, folder: Path) -> None:
        """Do what the database does for one dub of the gateway, from CreateDub to the end of the operation."""
        actors, queue = self._actors, self._queue
        actor = actors.get(ANN)
        actors.consents.check(actor.consent, ConsentUse(), ANN)
        submitted = queue.submit("dub", b"request", actor_id=ANN, output="/videos/new", busy=(), free=1, most_waiting=4)
        number = submitted.record.number
        queue.take(1, busy={number})
        actors.jobs.begin(folder, actor_id=ANN, belongs_to=submitted.record.name)
        actors.jobs.check(folder, ANN)
        actors.consents.check_lasting([actor.consent], actor_id=ANN)
        queue.renew({number}, {number: b"progress"})
        actors.jobs.hold(folder, self._window, actor_ids=[ANN])
        actors.jobs.only_of(folder, [self._window])
        actors.jobs.uncounted(actors.jobs.release(folder))
        actors.jobs.folders_of(submitted.record.name)
        self._store.finish(submitted.record, owner=queue.owner)
        self._store.get(submitted.record.name)
        self._store.is_written(("/videos/new",))

    def lists(self) -> None:
        """Show a page of the actors, and pages of the operations, in the middle of all."""
        self._actors.list(after="p5", limit=100)
        self._store.list(after=50, limit=100)
        self._store.list(after=50, limit=100, done=True)
        self._store.list(limit=100, done=False)
        self._actors.erasures.open()


def analyse(engine: Engine) -> None:
    """Let PostgreSQL look at how its tables are filled, as it does by itself within minutes. SQLite never does."""
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.execute(text("ANALYZE"))
