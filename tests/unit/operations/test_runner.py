from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.rpc import status_pb2

from gateway.actors.database import Database
from gateway.operations import store as store_module
from gateway.operations.runner import Handler, Job, JobRunner
from gateway.operations.store import OperationRecord, OperationStore
from services.common import calls, error_status
from services.common.errors import Cancelled, DubstageError, InvalidRequest, NoUsableFootage, OperationNotFound, Overloaded


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OperationStore]:
    database = Database("", tmp_path)
    yield OperationStore(database)
    database.close()


def runner(store: OperationStore, handler: Handler, *, concurrent: int = 1, queued: int = 4) -> JobRunner:
    return JobRunner(store, {"work": handler}, max_concurrent=concurrent, max_queued=queued)


def error_of(record: OperationRecord) -> DubstageError:
    assert record.error is not None
    found = error_status.from_status(status_pb2.Status.FromString(record.error))
    assert found is not None
    return found


async def echo(job: Job) -> bytes:
    job.report(b"half")
    return b"answer to " + job.record.request


async def for_ever(job: Job) -> bytes:
    await asyncio.sleep(3600)
    return b""


async def test_an_operation_gives_its_answer_and_keeps_it(store: OperationStore) -> None:
    jobs = runner(store, echo)
    begun = await jobs.submit("work", b"question")
    assert not begun.done
    ended = await jobs.wait(begun.name, 5)
    assert (ended.done, ended.response, ended.metadata) == (True, b"answer to question", b"half")
    assert store.get(begun.name) == ended


async def test_an_error_of_the_tree_is_the_operations_error(store: OperationStore) -> None:
    async def fail(job: Job) -> bytes:
        raise NoUsableFootage("no face", subject="footage")

    jobs = runner(store, fail)
    ended = await jobs.wait((await jobs.submit("work", b"")).name, 5)
    error = error_of(ended)
    assert isinstance(error, NoUsableFootage)
    assert error.message == "no face"
    assert ended.response is None


async def test_what_waits_and_what_runs_can_be_cancelled_at_any_moment(store: OperationStore) -> None:
    jobs = runner(store, for_ever)
    running, waiting, at_once = [await jobs.submit("work", b"") for _ in range(3)]
    await jobs.cancel(at_once.name)
    await asyncio.sleep(0.01)
    await jobs.cancel(waiting.name)
    await jobs.cancel(running.name)
    for record in (running, waiting, at_once):
        assert isinstance(error_of(await jobs.wait(record.name, 5)), Cancelled)
    await jobs.cancel(running.name)
    with pytest.raises(OperationNotFound):
        await jobs.cancel("operations/none")


async def test_work_has_a_call_of_its_own_that_ends_with_it(store: OperationStore) -> None:
    seen: list[calls.Call | None] = []

    async def look(job: Job) -> bytes:
        seen.append(calls.current_call())
        return b""

    asked_by = calls.Call(stage="gateway", rpc="CreateDub", deadline=0.0)
    calls.set_current_call(asked_by)
    try:
        jobs = runner(store, look)
        await jobs.wait((await jobs.submit("work", b"")).name, 5)
    finally:
        calls.set_current_call(None)
    (call,) = seen
    assert call is not None
    assert call is not asked_by
    assert call.deadline is None
    assert call.ended.is_set()


async def test_more_than_may_wait_is_refused(store: OperationStore) -> None:
    jobs = runner(store, for_ever, concurrent=1, queued=1)
    for _ in range(2):
        await jobs.submit("work", b"")
    with pytest.raises(Overloaded):
        await jobs.submit("work", b"")
    await jobs.close()


async def test_two_operations_never_have_one_output(store: OperationStore) -> None:
    jobs = runner(store, for_ever)
    await jobs.submit("work", b"", output="/films/a.mp4")
    with pytest.raises(InvalidRequest, match="another operation writes"):
        await jobs.submit("work", b"", output="/films/a.mp4")
    await jobs.close()


async def test_what_a_closed_runner_left_is_picked_up_in_its_order(store: OperationStore) -> None:
    first = runner(store, for_ever)
    names = [(await first.submit("work", str(number).encode())).name for number in range(3)]
    await asyncio.sleep(0.01)
    await first.close()
    order: list[tuple[bytes, bool]] = []

    async def note(job: Job) -> bytes:
        order.append((job.record.request, job.resumed))
        return b"done"

    second = runner(store, note)
    await second.start()
    for name in names:
        assert (await second.wait(name, 5)).response == b"done"
    assert order == [(b"0", True), (b"1", True), (b"2", True)]


async def test_a_wait_ends_with_its_time_and_changes_nothing(store: OperationStore) -> None:
    jobs = runner(store, for_ever)
    name = (await jobs.submit("work", b"")).name
    assert not (await jobs.wait(name, 0.01)).done
    with pytest.raises(InvalidRequest, match="cancel it first"):
        await jobs.delete(name)
    await jobs.close()


async def test_work_on_a_person_is_stopped_and_forgotten(store: OperationStore) -> None:
    jobs = runner(store, for_ever, concurrent=2)
    of_ann = await jobs.submit("work", b"", actor_id="ann")
    of_bob = await jobs.submit("work", b"", actor_id="bob")
    await jobs.stop_work_on("ann")
    assert not jobs.concerns("ann")
    assert jobs.concerns("bob")
    await jobs.forget_actor("ann")
    with pytest.raises(OperationNotFound):
        await jobs.get(of_ann.name)
    assert not (await jobs.get(of_bob.name)).done
    await jobs.close()


def test_the_oldest_of_too_many_ended_operations_go(store: OperationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_FINISHED", 2)
    records = [store.add("work", b"") for _ in range(4)]
    for record in records[:3]:
        store.finish(record)
    assert [record.name for record in store.list()] == [record.name for record in records[1:]]
    assert [record.name for record in store.list(done=False)] == [records[3].name]
