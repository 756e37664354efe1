"""Workers of one machine take turns, and leave no locks."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from gateway.batch import turns
from gateway.batch.turns import turn, turn_of_shot
from gateway.pipeline.workspace import lock_folder


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "WAIT_S", 0.02)


async def test_a_task_that_is_cancelled_while_it_locks_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locking, go_on = threading.Event(), threading.Event()

    def slow(place: Path) -> int:
        locking.set()
        assert go_on.wait(60)
        return lock_folder(place)

    async def taken() -> None:
        async with turn(tmp_path / "turn"):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(turns, "lock_folder", slow)
        cancelled = asyncio.create_task(taken())
        assert await asyncio.to_thread(locking.wait, 60)
        cancelled.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait([cancelled])
    assert cancelled.cancelled()
    await asyncio.wait_for(taken(), 60)


async def test_workers_of_one_shot_take_turns_and_workers_of_other_shots_do_not_wait(
    tmp_path: Path,
) -> None:
    inside: list[str] = []

    async def work(worker: str) -> None:
        async with turn_of_shot(tmp_path, "s3://batches/night/a"):
            inside.append(worker)
            async with turn_of_shot(tmp_path, "s3://batches/night/b"), turn_of_shot(tmp_path, "s3://batches/day/a"):
                pass
            inside.append(worker)

    async with asyncio.timeout(60):
        await asyncio.gather(work("1"), work("2"))
    assert inside in (["1", "1", "2", "2"], ["2", "2", "1", "1"])
    assert list((tmp_path / "workers").iterdir()) == []


async def test_a_shot_is_begun_without_a_lock_where_none_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "workers").write_text("a file in the place of the folder")
    async with turn_of_shot(tmp_path, "s3://batches/night/a"):
        pass
