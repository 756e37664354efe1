"""Tests of the folder of an enrolment, and of footage that changes meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2
from dubstage.render.v1 import render_pb2
from gateway.actors import create
from gateway.actors.create import EnrolRequest, create_actor
from gateway.actors.store import ActorStore
from gateway.actors.stored import StoredActor
from gateway.consent.record import Consent
from gateway.dub.analyse.face_choice import ChosenFace
from gateway.dub.analyse.face_records import FaceIndex
from gateway.dub.learn.analysis import FootageAnalysis, folder_of
from gateway.dub.learn.enrol import EnrolledActor
from gateway.dub.learn.live_span import LIVE_SPAN, LiveSpan
from gateway.dub.state.records import FACE_RECORD
from gateway.media.probe import probe
from gateway.media.types import MediaInfo
from gateway.stages.opening import ListedModels
from services.common.errors import InvalidRequestError, StorageFullError
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactStore
from tests.unit.actors.installation import actors, blobs, database_url, geometry, learned, settings
from tests.unit.consent.records import face, record
from tests.unit.media.made_footage import make_clip

__all__ = ["actors", "blobs", "database_url", "geometry", "settings"]
FREE = SimpleNamespace(covers=lambda faces: [None] * len(faces))
"""Looks of a face that nothing covers."""
Enrol = Callable[[Callable[[], None]], Awaitable[StoredActor]]
"""Enrols ann from `clip.mp4`, and calls a function while the person is learned."""


@pytest.fixture(autouse=True)
def no_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let enrolments ask no stage, and inspect footage in this process."""

    async def models_for(*_: Any) -> ListedModels:
        return ListedModels(motion_pb2.ListModelsResponse(), render_pb2.ListModelsResponse())

    async def inspect(path: Path) -> MediaInfo:
        return probe(path)

    monkeypatch.setattr(create, "models_for", models_for)
    monkeypatch.setattr(create, "inspect_in_child", inspect)


