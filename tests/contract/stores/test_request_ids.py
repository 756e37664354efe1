"""Requests that come again, at several gateways of one database. Asked of SQLite and PostgreSQL."""

import asyncio
import hashlib
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import pytest

from gateway.database.session import Database
from gateway.operations.leases import SubmittedOperation
from gateway.operations.store import OperationRecord, OperationStore, RequestIdentity
from gateway.webhooks.store import EventType, WebhookStore
from services.common.errors import InvalidRequestError, RequestIdReusedError
from tests.contract.stores.test_leases import databases, gateway, queue_on, saying, url

__all__ = ["databases", "url"]

T = TypeVar("T")


def asked(request: bytes = b"q", **fields: str) -> RequestIdentity:
    return RequestIdentity(**{"request_id": str(uuid.uuid4()), "sha256": hashlib.sha256(request).hexdigest(), **fields})


def at_once(work: Callable[[int], T], number: int = 8) -> list[T]:
    """What calls return that begin at the same time in threads."""
    gate = threading.Barrier(number)

    def begin(index: int) -> T:
        gate.wait()
        return work(index)

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(begin, range(number)))


def test_same_request_is_one_operation(databases: Callable[[], Database]) -> None:
    """A request that comes eight times at once at two gateways begins one operation."""
    queues, how = [queue_on(databases()) for _ in range(2)], asked()

    def submit(index: int) -> SubmittedOperation:
        return queues[index % 2].submit("work", b"q", actor_id="", output="a.mp4", busy=(), free=1, most_waiting=1, identity=how)

    found = at_once(submit)
    assert len({one.record.name for one in found}) == 1
    assert sorted(one.repeated for one in found) == [False] + [True] * 7
    store = OperationStore(databases())
    (record,) = store.list()
    assert store.begun_by(how) == record
    with pytest.raises(RequestIdReusedError, match=how.request_id):
        store.begun_by(replace(how, sha256="0" * 64))
    assert store.begun_by(RequestIdentity()) is None
    store.delete(record.name)
    assert store.begun_by(how) is None, "the id is kept as long as the operation"


def test_other_requests_begin_operations(databases: Callable[[], Database]) -> None:
    """Requests without an id, and with ids of their own, begin one operation each."""
    queue = queue_on(databases())
    for how in (RequestIdentity(), RequestIdentity(), asked(), asked()):
        queue.submit("work", b"q", actor_id="", output="", busy=(), free=0, most_waiting=9, identity=how)
    assert len(OperationStore(databases()).list()) == 4


async def test_refused_repeat_finds_operation(databases: Callable[[], Database]) -> None:
    """A repeat that is refused because the first request has begun meanwhile is answered with the operation."""
    how = asked()
    async with gateway(databases(), saying("done")) as first, gateway(databases(), saying("done")) as second:
        begun = asyncio.Event()

        async def refused() -> OperationRecord:
            record = await first.once(how, lambda: first.submit("work", b"q", identity=how))
            begun.set()
            raise InvalidRequestError(f"{record.name} works on the file already", field="output_uri")

        found = await second.once(how, refused)
        assert begun.is_set()
        assert (await second.wait(found.name, 60)).response == b"done"
        assert (await second.once(how, refused)).name == found.name
        with pytest.raises(InvalidRequestError):
            await second.once(asked(), refused)


def test_same_webhook_is_one(databases: Callable[[], Database]) -> None:
    """A webhook that is asked for again is the same webhook with the same secret."""
    stores, how = [WebhookStore(databases()) for _ in range(2)], asked()
    made = at_once(lambda index: stores[index % 2].create("https://example.com/", [EventType.BATCH_DONE], how))
    assert len({webhook.secret for webhook, _ in made}) == 1
    assert [new for _, new in made].count(True) == 1
    with pytest.raises(RequestIdReusedError):
        stores[0].created_by(replace(how, sha256="0" * 64))
