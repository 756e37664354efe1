"""Tests of the locks of workers on one machine, and of the lock of a batch, which is deleted with the batch."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from gateway.batch import locks
from gateway.batch.locks import batch_lock, folder_lock, shot_lock
from gateway.batch.store import BatchStore
from gateway.batch.types import manifest_of
from gateway.dub import workspace
from gateway.dub.workspace import lock_folder
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequestError
from services.common.server.settings import load_settings
from tests.batches import names_of, open_store
from tests.unit.batch.rows import shot_of_row

NIGHT = manifest_of("night", [shot_of_row(id="a", footage="/plate.mp4", output="/out/a.mp4")])


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    return load_settings(GatewaySettings, data_dir=tmp_path / "data")


@pytest.fixture
def store(tmp_path: Path) -> BatchStore:
    found = open_store(tmp_path / "batches")
    found.create(NIGHT, "local")
    return found


def test_one_process_at_a_time_has_a_batch(settings: GatewaySettings, store: BatchStore) -> None:
    with (
        batch_lock(settings, store, "night"),
        pytest.raises(InvalidRequestError, match="runs batch night on this machine"),
        batch_lock(settings, store, "night"),
    ):
        pass
    with batch_lock(settings, store, "night"):
        pass
    assert names_of(store) == ["night"]


def test_a_removed_batch_leaves_no_folder(settings: GatewaySettings, store: BatchStore, tmp_path: Path) -> None:
    with batch_lock(settings, store, "night"):
        store.remove("night")
    assert list((tmp_path / "batches").iterdir()) == []
    with batch_lock(settings, store, "night"):
        pass
    assert list((tmp_path / "batches").iterdir()) == [], "a process that comes too late leaves none either"


def test_removed_bucket_batch_drops_lock(settings: GatewaySettings, tmp_path: Path) -> None:
    """The lock of a removed batch in a bucket goes too."""
    bucket = BatchStore(f"memory://{tmp_path.name}/batches")
    bucket.create(NIGHT, "local")
    with batch_lock(settings, bucket, "night"):
        bucket.remove("night")
    assert list((settings.data_dir / "workers").iterdir()) == []


def test_concurrently_created_batch_stays(settings: GatewaySettings, store: BatchStore, tmp_path: Path) -> None:
    """A batch that another process makes at once under the name stays."""
    other = BatchStore(store.database)
    with batch_lock(settings, store, "night"):
        store.remove("night")
        # The rows of the new batch are there, and its facts are not yet.
        (tmp_path / "batches" / "night" / "manifest.jsonl").write_bytes(NIGHT.content)
    other.create(NIGHT, "local")
    assert other.manifest("night") == list(NIGHT.shots)
    with batch_lock(settings, other, "night"):
        assert sorted(path.name for path in (tmp_path / "batches" / "night").iterdir()) == ["batch.json", "lock", "manifest.jsonl"]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "WAIT_S", 0.02)


async def test_cancelled_locking_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is cancelled while it locks leaves no lock."""
    locking, go_on = threading.Event(), threading.Event()

    def slow(place: Path) -> int:
        locking.set()
        assert go_on.wait(60)
        return lock_folder(place)

    async def taken() -> None:
        async with folder_lock(tmp_path / "turn"):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(workspace, "lock_folder", slow)
        cancelled = asyncio.create_task(taken())
        assert await asyncio.to_thread(locking.wait, 60)
        cancelled.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait([cancelled])
    assert cancelled.cancelled()
    await asyncio.wait_for(taken(), 60)


async def test_only_same_shot_waits(
    tmp_path: Path,
) -> None:
    """Workers of one shot take turns and workers of other shots do not wait."""
    inside: list[str] = []

    async def work(worker: str) -> None:
        async with shot_lock(tmp_path, "s3://batches/night/a"):
            inside.append(worker)
            async with shot_lock(tmp_path, "s3://batches/night/b"), shot_lock(tmp_path, "s3://batches/day/a"):
                pass
            inside.append(worker)

    async with asyncio.timeout(60):
        await asyncio.gather(work("1"), work("2"))
    assert inside in (["1", "1", "2", "2"], ["2", "2", "1", "1"])
    assert list((tmp_path / "workers").iterdir()) == []


async def test_shot_begins_without_possible_lock(tmp_path: Path) -> None:
    """A shot is begun without a lock where none can be made."""
    (tmp_path / "workers").write_text("a file in the place of the folder")
    async with shot_lock(tmp_path, "s3://batches/night/a"):
        pass
