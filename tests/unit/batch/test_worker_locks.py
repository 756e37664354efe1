from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.batch import worker
from gateway.batch.leases import WAIT_S
from gateway.batch.types import ShotSpec
from gateway.batch.worker import folder_lock, open_worker_context, retried_while_running, same_job_key, same_job_lock
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.state import workspace
from gateway.dub.state.workspace import Workspace, lock_folder
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequestError
from services.common.methods import Finish
from services.common.server.settings import load_settings
from tests.unit.batch.rows import shot_of_row


def row(**more: Any) -> ShotSpec:
    return shot_of_row(**{"id": "a", "footage": "/f.mp4", "output": "/o.mp4", **more})


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "WAIT_S", 0.02)


@pytest.fixture
def request_(tmp_path: Path) -> DubRequest:
    footage, speech = tmp_path / "f.mp4", tmp_path / "s.wav"
    footage.write_bytes(bytes(100))
    speech.write_bytes(bytes(50))
    return DubRequest(footage=footage, speech=speech, output=tmp_path / "o.mp4", method="dubstage")


def test_shots_of_equal_work_share_lock(request_: DubRequest, tmp_path: Path) -> None:
    """Shots that differ in the file alone share one lock."""
    other = replace(request_, output=tmp_path / "other.mov", codec="prores", keep_audio=True)
    assert same_job_key(row(), request_) == same_job_key(row(id="b", output="/p.mov", codec="prores", keep_audio=True), other)


@pytest.mark.parametrize(
    "more", [{"actor": "ada"}, {"face": "speaker"}, {"expressiveness": 1.2}, {"personalize": False}, {"seed": 1}]
)
def test_shots_with_other_mouths_are_no_twins(more: dict[str, Any], request_: DubRequest) -> None:
    assert same_job_key(row(), request_) != same_job_key(row(**more), request_)


def test_chosen_defaults_make_twins(request_: DubRequest) -> None:
    """A shot that names what its method decides anyway shares the lock of a shot that does not."""
    plain = same_job_key(row(), request_)
    assert same_job_key(row(finish="bank"), replace(request_, finish=Finish.BANK)) == plain
    assert same_job_key(row(finish="renderer"), replace(request_, finish=Finish.RENDERER)) != plain
    assert same_job_key(row(expression="keep"), replace(request_, expression="keep")) == plain
    assert same_job_key(row(expression="neutral"), replace(request_, expression="neutral")) != plain


def test_other_files_make_no_twins(request_: DubRequest, tmp_path: Path) -> None:
    longer = tmp_path / "longer.mp4"
    longer.write_bytes(bytes(101))
    keys = {
        same_job_key(row(), request)
        for request in (
            request_,
            replace(request_, footage=longer),
            replace(request_, speech=longer),
            replace(request_, speech=None),
            replace(request_, method="everybody"),
            replace(request_, expression="neutral"),
            replace(request_, fit="loop"),
        )
    }
    assert len(keys) == 7


async def test_locks_serialise_and_disappear(request_: DubRequest, tmp_path: Path) -> None:
    """Shots that share a lock come one after the other and leave no lock."""
    inside: list[str] = []
    settings = load_settings(GatewaySettings, data_dir=tmp_path / "data", artefacts_url=str(tmp_path / "artefacts"))
    async with open_worker_context(settings) as context:

        async def dub(shot_id: str) -> None:
            async with same_job_lock(context, row(id=shot_id), request_):
                inside.append(shot_id)
                await asyncio.sleep(0.1)
                inside.append(shot_id)

        await asyncio.gather(dub("a"), dub("b"))
    assert inside in (["a", "a", "b", "b"], ["b", "b", "a", "a"])
    assert list((tmp_path / "data" / "workers").iterdir()) == []


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


async def test_busy_job_is_waited_for(tmp_path: Path) -> None:
    """A dub waits for a job that another process runs and for no other error. Until that job ends, the files are not read again."""
    tries: list[int] = []
    running = Workspace(tmp_path / "job")

    async def dub() -> str:
        tries.append(1)
        with Workspace(tmp_path / "job"):
            return "done"

    waiting = asyncio.create_task(retried_while_running(dub))
    await asyncio.sleep(3 * WAIT_S)
    assert len(tries) == 1
    running.close()
    assert await asyncio.wait_for(waiting, 60) == "done"
    assert len(tries) == 2

    async def wrong() -> None:
        raise InvalidRequestError("no method 'x'")

    with pytest.raises(InvalidRequestError, match="no method"):
        await retried_while_running(wrong)
