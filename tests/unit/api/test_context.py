"""Files of a cancelled operation are removed in the folder of jobs and the media folder only."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import select

from gateway.actors.store import ActorStore
from gateway.api.context import TenantContext
from gateway.database.tables import JobFolderRow
from gateway.media.output import OutputFile
from gateway.operations.store import OperationStore
from gateway.safe_paths import confine
from gateway.settings import GatewaySettings
from services.common.store.artefacts import ArtefactStore
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
    record = OperationStore(actors.database).add("dub", b"request", output=f"{tmp_path}/{output}/video.mp4")
    actors.jobs.begin(Path(f"{tmp_path}/{job}"), belongs_to=record.name)
    none = cast("Any", None)
    context = TenantContext(
        actors=actors,
        artefacts=blobs,
        jobs=settings.data_dir / "jobs",
        media=none,
        threads=1,
        names=none,
        max_job_bytes=1 << 20,
        analyses_bytes=0,
        sealer=none,
        quota=none,
    )
    await context.abandon(record)
    assert (tmp_path / "elsewhere" / "faces.bin").exists()
    assert folders[0].exists() is (job != "data/jobs/1")
    left = {name: bool(list(video.parent.glob(".dubstage-*"))) for name, video in videos.items()}
    assert left == {"media": output != "media", "elsewhere": True}
    with actors.database.reading() as session:
        assert session.scalars(select(JobFolderRow)).all() == []
