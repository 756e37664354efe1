from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from google.rpc import status_pb2

from gateway.database.database import Database
from gateway.operations import execution
from gateway.operations.job import Handler, Job
from gateway.operations.queue import OperationQueue
from gateway.operations.runner import JobRunner
from gateway.operations.store import OperationRecord, OperationStore
from services.common.chassis import calls, error_status
from services.common.errors import (
    BackendUnavailable,
    Cancelled,
    DubstageError,
    InvalidRequest,
    NoUsableFootage,
    OperationNotFound,
    Overloaded,
    StorageFull,
    Unexpected,
)


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


class Held:
    """Holds a method of the queue in its thread until a test lets the method go on."""

    def __init__(self, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        real, loop = getattr(OperationQueue, method), asyncio.get_running_loop()
        self.entered, self.goes_on = asyncio.Event(), threading.Event()

        def held(*args: Any, **more: Any) -> Any:
            loop.call_soon_threadsafe(self.entered.set)
            assert self.goes_on.wait(60)
            return real(*args, **more)

        monkeypatch.setattr(OperationQueue, method, held)

    async def left_by(self, call: Coroutine[Any, Any, object]) -> None:
        """Make a call, and leave the call while the method works."""
        caller = asyncio.create_task(call)
        async with asyncio.timeout(60):
            await self.entered.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller


async def test_an_operation_gives_its_answer_and_keeps_it(store: OperationStore) -> None:
    jobs = runner(store, echo)
    begun = await jobs.submit("work", b"question")
    assert not begun.done
    ended = await jobs.wait(begun.name, 60)
    assert (ended.done, ended.response, ended.metadata) == (True, b"answer to question", b"half")
    assert store.get(begun.name) == ended


async def test_an_error_of_the_tree_is_the_operations_error(store: OperationStore) -> None:
    async def fail(job: Job) -> bytes:
        raise NoUsableFootage("no face", subject="footage")

    jobs = runner(store, fail)
    ended = await jobs.wait((await jobs.submit("work", b"")).name, 60)
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
        assert isinstance(error_of(await jobs.wait(record.name, 60)), Cancelled)
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
        await jobs.wait((await jobs.submit("work", b"")).name, 60)
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
        assert (await second.wait(name, 60)).response == b"done"
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
    assert not await jobs.concerns("ann")
    assert await jobs.concerns("bob")
    await jobs.forget_actor("ann")
    with pytest.raises(OperationNotFound):
        await jobs.get(of_ann.name)
    assert not (await jobs.get(of_bob.name)).done
    await jobs.close()


async def test_runners_of_different_kinds_share_a_database_and_see_their_own_operations(tmp_path: Path) -> None:
    database = Database("", tmp_path)
    films, batches = (OperationStore(database, kinds=(kind,)) for kind in ("film", "batch"))

    async def work(job: Job) -> bytes:
        return job.record.kind.encode()

    runners = {
        store: JobRunner(store, {kind: work}, max_concurrent=2, max_queued=2)
        for store, kind in ((films, "film"), (batches, "batch"))
    }
    left = films.add("film", b"left by a gateway that ended")
    names: dict[OperationStore, list[str]] = {batches: [], films: [left.name]}
    for store, jobs in runners.items():
        # The start of one runner takes nothing that another one has begun.
        await jobs.start()
        for _ in range(3):
            names[store].append((await jobs.submit("batch" if store is batches else "film", b"")).name)
            await jobs.wait(names[store][-1], 60)
    for store, jobs in runners.items():
        assert [record.name for record in store.list()] == names[store]
        other = names[films if store is batches else batches][-1]
        with pytest.raises(OperationNotFound):
            await jobs.get(other)
        await jobs.close()
    database.close()


def test_operations_that_have_not_ended_are_found_by_what_they_write(store: OperationStore) -> None:
    first = store.add("work", b"", output="a")
    second = store.add("work", b"", output="b")
    assert store.is_written(("a", "b"), before=second.number)
    assert not store.is_written(("a", "b"), before=first.number)
    assert not store.is_written(("c",))
    store.finish(first)
    assert not store.is_written(("a",))
    assert store.is_written(("a", "b"))


async def test_the_id_that_a_caller_is_told_of_our_own_bug_is_in_the_log(
    store: OperationStore,
) -> None:
    async def fail(job: Job) -> bytes:
        raise ZeroDivisionError("a bug")

    jobs = runner(store, fail)
    with structlog.testing.capture_logs() as lines:
        ended = await jobs.wait((await jobs.submit("work", b"")).name, 60)
    error = error_of(ended)
    assert isinstance(error, Unexpected)
    assert error.error_id
    (line,) = [line for line in lines if line["event"] == "operation_failed"]
    assert (line["error_id"], line["operation"], line["log_level"]) == (error.error_id, ended.name, "error")
    assert isinstance(line["exc_info"], ZeroDivisionError)


async def test_what_a_cancelled_operation_left_is_removed_even_where_it_never_got_its_turn(store: OperationStore) -> None:
    abandoned: list[str] = []

    async def abandon(record: OperationRecord) -> None:
        abandoned.append(record.name)
        raise OSError("a disk that went away does not keep an operation from its end")

    jobs = JobRunner(store, {"work": for_ever}, max_concurrent=1, max_queued=4, abandon=abandon)
    running, waiting, left = [await jobs.submit("work", b"") for _ in range(3)]
    await asyncio.sleep(0.01)
    for record in (waiting, running):
        await jobs.cancel(record.name)
        assert isinstance(error_of(await jobs.wait(record.name, 60)), Cancelled)
    assert abandoned == [waiting.name, running.name]
    await jobs.close()
    assert left.name not in abandoned, "it was interrupted: the next process goes on with it"


async def test_errors_are_rewritten_for_callers(store: OperationStore) -> None:
    async def fail(job: Job) -> bytes:
        raise NoUsableFootage("/srv/media/a.mp4 shows no face", subject="/srv/media/a.mp4")

    def rewrite(error: DubstageError) -> DubstageError:
        error.message = error.message.replace("/srv/media/", "")
        return error

    jobs = JobRunner(store, {"work": fail}, max_concurrent=1, max_queued=4, rewrite=rewrite)
    ended = await jobs.wait((await jobs.submit("work", b"")).name, 60)
    assert error_of(ended).message == "a.mp4 shows no face"


# Callers that leave


async def test_a_submission_that_is_stored_begins_although_its_caller_left(
    store: OperationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, caller, admitted = asyncio.Event(), contextvars.ContextVar[str]("caller"), list[str]()

    async def work(job: Job) -> bytes:
        begun.set()
        return b""

    jobs = runner(store, work)
    submission = Held("submit", monkeypatch)
    caller.set("ann")
    await submission.left_by(jobs.submit("work", b"", admit=lambda unfinished: admitted.append(caller.get())))
    submission.goes_on.set()
    async with asyncio.timeout(60):
        await begun.wait()
    assert admitted == ["ann"]
    await jobs.close()


async def test_a_submission_that_is_being_stored_is_given_back_by_a_runner_that_closes(
    store: OperationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = runner(store, for_ever)
    submission = Held("submit", monkeypatch)
    await submission.left_by(jobs.submit("work", b""))
    closing = asyncio.create_task(jobs.close())
    submission.goes_on.set()
    await closing
    taken, _ = OperationQueue(store.database, lease_s=None).take(9, busy=())
    assert [one.record.name for one in taken] == [record.name for record in store.list()]
    assert len(taken) == 1


async def test_a_cancellation_that_has_begun_ends_the_operation_although_its_caller_left(
    store: OperationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = runner(store, for_ever)
    _, waiting, of_ann = [await jobs.submit("work", b"", actor_id=actor) for actor in ("", "", "ann")]
    for method, call, record in (
        ("cancel", jobs.cancel(waiting.name), waiting),
        ("cancel_work_on", jobs.stop_work_on("ann"), of_ann),
    ):
        cancellation = Held(method, monkeypatch)
        await cancellation.left_by(call)
        cancellation.goes_on.set()
        assert isinstance(error_of(await jobs.wait(record.name, 60)), Cancelled)
    await jobs.close()


async def test_an_error_that_nobody_waits_for_is_not_reported_as_forgotten(
    store: OperationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def refuse(unfinished: int) -> None:
        raise Overloaded("as many as may be")

    jobs = runner(store, for_ever)
    submission = Held("submit", monkeypatch)
    await submission.left_by(jobs.submit("work", b"", admit=refuse))
    submission.goes_on.set()
    await jobs.close()
    gc.collect()
    assert reported == []


# Cancellations that were cut


async def test_a_cancellation_that_a_dead_gateway_did_not_finish_is_finished_by_the_next(store: OperationStore) -> None:
    record = store.add("work", b"")
    OperationQueue(store.database, lease_s=None).cancel(record.number)
    jobs = runner(store, echo)
    await jobs.start()
    assert isinstance(error_of(await jobs.wait(record.name, 60)), Cancelled)
    await jobs.close()


async def test_a_cancelled_operation_that_has_not_ended_takes_no_slot_from_others(store: OperationStore) -> None:
    jobs = runner(store, echo)
    await jobs.start()
    OperationQueue(store.database, lease_s=None).cancel(store.add("work", b"").number)
    for _ in range(2):
        assert (await jobs.wait((await jobs.submit("work", b"question")).name, 60)).response == b"answer to question"
    await jobs.close()


async def test_a_cancellation_that_the_database_interrupts_is_finished_by_a_look(
    store: OperationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = runner(store, for_ever)
    _, waiting = [await jobs.submit("work", b"") for _ in range(2)]
    take, failures = OperationQueue.take, [BackendUnavailable("the database is away")]

    def failing_once(*args: Any, **more: Any) -> Any:
        if failures:
            raise failures.pop()
        return take(*args, **more)

    monkeypatch.setattr(OperationQueue, "take", failing_once)
    with pytest.raises(BackendUnavailable):
        await jobs.cancel(waiting.name)
    assert isinstance(error_of(await jobs.wait(waiting.name, 60)), Cancelled)
    await jobs.close()


# A disk that is full when an operation ends


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Lets no end be stored until it is set."""
    finish, has_space = OperationStore.finish, threading.Event()

    def failing(*args: Any, **more: Any) -> OperationRecord:
        if not has_space.is_set():
            raise StorageFull("no space left for the database", subject="database")
        return finish(*args, **more)

    monkeypatch.setattr(OperationStore, "finish", failing)
    monkeypatch.setattr(execution, "WRITE_AGAIN_S", 0.01)
    return has_space


async def test_an_operation_that_ends_while_the_disk_is_full_keeps_its_answer(
    store: OperationStore, full_disk: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "DATABASE_SECONDS", 0.0)
    begun: list[str] = []

    async def work(job: Job) -> bytes:
        begun.append(job.record.name)
        return b"film"

    jobs = runner(store, work)
    record = await jobs.submit("work", b"", output="film.mp4")
    assert not (await jobs.wait(record.name, 0.1)).done
    full_disk.set()
    assert (await jobs.wait(record.name, 60)).response == b"film"
    assert begun == [record.name]
    await jobs.close()


async def test_a_runner_that_closes_while_the_disk_is_full_gives_the_operation_back(
    store: OperationStore, full_disk: threading.Event
) -> None:
    jobs = runner(store, echo)
    record = await jobs.submit("work", b"")
    assert not (await jobs.wait(record.name, 0.1)).done
    with structlog.testing.capture_logs() as lines:
        await jobs.close()
    assert [line["reason"] for line in lines if line["event"] == "operation_not_written"] == ["STORAGE_FULL"]
    taken, _ = OperationQueue(store.database, lease_s=None).take(9, busy=())
    assert [one.record.name for one in taken] == [record.name]
