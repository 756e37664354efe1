"""Files of a cancelled operation are removed in the folder of jobs and the media folder only."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import select

from gateway.actors.installation import Installation
from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.api.context import TenantContext
from gateway.database.tables import JobFolderRow
from gateway.engine import Engine
from gateway.media.output import OutputFile
from gateway.safe_paths import confine
from gateway.settings import GatewaySettings
from services.common.errors import BackendUnavailableError
from services.common.store.artefacts import ArtefactStore
from tests.failing import fail_once
from tests.operations import submitted
from tests.unit.actors.installation import actors, blobs, database_url, settings

__all__ = ["actors", "blobs", "database_url", "settings"]


def half_a_video(folder: Path) -> Path:
    """A video whose writer was killed."""
    folder.mkdir(parents=True, exist_ok=True)
    video = folder / "video.mp4"
    output = OutputFile(video)
    output.prepare()
    (partial,) = folder.iterdir()
    kept = partial.read_bytes()
    output.discard()
    partial.write_bytes(kept)
    return video


def context_of(actors: ActorStore, blobs: ArtefactStore, settings: GatewaySettings) -> TenantContext:
    none = cast("Any", None)
    return TenantContext(engine=Engine.of(Installation(settings, actors, blobs)), media=none, names=none, quota=none)


@pytest.mark.parametrize("output", ["media", "elsewhere", "media/../elsewhere"])
@pytest.mark.parametrize("job", ["data/jobs/1", "elsewhere", "data/jobs/../../elsewhere"])
async def test_cancellation_removes_only_own_files(
    actors: ActorStore, blobs: ArtefactStore, settings: GatewaySettings, tmp_path: Path, job: str, output: str
) -> None:
    """A cancelled operation removes nothing outside of jobs and media."""
    confine(tmp_path / "media")
    videos = {name: half_a_video(tmp_path / name) for name in ("media", "elsewhere")}
    folders = [settings.data_dir / "jobs" / "1", tmp_path / "elsewhere"]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "faces.bin").write_bytes(b"face")
    record = submitted(actors.database, "dub", b"request", output=f"{tmp_path}/{output}/video.mp4")
    actors.jobs.begin(Path(f"{tmp_path}/{job}"), belongs_to=record.name)
    await context_of(actors, blobs, settings).abandon(record)
    assert (tmp_path / "elsewhere" / "faces.bin").exists()
    assert folders[0].exists() is (job != "data/jobs/1")
    left = {name: bool(list(video.parent.glob(".dubstage-*"))) for name, video in videos.items()}
    assert left == {"media": output != "media", "elsewhere": True}
    with actors.database.reading() as session:
        assert session.scalars(select(JobFolderRow)).all() == []


async def test_failed_removal_is_logged(
    actors: ActorStore, blobs: ArtefactStore, settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished operation does not fail because a folder of another process cannot be removed. Its row stays for later."""
    record = submitted(actors.database, "dub", b"request")
    folder = settings.data_dir / "jobs" / "1"
    folder.mkdir(parents=True)
    actors.jobs.begin(folder, belongs_to=record.name)
    context = context_of(actors, blobs, settings)
    fail_once(monkeypatch, JobLedger, "release", BackendUnavailableError("the database restarts"))
    await context.forget_others(record)
    assert actors.jobs.folders_of(record.name) == [str(folder)]
    await context.forget_others(record)
    assert not folder.exists()
