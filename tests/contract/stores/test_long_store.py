"""10,000 actors and 100,000 finished operations cost no dub anything: the database finds every row by an index."""

import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from gateway.actors.store import ActorStore
from gateway.database.session import Database
from gateway.operations.store import AT_ONCE, OperationStore, expire_operations
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactStore
from tests.contract.stores.long_store import ANN, Dubs, analyse, enrol, fill
from tests.operations import submitted
from tests.unit.actors.installation import CONSENT, learned

MANY_ACTORS, MANY_OPERATIONS = 10_000, 100_000
LONG_TABLES = ("operations", "actors", "enrolments", "lineage")


@pytest.fixture
def dubs(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> Dubs:
    enrol(actors, blobs, learned(blobs, ANN, geometry), CONSENT)
    return Dubs(actors, blobs)


@contextmanager
def statements_of(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Collect the statements, with their values, that are sent to a database."""
    found: list[tuple[str, Any]] = []

    def listen(_connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
        if statement.split(maxsplit=1)[0] in {"SELECT", "UPDATE", "DELETE"}:
            found.append((statement, values[0] if many else values))

    event.listen(database.engine, "before_cursor_execute", listen)
    yield found
    event.remove(database.engine, "before_cursor_execute", listen)


def plans(database: Database, statements: list[tuple[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield each statement with the steps that the database plans for it, one per line."""
    explain = "EXPLAIN" if database.shared else "EXPLAIN QUERY PLAN"
    with database.engine.connect() as connection:
        for statement, values in statements:
            rows = connection.exec_driver_sql(f"{explain} {statement}", values).all()
            yield statement, "\n".join(str(row[-1]) for row in rows)


def whole_tables(plan: str) -> list[str]:
    """Tables that a plan reads row by row, from one end to the other."""
    words = [line.split() for line in plan.replace("->", "").splitlines()]
    postgres = [line[3] for line in words if line[:3] == ["Seq", "Scan", "on"]]
    sqlite = [line[1] for line in words if line[:1] == ["SCAN"]]
    return [table for table in postgres + sqlite if table in LONG_TABLES]


def test_no_statement_scans_whole_table(actors: ActorStore, dubs: Dubs, tmp_path: Path) -> None:
    """No statement of a dub or of a list reads a whole table."""
    fill(actors.database, actors=MANY_ACTORS, operations=MANY_OPERATIONS)
    analyse(actors.database.engine)
    with statements_of(actors.database) as statements:
        dubs.dub(tmp_path / "job")
        dubs.lists()
    assert len(statements) > 30
    assert {statement: read for statement, plan in plans(actors.database, statements) if (read := whole_tables(plan))} == {}


class Work:
    """Counts the jumps of SQLite's virtual machine, which grow with the rows that a statement looks at."""

    def __init__(self, database: Database) -> None:
        self._count = 0
        event.listen(database.engine, "checkout", self._listen)

    def _listen(self, connection: Any, _record: Any, _proxy: Any) -> None:
        connection.set_progress_handler(self._one, 1)

    def _one(self) -> None:
        self._count += 1

    def of(self, what: Callable[[], None]) -> int:
        """Return the work of a function."""
        self._count = 0
        what()
        return self._count


@pytest.mark.parametrize("database_url", [""])
def test_database_work_independent_of_size(actors: ActorStore, dubs: Dubs, tmp_path: Path) -> None:
    # The pages of the lists are full in both.
    fill(actors.database, actors=1_000, operations=1_000)
    work = Work(actors.database)
    few = [work.of(lambda: dubs.dub(tmp_path / "job")), work.of(dubs.lists)]
    with actors.database.writing() as session:
        for table in reversed(LONG_TABLES):
            session.execute(text(f"DELETE FROM {table} WHERE actor_id <> '{ANN}'"))
    fill(actors.database, actors=MANY_ACTORS, operations=MANY_OPERATIONS)
    many = [work.of(lambda: dubs.dub(tmp_path / "job")), work.of(dubs.lists)]
    assert all(100 < one < 1.2 * other + 50 for one, other in zip(many, few, strict=True)), (few, many)


def test_operations_expire_except_with_job(actors: ActorStore, tmp_path: Path) -> None:
    """Old operations expire by age and by number and those with a job on disk stay."""
    store, database = OperationStore(actors.database), actors.database
    fill(database, actors=3, operations=2 * AT_ONCE + 50)
    with_job = store.list(limit=1)[0]
    actors.jobs.begin(tmp_path / "job", belongs_to=with_job.name)
    waiting = submitted(store.database, "dub", b"")
    new = store.finish(submitted(store.database, "dub", b""))
    other = store.finish(submitted(store.database, "batch", b""))
    age = (datetime.datetime.now(datetime.UTC) - datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)).days

    assert expire_operations(database, max_age_days=age + 2, max_finished=100_000) == 0
    assert expire_operations(database, max_age_days=0, max_finished=AT_ONCE) == AT_ONCE + 50
    assert store.list(limit=1)[0].name == with_job.name
    # One that has not ended counts for nothing, and the one with a job has a place of its own.
    assert len(store.list(limit=10_000)) == AT_ONCE + 3
    assert expire_operations(database, max_age_days=max(age - 1, 0.001), max_finished=AT_ONCE) == AT_ONCE - 1
    assert [one.name for one in store.list()] == [with_job.name, waiting.name, new.name, other.name]
    actors.jobs.release(tmp_path / "job")
    assert expire_operations(database, max_age_days=max(age - 1, 0.001), max_finished=AT_ONCE) == 1
