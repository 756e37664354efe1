"""Runners of several tenants share the slots of one process."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.database.database import Database
from gateway.operations.job import Job, for_tenant
from gateway.operations.runner import JobRunner
from gateway.operations.slots import Slots
from gateway.operations.store import OperationStore
from services.common.chassis.caller import current_caller
from services.common.errors import OperationNotFound


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

    async def work(job: Job) -> bytes:
        nonlocal most, running
        begun.append(current_caller().tenant)
        running += 1
        most = max(most, running)
        await all_submitted.wait()
        running -= 1
        return b""

    slots = Slots(1)
    runners = {
        name: JobRunner(store, {"work": for_tenant(name, work)}, max_concurrent=9, max_queued=9, slots=slots)
        for name, store in stores.items()
    }
    submitted = []
    for jobs in runners.values():
        submitted += [(jobs, (await jobs.submit("work", b"")).name) for _ in range(4)]
    all_submitted.set()
    for jobs, operation in submitted:
        assert (await jobs.wait(operation, 60)).done
    assert most == 1
    # The tenant that came first does not have all its operations done before the other's first.
    assert begun == ["acme", "beta"] * 4
    for jobs in runners.values():
        await jobs.close()


async def test_no_operation_of_a_tenant_is_known_to_another(stores: dict[str, OperationStore]) -> None:
    async def work(job: Job) -> bytes:
        return b""

    acme, beta = (JobRunner(store, {"work": work}, max_concurrent=1, max_queued=1) for store in stores.values())
    name = (await acme.submit("work", b"")).name
    assert (await acme.wait(name, 60)).done
    with pytest.raises(OperationNotFound):
        await beta.get(name)
    await acme.close()
    await beta.close()


async def test_the_slots_keep_no_runner_that_has_closed(stores: dict[str, OperationStore]) -> None:
    slots = Slots(1)
    jobs = JobRunner(stores["acme"], {}, max_concurrent=1, max_queued=1, slots=slots)
    closed = weakref.ref(jobs)
    await jobs.close()
    del jobs
    gc.collect()
    assert closed() is None
