"""Worker processes that cannot work, die or hang before their first shot. tests/system/test_batch.py has those that dub."""

import asyncio
import hashlib
import json
import os
import signal
from asyncio.subprocess import Process
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.batch import local
from gateway.batch.local import MODULE, WorkerDiedError, WorkerProcess, run_local
from gateway.batch.serve_shots import WorkerSetup
from gateway.batch.types import ShotRecord, manifest_of
from gateway.settings import GatewaySettings
from services.common.errors import ArtefactCorruptError, StageDeadlineExceededError
from services.common.server.settings import load_settings
from tests.batches import open_store
from tests.unit.batch.rows import shot_of_row


def settings_in(folder: Path, **more: object) -> GatewaySettings:
    """Settings of stages at an address without servers, so that workers wait. Servers of this machine listen at other addresses."""
    return load_settings(GatewaySettings, data_dir=folder / "data", stages_host="127.9.9.9", **more)


def setup_in(folder: Path) -> WorkerSetup:
    settings = settings_in(folder, stages_start_s=60.0)
    return WorkerSetup(settings=settings.model_dump(mode="json"), name="night", beat_s=0.2)


@dataclass
class Started:
    """Workers that were started, and the signal that each gets before it can say anything; None: no signal."""

    sends: signal.Signals | None = None
    workers: list[Process] = field(default_factory=list)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Keeps the worker processes that a test starts."""
    started, start = Started(), asyncio.create_subprocess_exec

    async def started_one(*command: Any, **more: Any) -> Process:
        worker = await start(*command, **more)
        assert MODULE in command
        if started.sends is not None:
            worker.send_signal(started.sends)
        started.workers.append(worker)
        return worker

    monkeypatch.setattr(asyncio, "create_subprocess_exec", started_one)
    return started


async def test_no_worker_can_start(tmp_path: Path) -> None:
    """If no worker can start, no shot is to blame."""
    store = open_store(tmp_path / "data")
    store.create(manifest_of("night", [shot_of_row(id="a", footage="/a.mp4", output="/b.mp4")]), "local")
    with pytest.raises(StageDeadlineExceededError):
        await run_local(settings_in(tmp_path, stages_start_s=0.2), store, "night", workers=1)
    assert store.records("night") == [ShotRecord(id="a")]


@pytest.mark.parametrize(
    ("sent", "silent_s", "said"), [(signal.SIGKILL, 60.0, "signal 9"), (signal.SIGSTOP, 0.5, "no sign of life for 0.5 s")]
)
async def test_dead_or_hanging_worker_reported(sent, silent_s, said, tmp_path, started, monkeypatch) -> None:
    """A worker that dies or hangs is reported and is gone."""
    monkeypatch.setattr(local, "SILENT_S", silent_s)
    started.sends = sent
    with pytest.raises(WorkerDiedError, match=said):
        await WorkerProcess.start(setup_in(tmp_path), tmp_path / "log")
    (worker,) = started.workers
    assert not psutil.pid_exists(worker.pid)


async def test_unreadable_network_stops_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker loads all networks before it is ready, so one that fits its description and cannot be read ends the start."""
    (tmp_path / "temporal_warp.onnx").write_bytes(b"no network")
    (tmp_path / "temporal_warp.json").write_text(json.dumps({"sha256": hashlib.sha256(b"no network").hexdigest()}))
    monkeypatch.setenv("DUBSTAGE_TEXTURE_WEIGHTS", str(tmp_path))
    settings = load_settings(GatewaySettings, data_dir=tmp_path / "data").model_dump(mode="json")
    with pytest.raises(ArtefactCorruptError, match=r"temporal_warp\.onnx is damaged"):
        await WorkerProcess.start(WorkerSetup(settings=settings, name="night", beat_s=0.2), tmp_path / "log")


async def test_worker_ignores_modules_in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "signal.py").write_text("raise SystemExit('a file of the user')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    settings = settings_in(tmp_path, stages_start_s=0.2).model_dump(mode="json")
    with pytest.raises(StageDeadlineExceededError):
        await WorkerProcess.start(setup_in(tmp_path).model_copy(update={"settings": settings}), tmp_path / "log")


async def test_worker_ends_without_engine(tmp_path: Path, started: Started) -> None:
    """A worker whose engine gives up ends by itself."""
    starting = asyncio.create_task(WorkerProcess.start(setup_in(tmp_path), tmp_path / "log"))
    while not (tmp_path / "data" / "jobs").is_dir():  # noqa: ASYNC110 - another process makes the folder
        await asyncio.sleep(0.02)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    (worker,) = started.workers
    assert not psutil.pid_exists(worker.pid)
    assert os.path.getsize(tmp_path / "log") == 0
