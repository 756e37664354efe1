"""Operations that several gateways share: what one of them runs, waits for, cancels or loses. Asked of SQLite and PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from google.rpc import status_pb2
from sqlalchemy import event, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from gateway.database.session import Database
from gateway.operations import execution, runner
from gateway.operations.execution import BegunOperation, Handler
from gateway.operations.leases import OperationQueue
from gateway.operations.runner import OperationRunner
from gateway.operations.store import LeaseRow, OperationRecord, OperationStore
from services.common.errors import (
    InvalidRequestError,
    OperationNotFoundError,
    OverloadedError,
    StorageRefusedError,
    WorkCancelledError,
)
from services.common.server import error_status
from tests.failing import fail_once

LEASE_S = 600.0
"""No lease ends on its own, however long this process pauses. A test that needs the end of a lease writes the end."""
PATIENCE_S = 60.0
"""Most seconds until something happens that needs no end of a lease."""


@pytest.fixture(autouse=True)
def _quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let gateways look and renew as often as those with leases of a second."""
    monkeypatch.setattr(runner, "BEAT_S", 0.2)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database for several gateways. SQLite has leases too; only the claim of a gateway keeps others out."""
    return str(request.getfixturevalue("postgres_url")) if request.param == "postgresql" else f"sqlite:///{tmp_path}/a.sqlite"


@pytest.fixture
def databases(url: str, tmp_path: Path) -> Iterator[Callable[[], Database]]:
    opened: list[Database] = []

    def open_one() -> Database:
        opened.append(Database(url, tmp_path))
        return opened[-1]

    yield open_one
    for database in opened:
        database.close()


def queue_on(database: Database, *, lease_s: float = LEASE_S) -> OperationQueue:
    OperationStore(database)
    return OperationQueue(database, lease_s=lease_s)


def submit(queue: OperationQueue, *, free: int = 1, actor_id: str = "", output: str = "", most_waiting: int = 9) -> OperationRecord:
    return queue.submit("work", b"q", actor_id=actor_id, output=output, busy=(), free=free, most_waiting=most_waiting).record


@asynccontextmanager
async def gateway(
    database: Database, handler: Handler, *, concurrent: int = 1, queued: int = 9, start: bool = True
) -> AsyncIterator[OperationRunner]:
    runner = OperationRunner(
        OperationStore(database), {"work": handler}, max_concurrent=concurrent, max_queued=queued, shared=True, lease_s=LEASE_S
    )
    if start:
        await runner.start()
    yield runner
    await runner.close()


def saying(text: str, begun: list[str] | None = None) -> Handler:
    async def work(operation: BegunOperation) -> bytes:
        if begun is not None:
            begun.append(operation.record.name)
        return text.encode()

    return work


def until_told(event: asyncio.Event, stopped: list[str] | None = None) -> Handler:
    async def work(operation: BegunOperation) -> bytes:
        operation.report(b"half")
        try:
            await event.wait()
        except asyncio.CancelledError:
            if stopped is not None:
                stopped.append(operation.record.name)
            raise
        return b"done"

    return work


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def until_begun(gateway: OperationRunner, *records: OperationRecord) -> None:
    """Wait until the handlers of `until_told` have begun the operations in this gateway."""

    async def have_begun() -> bool:
        return all([(await gateway.get(record.name)).metadata == b"half" for record in records])

    await until(have_begun)


def end_of_lease(database: Database, record: OperationRecord) -> float:
    """Return the end of an operation's lease, Unix time in seconds."""
    with database.reading() as session:
        return session.scalars(select(LeaseRow.until).where(LeaseRow.number == record.number)).one()


def end_leases(database: Database) -> None:
    """Let all leases end now, as if their gateways had renewed none for a lease's time."""
    with database.writing() as session:
        session.execute(update(LeaseRow).values(until=0.0))


def was_cancelled(record: OperationRecord) -> bool:
    return isinstance(error_status.from_status(status_pb2.Status.FromString(record.error or b"")), WorkCancelledError)


# The queue


def test_unanswered_commit_keeps_its_gateway(databases: Callable[[], Database]) -> None:
    """An operation whose commit was done without an answer goes on in its gateway."""
    first, second = queue_on(databases()), queue_on(databases())
    answers = ["lost"]

    def lose(_: Session) -> None:
        if answers:
            raise OperationalError(answers.pop(), {}, Exception("server closed the connection unexpectedly"))

    event.listen(Session, "after_commit", lose)
    try:
        submitted = first.submit("work", b"q", actor_id="", output="", busy=(), free=1, most_waiting=9)
    finally:
        event.remove(Session, "after_commit", lose)
    assert (answers, submitted.mine, submitted.waiting) == ([], True, {})
    assert second.take(9, busy=()) == ((), {})
    assert set(first.renew({submitted.record.number}, {})) == {submitted.record.number}


