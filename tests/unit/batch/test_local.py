"""Tests of the local engine: its refusals and its messages to workers. tests/integration/batch/test_local.py starts workers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from gateway.batch.local import RowQueue, run_local
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


async def test_rows_are_drawn_in_order_and_each_once() -> None:
    queue = RowQueue([4, 1, 9])
    drawn = [await queue.next() for _ in range(3)]
    assert drawn == [1, 4, 9]
    for row in (1, 4, 9):
        await queue.ended(row, again_in_s=None)
    assert await queue.next() is None


async def test_without_rows_there_is_nothing_to_draw() -> None:
    assert await RowQueue([]).next() is None


async def test_idle_worker_takes_returned_row() -> None:
    """A worker without a row waits for a row that another worker gives back."""
    queue = RowQueue([0])
    assert await queue.next() == 0
    other = asyncio.create_task(queue.next())
    await asyncio.sleep(0.01)
    assert not other.done()
    await queue.ended(0, again_in_s=0.0)
    assert await other == 0
    third = asyncio.create_task(queue.next())
    await queue.ended(0, again_in_s=None)
    assert await third is None


async def test_failed_row_goes_last() -> None:
    """A row that failed rests and others come first."""
    queue = RowQueue([0, 1])
    assert await queue.next() == 0
    began = time.monotonic()
    await queue.ended(0, again_in_s=0.2)
    assert await queue.next() == 1
    assert await queue.next() == 0
    assert time.monotonic() - began >= 0.19


async def test_resting_row_blocks_nobody() -> None:
    """Others do not wait for a row that rests."""
    queue = RowQueue([0, 1])
    assert await queue.next() == 0
    await queue.ended(0, again_in_s=3600.0)
    assert await asyncio.wait_for(queue.next(), 60.0) == 1
