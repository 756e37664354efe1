"""Tests of the audit log of batches that callers of a gateway retry: it records the retry alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.api.batches import Batches
from gateway.api.context import OpenedStages, ProcessContext, TenantStorage
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState, manifest_of
from gateway.operations.runner import OperationRunner
from gateway.settings import GatewaySettings
from gateway.tenants.limits import Limits
from services.common.errors import BackendUnavailableError, BatchNotFoundError
from services.common.server.settings import load_settings
from tests.unit.batch.rows import shot_of_row


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    return load_settings(GatewaySettings, data_dir=tmp_path / "data", artefacts_url=str(tmp_path / "artefacts"), media_dir=tmp_path)


@pytest.fixture
def installation(settings: GatewaySettings) -> Iterator[TenantStorage]:
    found = TenantStorage(settings, Limits(None))
    yield found
    found.close()


@pytest.fixture
def store(installation: TenantStorage) -> BatchStore:
    """Store with a batch of one shot, which failed."""
    found = BatchStore(installation.context.engine.actors.database)
    found.create(manifest_of("night", [shot_of_row(id="a", footage="/plate.mp4", output="/video.mp4")]), "gateway")
    found.put("night", ShotRecord(id="a", state=ShotState.FAILED, exit_code=10))
    return found


def events(installation: TenantStorage) -> list[str]:
    return [entry["event"] for entry in installation.context.engine.actors.audit.newest(10)]


async def test_retry_is_recorded_once(
    settings: GatewaySettings, installation: TenantStorage, store: BatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry is recorded once the shots wait again."""

    async def away(*_: object, **__: object) -> None:
        raise BackendUnavailableError("the database is away")

    monkeypatch.setattr(OperationRunner, "submit", away)
    batches = Batches(settings, installation.context, ProcessContext.of(settings, OpenedStages(settings)))
    with pytest.raises(BatchNotFoundError, match="no shot 'b'"):
        await batches.retry("night", ["b"])
    assert events(installation) == []
    # The shot begins anew in any case: the next submission or gateway dubs it.
    with pytest.raises(BackendUnavailableError):
        await batches.retry("night", ["a"])
    assert store.record("night", "a").state is ShotState.WAITING
    assert events(installation) == ["batch.retried"]
