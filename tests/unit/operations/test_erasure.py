"""Consent records of a person leave the requests of scenes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dubstage.gateway.v1.dub_pb2 import DubSpec, LineSpec
from dubstage.gateway.v1.gateway_pb2 import CreateDubRequest
from gateway.consent.messages import consent_message
from gateway.database.session import Database
from gateway.operations import erasure
from gateway.operations.erasure import SceneRecords
from gateway.operations.store import OperationStore
from services.common.errors import StorageRefusedError
from tests.operations import submitted
from tests.unit.consent.records import face, record

RECORD = consent_message(record(face=face()))


@pytest.fixture
def operations(tmp_path: Path) -> Iterator[OperationStore]:
    database = Database("", tmp_path)
    yield OperationStore(database)
    database.close()


def scene(*actors: str) -> bytes:
    """Request of a scene whose record stands for lines without a record of their own."""
    lines = [LineSpec(actor=f"actors/{actor}", consent=RECORD) for actor in actors]
    return CreateDubRequest(dub=DubSpec(consent=RECORD, lines=lines)).SerializeToString()


def test_only_scenes_of_person_change(operations: OperationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "_AT_ONCE", 2)
    requests = [scene("bob", "ann"), scene("bob", "anna"), scene("bob"), scene("cleo", "bob", "ann"), b"\0 damaged"]
    for request in requests:
        submitted(operations.database, "dub", request, actor_id="bob")
    scenes = SceneRecords(operations.database)
    assert scenes.left("ann") == (2, ["consent record of operation 1", "consent record of operation 4"])
    assert scenes.forget("ann") == {}
    assert scenes.left("ann") == (2, [])
    stored = [one.request for one in operations.list()]
    assert [RECORD.face.embedding.encode() in one for one in stored] == [False, True, True, False, False]
    assert [one for one in stored if one in requests] == [requests[1], requests[2], requests[4]]


def test_damaged_scene_of_person_refused(operations: OperationStore) -> None:
    """A damaged request that names the person may hold a record: the erasure says so, and does not skip the request."""
    submitted(operations.database, "dub", scene("bob", "ann")[:-1], actor_id="bob")
    with pytest.raises(StorageRefusedError, match="request of operation 1"):
        SceneRecords(operations.database).forget("ann")
