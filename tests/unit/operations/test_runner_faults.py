"""Callers that leave, and databases that are away or full, while a runner works."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Coroutine
from typing import Any

import pytest
import structlog.testing

from gateway.operations import execution
from gateway.operations.execution import BegunOperation
from gateway.operations.leases import OperationQueue
from gateway.operations.store import OperationRecord, OperationStore
from services.common.errors import BackendUnavailableError, OverloadedError, StorageFullError, WorkCancelledError
from tests.failing import fail_once
from tests.operations import submitted
from tests.unit.operations.runners import echo, error_of, for_ever, runner


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


# Callers that leave


async def test_stored_submission_begins_without_caller(store: OperationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A submission that is stored begins although its caller left."""
    begun, caller, admitted = asyncio.Event(), contextvars.ContextVar[str]("caller"), list[str]()

    async def work(operation: BegunOperation) -> bytes:
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


async def test_closing_runner_returns_submission(store: OperationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A submission that is being stored is given back by a runner that closes."""
    jobs = runner(store, for_ever)
    submission = Held("submit", monkeypatch)
    await submission.left_by(jobs.submit("work", b""))
    closing = asyncio.create_task(jobs.close())
    submission.goes_on.set()
    await closing
    taken, _ = OperationQueue(store.database, lease_s=None).take(9, busy=())
    assert [one.record.name for one in taken] == [record.name for record in store.list()]
    assert len(taken) == 1


async def test_begun_cancellation_completes(store: OperationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation that has begun ends the operation although its caller left."""
    jobs = runner(store, for_ever)
    _, waiting, of_ann = [await jobs.submit("work", b"", actor_id=actor) for actor in ("", "", "ann")]
    for method, call, record in (
        ("cancel", jobs.cancel(waiting.name), waiting),
        ("cancel_work_on", jobs.stop_work_on("ann"), of_ann),
    ):
        cancellation = Held(method, monkeypatch)
        await cancellation.left_by(call)
        cancellation.goes_on.set()
        assert isinstance(error_of(await jobs.wait(record.name, 60)), WorkCancelledError)
    await jobs.close()


async def test_unawaited_error_not_reported_forgotten(store: OperationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that no caller waits for is not reported as forgotten."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def refuse(unfinished: int) -> None:
        raise OverloadedError("as many as may be")

    jobs = runner(store, for_ever)
    submission = Held("submit", monkeypatch)
    await submission.left_by(jobs.submit("work", b"", admit=refuse))
    submission.goes_on.set()
    await jobs.close()
    gc.collect()
    assert reported == []


# Cancellations that were cut


async def test_next_gateway_finishes_cancellation(store: OperationStore) -> None:
    """A cancellation that a dead gateway did not finish is finished by the next."""
    record = submitted(store.database, "work", b"")
    OperationQueue(store.database, lease_s=None).cancel(record.number)
    jobs = runner(store, echo)
    await jobs.start()
    assert isinstance(error_of(await jobs.wait(record.name, 60)), WorkCancelledError)
    await jobs.close()


async def test_cancellation_outlives_stuck_process(store: OperationStore) -> None:
    """The caller was told that the operation is cancelled: no other process may end the work after all."""
    began, stops = asyncio.Event(), asyncio.Event()

    async def stubborn(operation: BegunOperation) -> bytes:
        began.set()
        try:
            return await for_ever(operation)
        finally:
            await stops.wait()

    first = runner(store, stubborn)
    record = await first.submit("work", b"")
    await began.wait()
    await first.cancel(record.name)
    # The first process dies here, as far as the next one can tell.
    again = runner(store, echo)
    await again.start()
    assert isinstance(error_of(await again.wait(record.name, 10)), WorkCancelledError)
    await again.close()
    stops.set()
    await first.close()


async def test_cancelled_operation_takes_no_slot(store: OperationStore) -> None:
    """A cancelled operation that has not ended takes no slot from others."""
    jobs = runner(store, echo)
    await jobs.start()
    OperationQueue(store.database, lease_s=None).cancel(submitted(store.database, "work", b"").number)
    for _ in range(2):
        assert (await jobs.wait((await jobs.submit("work", b"question")).name, 60)).response == b"answer to question"
    await jobs.close()


async def test_interrupted_cancellation_finishes_on_look(store: OperationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation that the database interrupts is finished by a look."""
    jobs = runner(store, for_ever)
    _, waiting = [await jobs.submit("work", b"") for _ in range(2)]
    fail_once(monkeypatch, OperationQueue, "take", BackendUnavailableError("the database is away"))
    with pytest.raises(BackendUnavailableError):
        await jobs.cancel(waiting.name)
    assert isinstance(error_of(await jobs.wait(waiting.name, 60)), WorkCancelledError)
    await jobs.close()


# A disk that is full when an operation ends


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Lets no end be stored until it is set."""
    finish, has_space = OperationStore.finish, threading.Event()

    def failing(*args: Any, **more: Any) -> OperationRecord:
        if not has_space.is_set():
            raise StorageFullError("no space left for the database", subject="database")
        return finish(*args, **more)

    monkeypatch.setattr(OperationStore, "finish", failing)
    monkeypatch.setattr(execution, "WRITE_AGAIN_S", 0.01)
    return has_space


async def test_full_disk_keeps_answer(store: OperationStore, full_disk: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation that ends while the disk is full keeps its answer."""
    monkeypatch.setattr(execution, "DATABASE_SECONDS", 0.0)
    begun: list[str] = []

    async def work(operation: BegunOperation) -> bytes:
        begun.append(operation.record.name)
        return b"video"

    jobs = runner(store, work)
    record = await jobs.submit("work", b"", output="video.mp4")
    assert not (await jobs.wait(record.name, 0.1)).done
    full_disk.set()
    assert (await jobs.wait(record.name, 60)).response == b"video"
    assert begun == [record.name]
    await jobs.close()


async def test_full_disk_close_returns_operation(store: OperationStore, full_disk: threading.Event) -> None:
    """A runner that closes while the disk is full gives the operation back."""
    jobs = runner(store, echo)
    record = await jobs.submit("work", b"")
    assert not (await jobs.wait(record.name, 0.1)).done
    with structlog.testing.capture_logs() as lines:
        await jobs.close()
    assert [line["reason"] for line in lines if line["event"] == "operation_not_written"] == ["STORAGE_FULL"]
    taken, _ = OperationQueue(store.database, lease_s=None).take(9, busy=())
    assert [one.record.name for one in taken] == [record.name]