def test_one_gateway_until_lease_ends(databases: Callable[[], Database]) -> None:
    first, second = queue_on(databases()), queue_on(databases())
    record = submit(first)
    assert second.take(9, busy=())[0] == ()
    assert first.renew({record.number}, {record.number: b"half"}) == {record.number: False}
    assert second.take(9, busy=())[0] == ()
    database = databases()
    end_leases(database)
    ((taken,), waiting) = second.take(9, busy=())
    assert (taken.record.name, taken.record.metadata, taken.begun, waiting) == (record.name, b"half", True, {})
    assert first.renew({record.number}, {record.number: b"all"}) == {}
    assert OperationStore(database).get(record.name).metadata == b"half"


def test_lease_counts_from_last_renewal(databases: Callable[[], Database]) -> None:
    first, second, database = queue_on(databases()), queue_on(databases()), databases()
    submissions: list[OperationRecord] = []
    steps: tuple[Callable[[], object], ...] = (
        lambda: submissions.append(submit(first)),
        lambda: first.renew({submissions[0].number}, {}),
        lambda: second.take(9, busy=()),
    )
    for step in steps:
        end_leases(database)
        begin = time.time()
        step()
        # Both databases use the clock of this machine. SQLite's clock has milliseconds.
        assert begin - 0.01 <= end_of_lease(database, submissions[0]) - LEASE_S <= time.time() + 0.01


async def test_unrenewed_lease_expires(databases: Callable[[], Database]) -> None:
    """A lease that is not renewed ends by the clock."""
    first, second = queue_on(databases(), lease_s=0.2), queue_on(databases())
    record = submit(first)

    async def taken() -> bool:
        return [one.record.name for one in second.take(9, busy=())[0]] == [record.name]

    await until(taken)


def test_former_gateway_cannot_end(databases: Callable[[], Database]) -> None:
    """The end that a previous gateway writes changes nothing."""
    first, second = queue_on(databases()), queue_on(databases())
    store = OperationStore(databases())
    record = submit(first)
    end_leases(store.database)
    assert len(second.take(9, busy=())[0]) == 1
    with pytest.raises(WorkCancelledError, match="belongs to another gateway"):
        store.finish(record, owner=first.owner)
    assert not store.get(record.name).done
    store.finish(record, owner=second.owner)
    with pytest.raises(WorkCancelledError, match="has ended"):
        store.finish(record, owner=second.owner)


def test_lease_survives_database_outage(databases: Callable[[], Database]) -> None:
    """A lease that ended while the database was away is still the gateway's own."""
    first = queue_on(databases())
    record = submit(first)
    end_leases(databases())
    assert first.take(9, busy={record.number}) == ((), {})
    assert first.renew({record.number}, {}) == {record.number: False}


def test_queue_keeps_order(databases: Callable[[], Database]) -> None:
    """Waiting operations run in their order, each once."""
    first, second = queue_on(databases()), queue_on(databases())
    names = [submit(first, free=0).name for _ in range(4)]
    assert [one.record.name for queue in (first, second, first) for one in queue.take(2, busy=())[0]] == names


def test_limits_and_outputs_are_those_of_all_gateways(databases: Callable[[], Database]) -> None:
    first, second = queue_on(databases()), queue_on(databases())
    submit(first, output="/videos/a.mp4")
    with pytest.raises(InvalidRequestError, match="another operation writes"):
        submit(second, output="/videos/a.mp4")
    submit(second, free=0, most_waiting=1)
    with pytest.raises(OverloadedError, match="as many as the gateway takes"):
        submit(first, free=0, most_waiting=1)


# Gateways


async def test_dead_gateways_operation_ended(databases: Callable[[], Database]) -> None:
    dead = queue_on(databases())
    record = submit(dead)
    begun: list[str] = []
    async with gateway(databases(), saying("video", begun)) as second:
        assert not (await second.get(record.name)).done
        # Not before the lease ends.
        assert begun == []
        end_leases(databases())
        assert (await second.wait(record.name, PATIENCE_S)).response == b"video"
    assert begun == [record.name]


