"""

Runners of several tenants share the slots of one process.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog.testing

from gateway.database.session import Database
from gateway.operations.execution import BegunOperation, for_tenant
from gateway.operations.runner import OperationRunner, Slots
from gateway.operations.store import OperationRecord, OperationStore
from services.common.errors import (
    DubstageError,
    InvalidRequestError,
    NoUsableFootageError,
    OperationNotFoundError,
    OverloadedError,
    UnexpectedError,
    WorkCancelledError,
)
from services.common.server import call_context
from services.common.server.call_context import current_caller
from tests.operations import submitted
from tests.unit.operations.runners import echo, error_of, for_ever, runner


async def test_an_operation_gives_its_answer_and_keeps_it(store: OperationStore) -> None:
    jobs = runner(store, echo)
    begun = await jobs.submit("work", b"question")
    assert not begun.done
    ended = await jobs.wait(begun.name, 60)
    assert (ended.done, ended.response, ended.metadata) == (True, b"answer to question", b"half")
    assert store.get(begun.name) == ended


async def test_tree_error_is_operation_error(store: OperationStore) -> None:
    """An error of the tree is the operations error."""

    async def fail(operation: BegunOperation) -> bytes:
        raise NoUsableFootageError("no face", subject="footage")

    jobs = runner(store, fail)
    ended = await jobs.wait((await jobs.submit("work", b"")).name, 60)
    error = error_of(ended)
    assert isinstance(error, NoUsableFootageError)
    assert error.message == "no face"
    assert ended.response is None


async def test_cancel_at_any_moment(store: OperationStore) -> None:
    """Waiting and running operations can be cancelled at any moment."""
    jobs = runner(store, for_ever)
    running, waiting, at_once = [await jobs.submit("work", b"") for _ in range(3)]
    await jobs.cancel(at_once.name)
    await asyncio.sleep(0.01)
    await jobs.cancel(waiting.name)
    await jobs.cancel(running.name)
    for record in (running, waiting, at_once):
        assert isinstance(error_of(await jobs.wait(record.name, 60)), WorkCancelledError)
    await jobs.cancel(running.name)
    with pytest.raises(OperationNotFoundError):
        await jobs.cancel("operations/none")


async def test_work_has_own_call(store: OperationStore) -> None:
    """Work has a call of its own that ends with it."""
    seen: list[call_context.Call | None] = []

    async def look(operation: BegunOperation) -> bytes:
        seen.append(call_context.current_call())
        return b""

    asked_by = call_context.Call(stage="gateway", rpc="CreateDub", deadline=0.0)
    call_context.set_current_call(asked_by)
    try:
        jobs = runner(store, look)
        await jobs.wait((await jobs.submit("work", b"")).name, 60)
    finally:
        call_context.set_current_call(None)
    (call,) = seen
    assert call is not None
    assert call is not asked_by
    assert call.deadline is None
    assert call.ended.is_set()


async def test_more_than_may_wait_is_refused(store: OperationStore) -> None:
    jobs = runner(store, for_ever, concurrent=1, queued=1)
    for _ in range(2):
        await jobs.submit("work", b"")
    with pytest.raises(OverloadedError):
        await jobs.submit("work", b"")
    await jobs.close()


async def test_two_operations_never_have_one_output(store: OperationStore) -> None:
    jobs = runner(store, for_ever)
    await jobs.submit("work", b"", output="/videos/a.mp4")
    with pytest.raises(InvalidRequestError, match="another operation writes"):
        await jobs.submit("work", b"", output="/videos/a.mp4")
    await jobs.close()


async def test_closed_runners_queue_resumes(store: OperationStore) -> None:
    """Operations that a closed runner left are resumed in their order."""
    first = runner(store, for_ever)
    names = [(await first.submit("work", str(number).encode())).name for number in range(3)]
    await asyncio.sleep(0.01)
    await first.close()
    order: list[tuple[bytes, bool]] = []

    async def note(operation: BegunOperation) -> bytes:
        order.append((operation.record.request, operation.resumed))
        return b"done"

    second = runner(store, note)
    await second.start()
    for name in names:
        assert (await second.wait(name, 60)).response == b"done"
    assert order == [(b"0", True), (b"1", True), (b"2", True)]


async def test_wait_timeout_changes_nothing(store: OperationStore) -> None:
    """A wait ends with its time and changes nothing."""
    jobs = runner(store, for_ever)
    name = (await jobs.submit("work", b"")).name
    assert not (await jobs.wait(name, 0.01)).done
    with pytest.raises(InvalidRequestError, match="cancel it first"):
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
    with pytest.raises(OperationNotFoundError):
        await jobs.get(of_ann.name)
    assert not (await jobs.get(of_bob.name)).done
    await jobs.close()


async def test_runners_share_database_by_kind(tmp_path: Path) -> None:
    """Runners of different kinds share a database and see their own operations."""
    database = Database("", tmp_path)
    videos, batches = (OperationStore(database, kinds=(kind,)) for kind in ("dub", "batch"))

    async def work(operation: BegunOperation) -> bytes:
        return operation.record.kind.encode()

    runners = {
        store: OperationRunner(store, {kind: work}, max_concurrent=2, max_queued=2)
        for store, kind in ((videos, "dub"), (batches, "batch"))
    }
    left = submitted(videos.database, "dub", b"left by a gateway that ended")
    names: dict[OperationStore, list[str]] = {batches: [], videos: [left.name]}
    for store, jobs in runners.items():
        # The start of one runner takes nothing that another one has begun.
        await jobs.start()
        for _ in range(3):
            names[store].append((await jobs.submit("batch" if store is batches else "dub", b"")).name)
            await jobs.wait(names[store][-1], 60)
    for store, jobs in runners.items():
        assert [record.name for record in store.list()] == names[store]
        other = names[videos if store is batches else batches][-1]
        with pytest.raises(OperationNotFoundError):
            await jobs.get(other)
        await jobs.close()
    database.close()


def test_open_operations_by_output(store: OperationStore) -> None:
    """Operations that have not ended are found by what they write."""
    first = submitted(store.database, "work", b"", output="a")
    second = submitted(store.database, "work", b"", output="b")
    assert store.is_written(("a", "b"), before=second.number)
    assert not store.is_written(("a", "b"), before=first.number)
    assert not store.is_written(("c",))
    store.finish(first)
    assert not store.is_written(("a",))
    assert store.is_written(("a", "b"))


async def test_bug_id_is_in_log(
    store: OperationStore,
) -> None:
    """The id of a bug that a caller gets is in the log."""

    async def fail(operation: BegunOperation) -> bytes:
        raise ZeroDivisionError("a bug")

    jobs = runner(store, fail)
    with structlog.testing.capture_logs() as lines:
        ended = await jobs.wait((await jobs.submit("work", b"")).name, 60)
    error = error_of(ended)
    assert isinstance(error, UnexpectedError)
    assert error.error_id
    (line,) = [line for line in lines if line["event"] == "operation_failed"]
    assert (line["error_id"], line["operation"], line["log_level"]) == (error.error_id, ended.name, "error")
    assert isinstance(line["exc_info"], ZeroDivisionError)


async def test_cancelled_operation_leaves_nothing(store: OperationStore) -> None:
    """Files of a cancelled operation are removed even if the operation never got its turn."""
    abandoned: list[str] = []

    async def abandon(record: OperationRecord) -> None:
        abandoned.append(record.name)
        raise OSError("a disk that went away does not keep an operation from its end")

    jobs = OperationRunner(store, {"work": for_ever}, max_concurrent=1, max_queued=4, abandon=abandon)
    running, waiting, left = [await jobs.submit("work", b"") for _ in range(3)]
    await asyncio.sleep(0.01)
    for record in (waiting, running):
        await jobs.cancel(record.name)
        assert isinstance(error_of(await jobs.wait(record.name, 60)), WorkCancelledError)
    assert abandoned == [waiting.name, running.name]
    await jobs.close()
    assert left.name not in abandoned, "it was interrupted: the next process goes on with it"


async def test_errors_are_rewritten_for_callers(store: OperationStore) -> None:
    async def fail(operation: BegunOperation) -> bytes:
        raise NoUsableFootageError("/srv/media/a.mp4 shows no face", subject="/srv/media/a.mp4")

    def rewrite(error: DubstageError, kind: str) -> DubstageError:
        error.change_texts(lambda text: text.replace("/srv/media/", ""))
        return error

    jobs = OperationRunner(store, {"work": fail}, max_concurrent=1, max_queued=4, rewrite=rewrite)
    ended = await jobs.wait((await jobs.submit("work", b"")).name, 60)
    assert error_of(ended).message == "a.mp4 shows no face"


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[dict[str, OperationStore]]:
    databases = {}
    for name in ("acme", "beta"):
        (tmp_path / name).mkdir()
        databases[name] = Database("", tmp_path / name)
    yield {name: OperationStore(database) for name, database in databases.items()}
    for database in databases.values():
        database.close()


async def test_tenants_share_the_slots_and_take_turns(stores: dict[str, OperationStore]) -> None:
    begun: list[str] = []
    most, running = 0, 0
    all_submitted = asyncio.Event()

    async def work(operation: BegunOperation) -> bytes:
        nonlocal most, running
        begun.append(current_caller().tenant)
        running += 1
        most = max(most, running)
        await all_submitted.wait()
        running -= 1
        return b""

    slots = Slots(1)
    runners = {
        name: OperationRunner(store, {"work": for_tenant(name, work)}, max_concurrent=9, max_queued=9, slots=slots)
        for name, store in stores.items()
    }
    submitted = []
    for jobs in runners.values():
        submitted += [(jobs, (await jobs.submit("work", b"")).name) for _ in range(4)]
    assert slots.load == 1.0
    all_submitted.set()
    for jobs, operation in submitted:
        assert (await jobs.wait(operation, 60)).done
    assert most == 1
    assert slots.load == 0.0
    # The tenant that came first does not have all its operations done before the other's first.
    assert begun == ["acme", "beta"] * 4
    for jobs in runners.values():
        await jobs.close()


async def test_tenants_do_not_see_operations(stores: dict[str, OperationStore]) -> None:
    """No operation of a tenant is known to another."""

    async def work(operation: BegunOperation) -> bytes:
        return b""

    acme, beta = (OperationRunner(store, {"work": work}, max_concurrent=1, max_queued=1) for store in stores.values())
    name = (await acme.submit("work", b"")).name
    assert (await acme.wait(name, 60)).done
    with pytest.raises(OperationNotFoundError):
        await beta.get(name)
    await acme.close()
    await beta.close()


async def test_the_slots_keep_no_runner_that_has_closed(stores: dict[str, OperationStore]) -> None:
    slots = Slots(1)
    jobs = OperationRunner(stores["acme"], {}, max_concurrent=1, max_queued=1, slots=slots)
    closed = weakref.ref(jobs)
    await jobs.close()
    del jobs
    gc.collect()
    assert closed() is None
