"""Old batches whose shots have all ended go, by age and by size; batches with work left stay."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import update

from gateway.batch.expiry import expire_batches
from gateway.batch.leases import batch_lease
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState, manifest_of
from gateway.database.tables import BatchRow
from gateway.settings import GatewaySettings
from services.common.server.settings import load_settings
from tests.batches import names_of, open_store
from tests.unit.batch.rows import shot_of_row

DAY_S = 86400


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    return load_settings(GatewaySettings, data_dir=tmp_path, batch_max_age_days=30)


@pytest.fixture
def store(settings: GatewaySettings) -> BatchStore:
    return open_store(settings.data_dir)


def days_ago(days: float) -> str:
    return (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def batch(
    store: BatchStore,
    name: str,
    *,
    made: float,
    ended: Sequence[float | None] = (),
    cancelled: int = 0,
    picture_bytes: int = 10,
) -> None:
    """A batch that was made so many days ago, with the age of each shot's end (None: it runs), and shots cancelled early."""
    shots = [
        shot_of_row(id=f"s{number}", footage="/plate.mp4", output=f"/out/{number}.mp4") for number in range(len(ended) + cancelled)
    ]
    store.create(manifest_of(name, shots), "local")
    with store.database.writing() as session:
        session.execute(update(BatchRow).where(BatchRow.name == name).values(created_at=days_ago(made)))
    for shot, age in zip(shots, ended, strict=False):
        state = ShotState.RUNNING if age is None else ShotState.DONE
        store.put(name, ShotRecord(id=shot.id, state=state, ended_at="" if age is None else days_ago(age)))
        store.put_thumbnail(name, shot.id, bytes(picture_bytes))
    store.cancel(name, [shot.id for shot in shots[len(ended) :]])


def never(name: str) -> bool:
    return False


def test_batches_expire_after_last_shot(settings: GatewaySettings, store: BatchStore) -> None:
    """Batches expire when the last shot ended long ago."""
    batch(store, "old", made=50, ended=[49, 40])
    batch(store, "old-and-cancelled", made=50, ended=[49], cancelled=2)
    batch(store, "retried", made=50, ended=[49, 2])
    batch(store, "running", made=50, ended=[49, None])
    batch(store, "young", made=20, ended=[19, 19])
    store.create(manifest_of("waiting", [shot_of_row(id="s1", footage="/plate.mp4", output="/out/w.mp4")]), "local")
    assert expire_batches(settings, store, never) == ["old", "old-and-cancelled"]
    assert names_of(store) == ["retried", "running", "waiting", "young"]
    assert expire_batches(settings.model_copy(update={"batch_max_age_days": 0.0}), store, never) == []


def test_batch_under_gateway_stays(settings: GatewaySettings, store: BatchStore) -> None:
    """A batch that a gateway still looks at stays."""
    for name in ("looked-at", "left"):
        batch(store, name, made=50, ended=[49])
    assert expire_batches(settings, store, lambda name: name == "looked-at") == ["left"]
    assert names_of(store) == ["looked-at"]


def test_batch_under_command_stays(settings: GatewaySettings, store: BatchStore) -> None:
    """A batch whose videos a command looks at stays."""
    batch(store, "old", made=50, ended=[49])
    with batch_lease(store, "old"):
        assert expire_batches(settings, store, never) == []
    assert expire_batches(settings, store, never) == ["old"]


def test_oldest_batches_go_above_limit(settings: GatewaySettings, store: BatchStore) -> None:
    """The oldest batches go where all are too large."""
    for name, made in (("c", 3), ("a", 2), ("b", 1)):
        batch(store, name, made=made, ended=[made, made], picture_bytes=50_000)
    batch(store, "running", made=4, ended=[None], picture_bytes=50_000)
    assert 300_000 < sum(store.sizes_bytes().values()) < 400_000
    limited = settings.model_copy(update={"batches_max_bytes": 270_000})
    assert expire_batches(limited, store, never) == ["c"]
    assert expire_batches(limited, store, never) == []
    assert expire_batches(limited.model_copy(update={"batches_max_bytes": 1}), store, never) == ["a", "b"]
    assert names_of(store) == ["running"]


def test_worker_logs_expire(settings: GatewaySettings, store: BatchStore) -> None:
    """Logs of workers are as old as batches at most."""
    logs = settings.data_dir / "workers"
    logs.mkdir()
    old, young = logs / "night-0.log", logs / "night-1.log"
    for log in (old, young):
        log.write_text("what a worker printed")
    os.utime(old, (0, 0))
    expire_batches(settings, store, never)
    assert (old.exists(), young.exists()) == (False, True)
