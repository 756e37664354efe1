"""Leases of batches and shots: one holder at a time, renewed while the holder lives, and free when it does not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.batch import leases
from gateway.batch.leases import Lease, batch_lease, shot_lease
from gateway.batch.store import BatchStore
from gateway.batch.types import manifest_of
from services.common.errors import BatchNotFoundError, InvalidRequestError
from tests.batches import names_of, open_store
from tests.unit.batch.rows import shot_of_row

NIGHT = manifest_of("night", [shot_of_row(id=name, footage="/plate.mp4", output=f"/out/{name}.mp4") for name in "ab"])


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "WAIT_S", 0.02)
    monkeypatch.setattr(leases, "RENEW_S", 0.1)


@pytest.fixture
def store(tmp_path: Path) -> BatchStore:
    found = open_store(tmp_path)
    for name in ("night", "day"):
        found.create(manifest_of(name, NIGHT.shots), "local")
    return found


def test_one_process_at_a_time_has_a_batch(store: BatchStore, tmp_path: Path) -> None:
    with (
        batch_lease(store, "night"),
        pytest.raises(InvalidRequestError, match="another SubmitBatch runs batch night"),
        batch_lease(open_store(tmp_path), "night"),
    ):
        pass
    with batch_lease(store, "night"), batch_lease(store, "day"):
        pass


def test_dead_holder_is_replaced(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was killed renews nothing, so that the next one waits for the end of the lease and goes on."""
    monkeypatch.setattr(leases, "LEASE_S", 0.5)
    monkeypatch.setattr(leases, "RENEW_S", 3600.0)
    killed = Lease(store, "night")
    assert killed.take()
    # The next holder's lease outlasts a slow machine.
    monkeypatch.setattr(leases, "LEASE_S", 60.0)
    with batch_lease(store, "night"):
        assert not killed.take()
    killed.release()


def test_long_work_keeps_its_lease(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 1.0)
    mine, other = Lease(store, "night", 0), Lease(store, "night", 0)
    assert mine.take()
    begun = mine.until()
    while mine.until() == begun:
        assert not other.take()
    mine.release()
    assert other.take()
    other.release()


def test_removed_batch_needs_no_release(store: BatchStore) -> None:
    with batch_lease(store, "night"):
        store.remove("night")
    assert names_of(store) == ["day"]
    with pytest.raises(BatchNotFoundError), batch_lease(store, "night"):
        pass


async def test_only_same_shot_waits(store: BatchStore) -> None:
    """Workers of one shot take turns and workers of other shots do not wait."""
    inside: list[str] = []

    async def work(worker: str) -> None:
        async with shot_lease(store, "night", 0):
            inside.append(worker)
            async with shot_lease(store, "night", 1), shot_lease(store, "day", 0):
                pass
            inside.append(worker)

    async with asyncio.timeout(60):
        await asyncio.gather(work("1"), work("2"))
    assert inside in (["1", "1", "2", "2"], ["2", "2", "1", "1"])
