"""Actors and operations in a real PostgreSQL; what SQLite must do as well is asked of both."""

import asyncio
import datetime
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.api.server import GatewayServer
from gateway.database.session import Database
from gateway.database.tables import ActorRow, JobRow
from gateway.dub.state.journal import Journal
from gateway.dub.state.workspace import Workspace
from gateway.housekeeping import open_jobs_folder, remove_unknown
from gateway.operations.execution import BegunOperation
from gateway.operations.runner import OperationRunner
from gateway.operations.store import OperationRecord, OperationStore, expire_operations
from gateway.settings import GatewaySettings
from gateway.webhooks.store import EventType, WebhookStore
from services.common.errors import (
    ActorError,
    BackendUnavailableError,
    InvalidRequestError,
    OperationNotFoundError,
    StorageRefusedError,
)
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactStore
from tests.contract.ports import free_port
from tests.contract.stores.people import keep
from tests.contract.stores.postgres_servers import PASSWORD, PostgresServer
from tests.contract.stores.programs import begun, said_by
from tests.erasing import erase
from tests.operations import submitted
from tests.refusals import raised
from tests.unit.actors.installation import CONSENT, on_disk


@pytest.fixture
def operations(actors: ActorStore) -> OperationStore:
    return OperationStore(actors.database)


# Both databases


