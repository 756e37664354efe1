"""The lock of a batch goes with the batch, and with nothing that another process makes meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.batch.alone import alone
from gateway.batch.manifest import manifest_of
from gateway.batch.store import BatchStore
from gateway.batch.types import Shot
from gateway.settings import GatewaySettings
from services.common.chassis.settings import load_settings
from services.common.errors import InvalidRequest

NIGHT = manifest_of("night", [Shot(id="a", footage="/plate.mp4", output="/out/a.mp4")])


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    return load_settings(GatewaySettings, data_dir=tmp_path / "data")


@pytest.fixture
def store(tmp_path: Path) -> BatchStore:
    found = BatchStore(str(tmp_path / "batches"))
    found.create(NIGHT, "local")
    return found


def test_one_process_at_a_time_has_a_batch(settings: GatewaySettings, store: BatchStore) -> None:
    with (
        alone(settings, store, "night"),
        pytest.raises(InvalidRequest, match="runs batch night on this machine"),
        alone(settings, store, "night"),
    ):
        pass
    with alone(settings, store, "night"):
        pass
    assert store.names() == ["night"]


def test_a_removed_batch_leaves_no_folder(settings: GatewaySettings, store: BatchStore, tmp_path: Path) -> None:
    with alone(settings, store, "night"):
        store.remove("night")
    assert list((tmp_path / "batches").iterdir()) == []
    with alone(settings, store, "night"):
        pass
    assert list((tmp_path / "batches").iterdir()) == [], "a process that comes too late leaves none either"


def test_the_lock_of_a_removed_batch_in_a_bucket_goes_too(settings: GatewaySettings, tmp_path: Path) -> None:
    bucket = BatchStore(f"memory://{tmp_path.name}/batches")
    bucket.create(NIGHT, "local")
    with alone(settings, bucket, "night"):
        bucket.remove("night")
    assert list((settings.data_dir / "workers").iterdir()) == []


def test_a_batch_that_another_process_makes_at_once_under_the_name_stays(
    settings: GatewaySettings, store: BatchStore, tmp_path: Path
) -> None:
    other = BatchStore(store.url)
    with alone(settings, store, "night"):
        store.remove("night")
        # The rows of the new batch are there, and its facts are not yet.
        (tmp_path / "batches" / "night" / "manifest.jsonl").write_bytes(NIGHT.content)
    other.create(NIGHT, "local")
    assert other.manifest("night") == list(NIGHT.shots)
    with alone(settings, other, "night"):
        assert sorted(path.name for path in (tmp_path / "batches" / "night").iterdir()) == ["batch.json", "lock", "manifest.jsonl"]
