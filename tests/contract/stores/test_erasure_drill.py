"""Erasure drill over SQLite and a folder, and over PostgreSQL and S3: nothing is left, and what is left is told."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dubstage.gateway.v1.dub_pb2 import DubSpec, LineSpec
from dubstage.gateway.v1.gateway_pb2 import CreateDubRequest
from gateway.actors.ledger import JobLedger
from gateway.actors.receipts import verified
from gateway.actors.store import ActorStore
from gateway.audit.entries import AuditEvent, EventKind
from gateway.batch.erasure import other_stores
from gateway.batch.store import BatchStore
from gateway.batch.types import manifest_of
from gateway.consent.messages import consent_message
from gateway.dub.request.spec import actors_of, records_of
from gateway.dub.state.journal import Journal
from gateway.operations.store import OperationStore
from gateway.settings import GatewaySettings
from gateway.signatures import installation_key
from services.common.errors import ActorError, StorageRefusedError
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from tests.contract.stores.people import keep
from tests.contract.stores.programs import begun
from tests.contract.stores.s3_servers import BUCKET, S3Server
from tests.operations import submitted
from tests.unit.batch.rows import shot_of_row
from tests.unit.consent.records import face, record

_APPEND = """
import sys
from pathlib import Path
from gateway.audit.entries import AuditEvent, EventKind
from gateway.audit.log import AuditLog
from tests.unit.batch.rows import shot_of_row
from gateway.database.session import Database

log = AuditLog(Database(sys.argv[1], Path(sys.argv[2])))
for number in range(40):
    log.record(AuditEvent(event=EventKind.DUB_BEGUN, work=f"{sys.argv[3]}/{number}"))