def test_an_actor_is_read_as_it_was_kept(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> None:
    keep(actors, blobs, geometry, "ann")
    found = actors.get("ann")
    assert found.consent == CONSENT
    assert set(found.artefacts) == {"enrolment", "style", "bank", "renderer"}
    assert found.created_at.endswith("+00:00")
    assert abs(time.time() - datetime.datetime.fromisoformat(found.created_at).timestamp()) < 120


def test_actors_come_in_the_order_of_their_characters(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> None:
    names = ["a-b", "a0", "aa", "ab", "b-a"]
    for name in reversed(names):
        keep(actors, blobs, geometry, name)
    assert [actor.actor_id for actor in actors.list()] == names
    assert [actor.actor_id for actor in actors.list(after="a0", limit=2)] == ["aa", "ab"]


def test_concurrent_ids_are_unique(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> None:
    """An id is used once even by many at once."""

    def attempt(_: int) -> bool:
        try:
            keep(actors, blobs, geometry, "ann")
        except InvalidRequestError:
            return False
        return True

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(attempt, range(12))) == 1
    assert len(actors.list()) == 1


def test_a_transaction_that_fails_leaves_nothing(actors: ActorStore) -> None:
    def fail() -> None:
        with actors.database.writing() as session:
            nothing = dict.fromkeys(("footage_sha256", "created_at", "enrolment_sha256", "consent_sha256"), "")
            session.add(ActorRow(actor_id="ann", method="dubstage", **nothing))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with actors.database.reading() as session:
        assert session.scalars(select(ActorRow)).all() == []


def test_unknown_actor_refused_by_database(actors: ActorStore, tmp_path: Path) -> None:
    with pytest.raises(ActorError):
        JobLedger(actors, ["nobody"]).begin(tmp_path / "job")
    with pytest.raises(IntegrityError), actors.database.writing() as session:
        session.add(JobRow(actor_id="nobody", folder="x"))


def test_erasing_removes_every_blob_job_and_row(actors, blobs, geometry, settings, tmp_path) -> None:
    keep(actors, blobs, geometry, "ann")
    job = tmp_path / "data" / "jobs" / "1"
    Journal(job / "journal", blobs).record("window", {"box": np.zeros(4, np.uint8)})
    actors.jobs.begin(job, actor_id="ann")
    held = {path.rpartition("/")[2] for path in on_disk(settings)}
    receipt = erase(actors, "ann")
    assert set(receipt.erased_sha256) - set(receipt.document["erased"]["job file"]) == held
    assert on_disk(settings) == set()
    assert not job.exists()
    with pytest.raises(ActorError):
        actors.get("ann")
    keep(actors, blobs, geometry, "ann")


@pytest.mark.parametrize("text", ["\0", "ann\0", "ä" * 100, "operations/\0", "'; DROP TABLE actors; --"])
def test_impossible_name_is_not_found(actors: ActorStore, operations: OperationStore, text: str) -> None:
    """A name that no database could hold is just not there."""
    for use in (actors.get, actors.erasures.ask):
        with pytest.raises(ActorError):
            use(text)
    assert actors.find(text) is None
    assert actors.list(after=text) == []
    with pytest.raises(OperationNotFoundError):
        operations.get(text)


def test_impossible_event_is_not_found(actors: ActorStore) -> None:
    """An id that no database could hold is that of no event."""
    hooks = WebhookStore(actors.database)
    made, _ = hooks.create("https://example.org/", [EventType.BATCH_DONE])
    with pytest.raises(InvalidRequestError, match="is no delivery"):
        hooks.replay(made.webhook_id, ["msg_\0"])


def test_concurrent_writers_keep_order(operations: OperationStore) -> None:
    """Operations keep their order and bytes under many writers."""
    payload = bytes(range(256))

    def submit(number: int) -> OperationRecord:
        output = f"/ü/dub-{number}.mp4"
        return submitted(operations.database, "dub", payload, actor_id=f"a{number % 3}", output=output)

    with ThreadPoolExecutor(6) as threads:
        records = list(threads.map(submit, range(30)))
        list(threads.map(operations.finish, records[::2]))
    assert sorted(record.number for record in records) == [record.number for record in operations.list(limit=100)]
    assert len(operations.list(done=False)) == 15
    assert {record.request for record in operations.list()} == {payload}
    operations.forget_actor("a0")
    assert len(operations.list()) == 20


def test_the_oldest_of_too_many_ended_operations_go(actors: ActorStore) -> None:
    operations = OperationStore(actors.database)
    records = [submitted(operations.database, "work", b"") for _ in range(4)]
    for record in records[:3]:
        operations.finish(record)
    assert expire_operations(actors.database, max_age_days=1, max_finished=2) == 1
    assert [record.name for record in operations.list()] == [record.name for record in records[1:]]


def test_job_ended_elsewhere_leaves_disk(actors: ActorStore, blobs: ArtefactStore, settings: GatewaySettings) -> None:
    """A job that another gateway ended or erased goes from this disk."""
    jobs = open_jobs_folder(settings.data_dir)
    known, unknown, running = (jobs / f"{number:032x}" for number in range(3))
    for folder in (known, unknown, running):
        with Workspace(folder):
            Journal(folder / "journal", blobs).record("window", {"box": np.full(4, int(folder.name, 16), np.uint8)})
    # Another gateway, whose data folder has another path, goes on with the job.
    actors.jobs.begin(Path("/another/disk/jobs") / known.name)
    with Workspace(running):
        remove_unknown(actors, blobs, jobs)
    # With SQLite no other gateway has ended a job of this disk.
    left = {known, running} if actors.database.shared else {known, unknown, running}
    assert {folder for folder in jobs.iterdir() if folder.is_dir()} == left


def test_rows_persist_across_processes(settings: GatewaySettings, operations: OperationStore) -> None:
    name = submitted(operations.database, "dub", b"request").name
    with ActorStore(settings) as again:
        assert OperationStore(again.database).get(name).request == b"request"


# PostgreSQL alone


def test_store_name_hides_password(postgres_url: str, tmp_path: Path, postgres: PostgresServer) -> None:
    """The store names its database without user and password."""
    places = {"artefacts_url": str(tmp_path / "artefacts")}
    with ActorStore(GatewaySettings(data_dir=tmp_path / "data", database_url=postgres_url, **places)):
        pass
    with pytest.raises(StorageRefusedError) as caught:
        ActorStore(GatewaySettings(data_dir=tmp_path / "data", **places))
    said = caught.value.message
    assert f"(postgresql+psycopg://127.0.0.1:{postgres.port}/test_" in said
    assert "postgres:" not in said
    assert "a-secret" not in said


def test_concurrent_starts_create_tables_once(postgres_url: str, tmp_path: Path) -> None:
    """Many processes that begin at the same time create the tables once."""
    script = f"""
from pathlib import Path
from gateway.database.session import Database
from tests.operations import submitted
database = Database({postgres_url!r}, Path({str(tmp_path)!r}))
print(submitted(database, "dub", b"").number)
"""
    running = [begun(script) for _ in range(3)]
    assert sorted(int(process.communicate(timeout=120)[0]) for process in running) == [1, 2, 3]


def test_a_restarted_server_is_not_noticed(postgres: PostgresServer, postgres_url: str, tmp_path: Path) -> None:
    database = Database(postgres_url, tmp_path)
    operations = OperationStore(database)
    names = [submitted(operations.database, "dub", b"").name for _ in range(3)]
    postgres.restart()
    assert [operations.get(name).name for name in names] == names
    database.close()


async def test_end_written_after_server_outage(postgres: PostgresServer, postgres_url: str, tmp_path: Path) -> None:
    """An operation that ends while the server is away is written when it is back."""
    away, may_end = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Watched(OperationStore):
        def finish(self, record: OperationRecord, *, owner: str = "") -> OperationRecord:
            try:
                return super().finish(record, owner=owner)
            except BackendUnavailableError as problem:
                loop.call_soon_threadsafe(away.set)
                problem.retry_after_s = 0.2
                raise

    database = Database(postgres_url, tmp_path)
    operations = Watched(database)

    async def work(operation: BegunOperation) -> bytes:
        await may_end.wait()
        return b"video"

    jobs = OperationRunner(operations, {"dub": work}, max_concurrent=1, max_queued=1)
    name = (await jobs.submit("dub", b"")).name
    await asyncio.to_thread(postgres.stop)
    try:
        may_end.set()
        await asyncio.wait_for(away.wait(), 60)
        with pytest.raises(BackendUnavailableError, match="does not answer"):
            await asyncio.to_thread(operations.list)
    finally:
        await asyncio.to_thread(postgres.start)
    assert (await jobs.wait(name, 60)).response == b"video"
    assert operations.get(name).done
    await jobs.close()
    database.close()


def test_several_gateways_one_erasure_alone(postgres_url: str, tmp_path: Path) -> None:
    """Several gateways share a database and a folder and an erasure without a gateway has it alone."""

    def gateway(folder: str) -> GatewayServer:
        shared = {"database_url": postgres_url, "artefacts_url": str(tmp_path / "b")}
        return GatewayServer(GatewaySettings(port=0, data_dir=tmp_path / folder, drain_grace_s=0, **shared))

    async def scene() -> None:
        running = [gateway("one"), gateway("one"), gateway("two")]
        database = Database(postgres_url, tmp_path)
        assert not database.try_claim()
        with pytest.raises(InvalidRequestError, match="end every gateway first"):
            database.claim(alone=True)
        for one in running:
            await one.drain(grace_s=0)
        # The server notices somewhat later that a connection was closed, and only then frees its locks.
        async with asyncio.timeout(60):
            while not database.try_claim():  # noqa: ASYNC110 - the lock is the server's
                await asyncio.sleep(0.02)
        said = "`dubstage actor erase` works with the database"
        with raised(InvalidRequestError, match=said, field="DUBSTAGE_DATABASE_URL") as caught:
            gateway("two")
        assert PASSWORD not in caught.value.message
        database.close()
        # Neither the database nor the folder of the refused one is still held.
        await begun_soon("two")

    async def begun_soon(folder: str) -> None:
        async with asyncio.timeout(60):
            while True:
                with suppress(InvalidRequestError):
                    await gateway(folder).drain(grace_s=0)
                    return
                await asyncio.sleep(0.02)

    asyncio.run(scene())


def test_wrong_log_ins_are_told_without_the_password(postgres: PostgresServer, postgres_url: str, tmp_path: Path) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres.execute("DROP ROLE IF EXISTS guest")
    postgres.execute(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
    wrong = {
        "password authentication failed": postgres.url(name, password="wrong:" + PASSWORD),
        "nobody": postgres.url(name, user="nobody"),
        "no_such_database": postgres.url("no_such_database"),
        "permission denied": postgres.url(name, user="guest"),
    }
    for said, url in wrong.items():
        with pytest.raises(StorageRefusedError, match="DUBSTAGE_DATABASE_URL") as caught:
            Database(url, tmp_path)
        assert said in caught.value.message
        assert PASSWORD not in caught.value.message
        assert "wrong:" not in caught.value.message


def test_threads_wait_for_the_only_connection(postgres_url: str, tmp_path: Path) -> None:
    """One connection is enough for many threads, and the claim has a connection of its own."""
    with closing(Database(postgres_url, tmp_path, connections=1)) as database:
        database.claim()
        operations = OperationStore(database)
        with ThreadPoolExecutor(8) as threads:
            added = list(threads.map(lambda _: submitted(operations.database, "dub", b"").number, range(40)))
        assert sorted(added) == list(range(1, 41))
        with database.reading() as session:
            counted = session.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"))
        assert counted == 2


def test_busy_connections_are_told(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call waits for a connection for a bounded time, and the error names the setting."""
    monkeypatch.setattr("gateway.database.session._WAIT_S", 0.2)
    with closing(Database(postgres_url, tmp_path, connections=1)) as database, database.reading() as session:
        session.execute(text("SELECT 1"))
        with pytest.raises(BackendUnavailableError, match="raise DUBSTAGE_DATABASE_CONNECTIONS") as caught:
            OperationStore(database).list()
    assert caught.value.retry_after_s > 0


def test_full_server_is_told(postgres: PostgresServer, postgres_url: str, tmp_path: Path) -> None:
    """If PostgreSQL gives no further connection, the error says so and names the settings on both sides."""
    name = postgres_url.rpartition("/")[2]
    postgres.execute("DROP ROLE IF EXISTS crowded")
    postgres.execute(f"CREATE ROLE crowded LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 1")
    postgres.execute(f"ALTER DATABASE {name} OWNER TO crowded")
    postgres.execute("ALTER SCHEMA public OWNER TO crowded", name)
    with closing(Database(postgres.url(name, user="crowded"), tmp_path)) as database:
        database.claim()
        with pytest.raises(BackendUnavailableError, match="no free connection") as caught:
            OperationStore(database).list()
    assert "raise max_connections of PostgreSQL, or lower DUBSTAGE_DATABASE_CONNECTIONS" in caught.value.message
    assert PASSWORD not in caught.value.message


def test_missing_server_reported_soon(postgres: PostgresServer, tmp_path: Path) -> None:
    begin = time.monotonic()
    port = free_port()
    with pytest.raises(BackendUnavailableError, match=f"127.0.0.1:{port}") as caught:
        Database(postgres.url(port=port), tmp_path)
    assert PASSWORD not in caught.value.message
    assert caught.value.retry_after_s > 0
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize(
    "url", ["postgres", "mysql://user:hidden-word@host/db", "postgresql+psycopg://user:hidden-word@host:port/db"]
)
def test_unsupported_url_hides_password(url: str, tmp_path: Path) -> None:
    with raised(InvalidRequestError, field="DUBSTAGE_DATABASE_URL") as caught:
        Database(url, tmp_path)
    assert "hidden-word" not in caught.value.message


def test_without_the_driver_the_remedy_is_named(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["psycopg"] = None
from pathlib import Path
from gateway.database.session import Database
from services.common.errors import InvalidRequestError
try:
    Database("postgresql://user@host/db", Path("."))
except InvalidRequestError as error:
    print(error)
"""
    assert "pip install 'dubstage-suite[postgres]'" in said_by(script)