def noted_folders(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Let each enrolment end at its folder, and return the list that gets the folders."""
    folders: list[Path] = []

    def note_folder(jobs: Path, key: str) -> Path:
        folders.append(folder_of(jobs, key))
        raise StorageFullError("the enrolment ends here", subject="")

    monkeypatch.setattr(create, "folder_of", note_folder)
    return folders


async def enrol_until_folder(
    actors: ActorStore, blobs: ArtefactStore, folder: Path, method: str, consent: Consent | None = None
) -> None:
    """Begin to enrol ann, after `noted_folders`."""
    footage, stages = folder / "clip.mp4", SimpleNamespace(face_model="", call_deadline_s=None)
    if not footage.exists():
        make_clip(footage)
    request = EnrolRequest(actor_id="ann", footage=footage, method=method, consent=consent)
    with pytest.raises(StorageFullError, match="the enrolment ends here"):
        await create_actor(request, stages, actors, blobs, folder / "jobs", on_progress=lambda *_: None)  # type: ignore[arg-type]


async def test_enrolments_for_two_methods_share_no_folder(
    actors: ActorStore, blobs: ArtefactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal of a killed enrolment for one method lacks steps that another method needs."""
    folders = noted_folders(monkeypatch)
    for method in ("dubstage", "everybody", "dubstage"):
        await enrol_until_folder(actors, blobs, tmp_path, method)
    first, second, third = folders
    assert first == third != second


async def test_embedded_faces_have_other_folder(
    actors: ActorStore, blobs: ArtefactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped enrolment has embedded no face. With a record that names the person by the face, it begins anew."""
    folders = noted_folders(monkeypatch)
    for consent in (None, record(), record(face=face())):
        await enrol_until_folder(actors, blobs, tmp_path, "dubstage", consent)
    without, unnamed, named = folders
    assert without == unnamed != named


@pytest.fixture
def enrol(
    actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Enrol:
    footage = make_clip(tmp_path / "clip.mp4")

    async def open_shot(*_: Any, **__: Any) -> Any:
        faces = SimpleNamespace(
            read_rows=lambda rows: np.zeros(len(rows), FACE_RECORD), read=lambda begin, end: np.zeros(end - begin, FACE_RECORD)
        )
        two = np.arange(2, dtype=np.int32)
        area, centre = np.array([400.0, 100.0], np.float32), np.array([[50.0, 60.0], [200.0, 60.0]], np.float32)
        index = FaceIndex(np.zeros(2, np.int32), two, np.full(2, common_pb2.FRAME_REASON_DUBBED, np.int32), area, centre, (), 3)
        method = SimpleNamespace(name="dubstage")
        info, rows, workspace = probe(footage), np.array([0, 1, -1]), SimpleNamespace(faces=faces)
        chosen = ChosenFace(0, "the largest of 2 faces")
        return SimpleNamespace(
            info=info, rows=rows, workspace=workspace, index=index, face_id=0, chosen=chosen, looks=lambda: FREE, method=method
        )

    async def run(meanwhile: Callable[[], None]) -> StoredActor:
        async def learn(*_: Any) -> EnrolledActor:
            meanwhile()
            return learned(blobs, "ann", geometry)

        monkeypatch.setattr(create, "_learn", learn)
        request, stages = (
            EnrolRequest(actor_id="ann", footage=footage, method="dubstage"),
            SimpleNamespace(face_model="", call_deadline_s=None),
        )
        return await create_actor(request, stages, actors, blobs, tmp_path / "jobs", on_progress=lambda *_: None)  # type: ignore[arg-type]

    monkeypatch.setattr(FootageAnalysis, "open", open_shot)
    return run


async def test_live_footage_is_kept(enrol: Enrol, blobs: ArtefactStore, tmp_path: Path) -> None:
    """The footage of an actor is kept for live streams."""
    actor = await enrol(lambda: None)
    assert blobs.get_bytes(actor.artefacts["footage"]) == (tmp_path / "clip.mp4").read_bytes()
    assert actor.artefacts["footage"].sha256 == actor.footage_sha256


async def test_longest_stretch_is_kept_for_live(blobs: ArtefactStore, tmp_path: Path) -> None:
    """The enrolment chooses the frames that live streams show: the longest stretch between a lost frame and a cut."""
    footage, rows = make_clip(tmp_path / "clip.mp4"), np.array([0, -1, *range(1, 11)])
    records = np.zeros(11, FACE_RECORD)
    records["frame"], records["scale"], records["rotation"] = np.flatnonzero(rows >= 0), 1.0, np.eye(3)
    usable = np.full(11, common_pb2.FRAME_REASON_DUBBED, np.int32)
    sizes, centres = np.full(11, 400.0, np.float32), np.zeros((11, 2), np.float32)
    index = FaceIndex(records["frame"].astype(np.int32), np.zeros(11, np.int32), usable, sizes, centres, (0, 9), 12)
    workspace = SimpleNamespace(faces=SimpleNamespace(read_rows=lambda rows: records[rows]))
    shot: Any = SimpleNamespace(info=probe(footage), rows=rows, workspace=workspace, index=index, looks=lambda: FREE)

    async def note(_: Any) -> bool:
        return True

    kept = await create._keep_for_live(shot, footage, blobs, note)
    assert LiveSpan.of_arrays(blobs.get_arrays(kept[LIVE_SPAN]).arrays).frames.tolist() == list(range(2, 9))


async def test_enrolment_warns_of_several_people(enrol: Enrol) -> None:
    """An enrolment from footage of several people warns of the face that was taken."""
    actor = await enrol(lambda: None)
    assert any("shows 2 faces, and face 0 (at " in warning for warning in actor.warnings)


async def test_changing_footage_refused(enrol: Enrol, actors: ActorStore, blobs: ArtefactStore, tmp_path: Path) -> None:
    """Footage that changes while the person is enrolled is refused and not kept."""
    footage = tmp_path / "clip.mp4"

    def change() -> None:
        with footage.open("ab") as file:
            file.write(b"another take")

    with pytest.raises(InvalidRequestError, match=r"clip\.mp4 changed while the person was enrolled"):
        await enrol(change)
    assert actors.find("ann") is None
    assert footage.stat().st_size not in [blob.ref.size_bytes for blob in blobs.stored()]
