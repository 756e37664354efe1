"""Where an enrolment works."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dubstage.motion.v1alpha1 import motion_pb2
from dubstage.render.v1alpha1 import render_pb2
from gateway.actors import create
from gateway.actors.create import EnrolRequest, create_actor
from gateway.actors.store import ActorStore
from gateway.media.probe import probe
from gateway.media.types import MediaInfo
from gateway.pipeline.analysis import folder_of
from gateway.stages.method_check import Listed
from services.common.errors import StorageFull
from services.common.store.artefacts import ArtefactStore
from tests.unit.actors.installation import actors, blobs, database_url, settings
from tests.unit.media.made_footage import make_clip

__all__ = ["actors", "blobs", "database_url", "settings"]


async def test_enrolments_for_two_methods_share_no_folder(
    actors: ActorStore, blobs: ArtefactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed enrolment left for one method lacks what another method needs."""
    folders: list[Path] = []

    async def models_for(*_: Any) -> Listed:
        return Listed(motion_pb2.ListModelsResponse(), render_pb2.ListModelsResponse())

    async def inspect(path: Path) -> MediaInfo:
        return probe(path)

    def note_folder(jobs: Path, key: str) -> Path:
        folders.append(folder_of(jobs, key))
        raise StorageFull("the enrolment ends here", subject="")

    monkeypatch.setattr(create, "models_for", models_for)
    monkeypatch.setattr(create, "inspect_film_aside", inspect)
    monkeypatch.setattr(create, "folder_of", note_folder)
    footage, stages = make_clip(tmp_path / "clip.mp4"), SimpleNamespace(face_model="")
    for method in ("ugc", "everybody", "ugc"):
        request = EnrolRequest(actor_id="ann", footage=footage, method=method)
        with pytest.raises(StorageFull, match="the enrolment ends here"):
            await create_actor(request, stages, actors, blobs, tmp_path / "jobs", on_progress=lambda *_: None)  # type: ignore[arg-type]
    first, second, third = folders
    assert first == third != second
