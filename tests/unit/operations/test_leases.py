"""Submissions whose COMMIT breaks. tests/contract/stores/test_leases.py has the leases of several gateways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from gateway.operations.leases import OperationQueue, SubmittedOperation
from gateway.operations.store import OperationStore
from services.common.errors import BackendUnavailableError, StorageRefusedError

Moment = Literal["before_commit", "after_commit"]
Break = Callable[[Moment, int], None]


@pytest.fixture
def break_at() -> Iterator[Break]:
    """Breaks the connection at the next transactions: before or after the database has done their COMMIT."""
    listening: list[tuple[Moment, Callable[[Session], None]]] = []

    def begin(moment: Moment, transactions: int) -> None:
        left = [moment] * transactions

        def cut(_: Session) -> None:
            if left:
                left.pop()
                raise OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))

        event.listen(Session, moment, cut)
        listening.append((moment, cut))

    yield begin
    for moment, cut in listening:
        event.remove(Session, moment, cut)


def submit(store: OperationStore, *, free: int = 1) -> tuple[OperationQueue, SubmittedOperation]:
    queue = OperationQueue(store.database, lease_s=None)
    return queue, queue.submit("work", b"question", actor_id="", output="video.mp4", busy=(), free=free, most_waiting=4)


@pytest.mark.parametrize(("free", "mine", "waiting"), [(1, True, 0), (0, False, 1)])
def test_unanswered_commit_is_found(store: OperationStore, break_at: Break, free: int, mine: bool, waiting: int) -> None:
    """An operation whose commit was done without an answer is found."""
    break_at("after_commit", 1)
    queue, submitted = submit(store, free=free)
    assert (submitted.mine, submitted.waiting.total()) == (mine, waiting)
    assert [submitted.record] == store.list()
    assert len(queue.take(9, busy=())[0]) == waiting


def test_uncommitted_work_is_retryable(store: OperationStore, break_at: Break) -> None:
    """An operation whose commit was not done may be asked for again."""
    break_at("before_commit", 1)
    with pytest.raises(BackendUnavailableError):
        submit(store)
    assert store.list() == []


def test_possibly_stored_work_not_retryable(store: OperationStore, break_at: Break) -> None:
    """An operation that may be stored is not to be asked for again."""
    break_at("after_commit", 2)
    with pytest.raises(StorageRefusedError, match="may have begun or not") as caught:
        submit(store)
    assert [record.name for record in store.list()] == [caught.value.subject]