"""


@pytest.fixture(params=["sqlite and a folder", "postgresql and s3"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> GatewaySettings:
    data = tmp_path / "data"
    if request.param == "sqlite and a folder":
        return GatewaySettings(data_dir=data, artefacts_url=str(tmp_path / "artefacts"))
    server: S3Server = request.getfixturevalue("s3")
    request.getfixturevalue("aws")(server.endpoint)
    where = f"s3://{BUCKET}/drill-{abs(hash(request.node.nodeid))}"
    url: str = request.getfixturevalue("postgres_url")
    return GatewaySettings(data_dir=data, database_url=url, artefacts_url=f"{where}/artefacts")


@pytest.fixture
def batches(actors: ActorStore) -> BatchStore:
    return BatchStore(actors.database)


@pytest.fixture
def job(actors: ActorStore, blobs: ArtefactStore, batches: BatchStore, geometry: ActorGeometry, settings: GatewaySettings) -> Path:
    """Ann with footage, an interrupted dub, an operation and a picture in a batch; Bob stays. The folder of the dub."""
    for name in ("ann", "bob"):
        more = {"footage": blobs.put_bytes(f"footage of {name}".encode())}
        keep(actors, blobs, geometry, name, more=more)
    folder = settings.data_dir / "jobs" / "1"
    ledger = JobLedger(actors, ["ann"])
    ledger.begin(folder)
    Journal(folder / "journal", blobs, lambda ref: ledger.hold(folder, ref)).record("first", {"box": np.full(64, 1, np.uint8)})
    (folder / "faces.bin").write_bytes(b"faces of ann")
    submitted(actors.database, "dub", b"dub of ann", actor_id="ann")
    shots = [shot_of_row(id=f"s{name}", footage="/plate.mp4", output=f"/{name}.mp4", actor=name) for name in ("ann", "bob")]
    batches.create(manifest_of("night", shots), "farm")
    for name in ("ann", "bob"):
        batches.put_thumbnail("night", f"s{name}", f"picture of {name}".encode())
    return folder


def erase(actors: ActorStore) -> str:
    return actors.erasures.erase_or_ask("ann", other_stores(actors.database)).to_json()


def test_erasure_leaves_nothing(actors, blobs, batches, settings, job) -> None:
    """Nothing of the person is left and the receipt says so."""
    own = {ref.sha256 for ref in actors.get("bob").artefacts.values()}
    receipt = verified(erase(actors).encode(), lambda _: installation_key(settings.data_dir).public)
    assert {kind: len(digests) for kind, digests in receipt.document["erased"].items()} == {
        "bank": 1,
        "batch picture": 1,
        "enrolment": 1,
        "footage": 1,
        "job": 1,
        "job file": 2,
        "renderer": 1,
        "style": 1,
    }
    others = {store.place for store in other_stores(actors.database)}
    places = {one["place"] for one in receipt.document["looked_at"] if one["left"] == 0}
    assert places == {"database", "artefact store", "data folder (jobs, journals, uploads)", *others}
    assert "backups" in receipt.document["out_of_reach"][0]
    assert {blob.ref.sha256 for blob in blobs.stored()} == own
    assert not job.exists()
    assert batches.thumbnails("night", ["sann", "sbob"]).keys() == {"sbob"}
    assert OperationStore(actors.database).list() == []
    assert actors.audit.newest(1)[0]["event"] == "actor.erased"
    for work in (actors.get, actors.erasures.check, actors.erasures.erase_or_ask):
        with pytest.raises(ActorError, match="'ann'"):
            work("ann")
    with pytest.raises(ActorError, match="'ann'"):
        JobLedger(actors, ["ann"]).begin(job)


def test_consent_records_of_scenes_go(actors, batches, job) -> None:
    """Records of a person whom a scene names behind another actor leave operations and batches. Other scenes keep theirs."""
    first, second = consent_message(record()), consent_message(record(face=face()))
    scene = DubSpec(lines=[LineSpec(actor="actors/bob", consent=first), LineSpec(actor="actors/ann", consent=second)])
    other = DubSpec(lines=[LineSpec(actor="actors/bob", consent=first)])
    operations = OperationStore(actors.database)
    for spec in (scene, other):
        submitted(operations.database, "dub", CreateDubRequest(dub=spec).SerializeToString(), actor_id="bob")
    shot = replace(shot_of_row(id="scene", footage="/plate.mp4", output="/scene.mp4"), dub=scene)
    batches.create(manifest_of("day", [shot]), "gateway")
    erase(actors)
    kept = [CreateDubRequest.FromString(stored.request).dub for stored in operations.list()]
    assert [actors_of(spec) for spec in kept] == [("bob", "ann"), ("bob",)]
    assert [len(records_of(spec)) for spec in kept] == [0, 1]
    (row,) = batches.manifest("day")
    assert (actors_of(row.dub), records_of(row.dub)) == (("bob", "ann"), [])


def test_undeletable_blob_fails_erasure(actors, batches, job, monkeypatch) -> None:
    """A blob that does not go makes the erasure fail and the next one succeed."""
    kept = actors.get("ann").artefacts["footage"]
    really = ArtefactStore.delete

    def refuse(store: ArtefactStore, ref: ArtefactRef) -> bool:
        return ref != kept and really(store, ref)

    with monkeypatch.context() as patched:
        patched.setattr(ArtefactStore, "delete", refuse)
        with pytest.raises(StorageRefusedError, match=f"not erased whole. Left: blob {kept.sha256} in artefact store"):
            erase(actors)
    assert actors.show("ann").actor_id == "ann"
    assert kept.sha256 in erase(actors)
    with pytest.raises(ActorError):
        actors.get("ann")


def test_leftover_copies_are_reported(actors, blobs, batches, settings, job) -> None:
    """A copy in the data folder and a journal of another job are reported."""
    copy = settings.data_dir / "forgotten" / "copy.mp4"
    copy.parent.mkdir()
    copy.write_bytes(b"footage of ann")
    with pytest.raises(StorageRefusedError, match=f"file {copy} in data folder"):
        erase(actors)
    copy.unlink()
    other = settings.data_dir / "jobs" / "2"
    # A job that nobody knows any more, and that has journalled a blob of the person.
    Journal(other / "journal", blobs).record("first", {"box": np.full(64, 1, np.uint8)})
    with pytest.raises(StorageRefusedError, match=f"entry of the journal {other}"):
        erase(actors)


def test_equal_files_of_other_jobs(actors: ActorStore, batches: BatchStore, settings: GatewaySettings, job: Path) -> None:
    """Files of other jobs that are equal stay and are named."""
    other = settings.data_dir / "jobs" / "2"
    other.mkdir()
    (other / "faces.bin").write_bytes(b"faces of ann")
    receipt = actors.erasures.erase_or_ask("ann", other_stores(actors.database))
    assert len(receipt.document["kept"]["file of other work"]) == 1
    assert (other / "faces.bin").exists()


def test_concurrent_gateways_write_one_chain(actors: ActorStore, settings: GatewaySettings) -> None:
    """Gateways that append at the same time write one chain."""
    place = (settings.database_url, str(settings.data_dir))
    writers = [begun(_APPEND, *place, name, stderr=subprocess.PIPE) for name in ("first", "second", "third")]
    for writer in writers:
        said = writer.communicate(timeout=120)[1]
        assert writer.returncode == 0, said
    assert actors.audit.verify().sequence == 120
    works = [entry["work"] for entry in actors.audit.newest(200)]
    for name in ("first", "second", "third"):
        assert [work for work in works if work.startswith(name)] == [f"{name}/{number}" for number in range(40)]


def test_an_entry_goes_with_its_transaction(actors: ActorStore) -> None:
    before = actors.audit.verify()
    with actors.database.writing() as session:
        actors.audit.append(session, AuditEvent(event=EventKind.DUB_BEGUN, work="dubs/1"))
        session.rollback()
    assert actors.audit.verify() == before
