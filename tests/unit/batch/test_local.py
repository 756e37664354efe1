"""Tests of the local engine: its refusals and its messages to workers. tests/integration/batch/test_local.py starts workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.batch.local import run_local
from gateway.batch.serve_shots import WorkerAnswer, WorkerSetup
from gateway.settings import GatewaySettings
from services.common.errors import BatchNotFoundError, StorageFullError, UnexpectedError
from services.common.server.settings import load_settings
from tests.batches import open_store


async def test_missing_batch_leaves_nothing(tmp_path: Path) -> None:
    """A batch that is not there is refused and leaves nothing."""
    with pytest.raises(BatchNotFoundError, match="no batch 'night'"):
        await run_local(load_settings(GatewaySettings, data_dir=tmp_path / "data"), open_store(tmp_path), "night", workers=1)


def test_settings_reach_workers(tmp_path: Path) -> None:
    """The settings of a command reach its workers whole."""
    settings = load_settings(
        GatewaySettings, data_dir=tmp_path / "data", require_consent=True, compute_threads=3, media_dir=tmp_path
    )
    setup = WorkerSetup(settings=settings.model_dump(mode="json"), name="night", beat_s=1.0)
    assert WorkerSetup.parsed(setup.line()).gateway_settings() == settings


def test_an_error_of_a_worker_keeps_its_kind() -> None:
    error = WorkerAnswer.parsed(WorkerAnswer.unusable(StorageFullError("no space left in /data")).line()).error()
    assert (type(error), error.message) == (StorageFullError, "no space left in /data")
    assert isinstance(WorkerAnswer.parsed(b'{"kind": "unusable", "reason": "NEWS", "message": "x"}').error(), UnexpectedError)