async def test_starting_gateway_spares_others_work(databases: Callable[[], Database], monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that starts leaves the work of others alone and answers for it."""
    monkeypatch.setattr(execution, "PROGRESS_S", 0.1)
    goes_on, begun = asyncio.Event(), list[str]()
    async with gateway(databases(), until_told(goes_on)) as first, gateway(databases(), saying("wrong", begun)) as second:
        record = await first.submit("work", b"")

        async def seen() -> bool:
            return (await second.get(record.name)).metadata == b"half"

        await until(seen)
        database = databases()
        for _ in range(3):  # the first gateway renews its lease again and again, and the second goes on looking
            end = end_of_lease(database, record)

            async def is_renewed(end: float = end) -> bool:
                return end_of_lease(database, record) > end

            await until(is_renewed)
        assert not (await second.get(record.name)).done
        assert [one.name for one in await second.list(after=0, limit=9, done=False)] == [record.name]
        with pytest.raises(InvalidRequestError, match="cancel it first"):
            await second.delete(record.name)
        goes_on.set()
        assert (await second.wait(record.name, PATIENCE_S)).response == b"done"
        await second.delete(record.name)
        with pytest.raises(OperationNotFoundError):
            await first.get(record.name)
    assert begun == []


async def test_cancellation_reaches_running_gateway(databases: Callable[[], Database]) -> None:
    stopped: list[str] = []
    async with gateway(databases(), until_told(asyncio.Event(), stopped)) as first, gateway(databases(), saying("x")) as second:
        record = await first.submit("work", b"")
        await until_begun(first, record)
        await second.cancel(record.name)
        assert was_cancelled(await second.wait(record.name, PATIENCE_S))
    assert stopped == [record.name]


async def test_any_gateway_begins_or_cancels(databases) -> None:
    """Any gateway with a free slot begins a waiting operation, and any gateway can cancel one."""
    goes_on, begun = asyncio.Event(), list[str]()
    async with gateway(databases(), until_told(goes_on)) as first:
        running, waiting, unwanted = [await first.submit("work", b"") for _ in range(3)]
        async with gateway(databases(), saying("by the second", begun), start=False) as second:
            await second.cancel(unwanted.name)
            assert was_cancelled(await first.wait(unwanted.name, PATIENCE_S))
            await second.start()
            assert (await first.wait(waiting.name, PATIENCE_S)).response == b"by the second"
        assert begun == [waiting.name]
        goes_on.set()
        assert (await first.wait(running.name, PATIENCE_S)).response == b"done"


async def test_closing_gateway_hands_over(databases: Callable[[], Database]) -> None:
    """Another gateway begins at once the operations that a gateway leaves when it ends."""
    async with gateway(databases(), saying("by the second")) as second:
        async with gateway(databases(), until_told(asyncio.Event())) as first:
            await second.close()
            record = await first.submit("work", b"")
            await until_begun(first, record)
        async with gateway(databases(), saying("by the third")) as third:
            assert (await third.wait(record.name, PATIENCE_S)).response == b"by the third"


async def test_lost_operation_stops_work(databases: Callable[[], Database]) -> None:
    stopped: list[str] = []
    database = databases()
    async with gateway(database, until_told(asyncio.Event(), stopped)) as first:
        record = await first.submit("work", b"")
        await until_begun(first, record)
        # As after a pause of the process for longer than its lease.
        other = queue_on(databases())
        with database.writing() as session:
            session.execute(update(LeaseRow).values(owner=other.owner))

        async def has_stopped() -> bool:
            return stopped == [record.name]

        await until(has_stopped)
        assert not (await first.wait(record.name, 0.2)).done
        OperationStore(database).finish(record, owner=other.owner)
        assert (await first.wait(record.name, PATIENCE_S)).done


async def test_work_on_person_stops_everywhere(databases: Callable[[], Database]) -> None:
    stopped: list[str] = []
    handler = until_told(asyncio.Event(), stopped)
    async with gateway(databases(), handler) as first, gateway(databases(), handler) as second:
        of_ann = [await one.submit("work", b"", actor_id="ann") for one in (first, second, second)]
        of_bob = await first.submit("work", b"", actor_id="bob")
        await until_begun(first, of_ann[0])
        await until_begun(second, of_ann[1])
        await first.stop_work_on("ann")
        assert not await second.concerns("ann")
        assert await second.concerns("bob")
        for record in of_ann:
            assert was_cancelled(await first.get(record.name))
        assert not (await first.get(of_bob.name)).done
    assert sorted(stopped[:2]) == sorted(record.name for record in of_ann[:2])


async def test_unstorable_end_runs_again(databases: Callable[[], Database], monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that cannot be stored for long lets a gateway do the work again."""
    monkeypatch.setattr(execution, "DATABASE_SECONDS", 0.0)
    fail_once(monkeypatch, OperationStore, "finish", StorageRefusedError("the database may not be written"))
    begun: list[str] = []
    async with gateway(databases(), saying("video", begun)) as first:
        record = await first.submit("work", b"")
        assert (await first.wait(record.name, PATIENCE_S)).response == b"video"
    assert begun == [record.name] * 2
