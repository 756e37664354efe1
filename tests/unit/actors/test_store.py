"""One database counts the blobs of an artefact store: a second one is refused when it is opened with the store."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore, owner_of
from gateway.actors.stored import check_actor_id
from gateway.dub.state.journal import Journal
from gateway.settings import GatewaySettings
from gateway.tenants.paths import settings_of
from services.common.errors import ActorError, InvalidRequestError, StorageRefusedError
from services.common.face.actor_geometry import ActorGeometry
from services.common.server.settings import load_settings
from services.common.store.artefacts import OWNER, ArtefactRef, ArtefactStore
from services.face.settings import FaceSettings
from tests.erasing import erase
from tests.unit.actors.installation import CONSENT, actors, blobs, database_url, geometry, learned, on_disk, settings

__all__ = ["actors", "blobs", "database_url", "geometry", "settings"]
RACE = """
import sys, time
from pathlib import Path
from gateway.actors.store import ActorStore
from gateway.settings import GatewaySettings
from services.common.errors import StorageRefusedError

name = sys.argv[2]
for folder in sorted(Path(sys.argv[1]).iterdir()):
    settings = GatewaySettings(data_dir=folder / name, artefacts_url=str(folder / "artefacts"))
    (folder / f"{name}.ready").touch()
    while len(list(folder.glob("*.ready"))) < 2:
        time.sleep(0.001)
    try:
        ActorStore(settings).close()
        print("owner")
    except StorageRefusedError:
        print("refused")
"""
"""A process that opens one new store after the other, each at the same moment as another process."""


def test_an_actor_is_read_as_it_was_kept(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> None:
    actor = learned(blobs, "ann", geometry)
    actors.create("ann", method="dubstage", enrolled=actor, footage_sha256="f" * 64, consent=CONSENT)
    found = actors.get("ann")
    assert found.consent == CONSENT
    assert found.enrolled.bank == actor.bank
    assert found.enrolled.lag_frames == -2
    assert set(found.artefacts) == {"enrolment", "style", "bank", "renderer"}
    assert actors.find("bob") is None


def test_actors_listed_after_given(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> None:
    """Actors are listed in order behind a given one."""
    for name in ("cleo", "ann", "bob"):
        actors.create(name, method="dubstage", enrolled=learned(blobs, name, geometry), footage_sha256="0" * 64, consent=None)
    assert [actor.actor_id for actor in actors.list()] == ["ann", "bob", "cleo"]
    assert [actor.actor_id for actor in actors.list(after="ann", limit=1)] == ["bob"]


def test_an_id_is_used_once(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> None:
    actor = learned(blobs, "ann", geometry)
    actors.create("ann", method="dubstage", enrolled=actor, footage_sha256="0" * 64, consent=None)
    with pytest.raises(InvalidRequestError, match="erase it first"):
        actors.check_free("ann")
    with pytest.raises(InvalidRequestError, match="erase it first"):
        actors.create("ann", method="dubstage", enrolled=actor, footage_sha256="0" * 64, consent=None)


@pytest.mark.parametrize("name", ["", "Ann", "a_b", "-ann", "ann-", "a" * 64, "../ann"])
def test_an_id_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError):
        check_actor_id(name)


def test_erasure_removes_blobs_and_jobs(
    actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, settings: GatewaySettings, tmp_path: Path
) -> None:
    """Erasing removes every blob and job of the person."""
    earlier = blobs.put_bytes(b"a style that was replaced")
    actors.create(
        "ann",
        method="dubstage",
        enrolled=learned(blobs, "ann", geometry),
        footage_sha256="0" * 64,
        consent=None,
        more={"footage": blobs.put_bytes(b"footage of ann")},
        superseded=[earlier],
    )
    job = tmp_path / "data" / "jobs" / "1"
    Journal(job / "journal", blobs).record("window", {"box": np.zeros(4, np.uint8)})
    actors.jobs.begin(job, actor_id="ann")
    held = on_disk(settings)
    assert len(held) == 7
    receipt = erase(actors, "ann")
    assert on_disk(settings) == set()
    assert not job.exists()
    assert set(receipt.erased_sha256) - set(receipt.document["erased"]["job file"]) == held
    assert receipt.kept_sha256 == ()
    for again in (lambda: erase(actors, "ann"), lambda: actors.get("ann")):
        with pytest.raises(ActorError, match="no actor 'ann'"):
            again()


def test_shared_blob_kept_until_last(
    actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, settings: GatewaySettings
) -> None:
    """A blob that another actor counts is kept until that one goes."""
    ann = learned(blobs, "ann", geometry)
    bob = replace(learned(blobs, "bob", geometry), bank=ann.bank)
    actors.create("ann", method="dubstage", enrolled=ann, footage_sha256="0" * 64, consent=None)
    actors.create("bob", method="dubstage", enrolled=bob, footage_sha256="0" * 64, consent=None)
    receipt = erase(actors, "ann")
    assert receipt.kept_sha256 == (ann.bank.sha256,)
    assert ann.bank.sha256 in on_disk(settings)
    assert ann.style.sha256 not in on_disk(settings)
    assert actors.get("bob").enrolled.bank == ann.bank
    assert ann.bank.sha256 in erase(actors, "bob").erased_sha256
    assert ann.bank.sha256 not in on_disk(settings)


def test_job_artefacts_removed_unless_counted(
    actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, tmp_path: Path
) -> None:
    """Blobs that a job made go with the job unless an actor or another job counts them."""
    ann = learned(blobs, "ann", geometry)
    actors.create("ann", method="dubstage", enrolled=ann, footage_sha256="0" * 64, consent=None)
    of_ann = ArtefactRef(ann.bank.uri, ann.bank.sha256, ann.bank.size_bytes)
    own, shared = blobs.put_bytes(b"own"), blobs.put_bytes(b"shared")
    first, second = JobLedger(actors), JobLedger(actors)
    first.begin(tmp_path / "first")
    second.begin(tmp_path / "second")
    for ref in (of_ann, own, shared):
        first.hold(tmp_path / "first", ref)
    second.hold(tmp_path / "second", shared)
    assert list(first.release(tmp_path / "first")) == [own]
    assert list(second.release(tmp_path / "second")) == [shared]
    assert list(second.release(tmp_path / "second")) == []


def test_work_with_an_erased_actor_does_not_begin(actors: ActorStore, tmp_path: Path) -> None:
    with pytest.raises(ActorError):
        JobLedger(actors, ["nobody"]).begin(tmp_path / "job")


@pytest.fixture
def elsewhere(settings: GatewaySettings, tmp_path: Path) -> GatewaySettings:
    """Another data folder on the same artefact store."""
    return settings.model_copy(update={"data_dir": tmp_path / "elsewhere", "database_url": ""})


def test_second_database_refused_with_remedies(
    actors: ActorStore, elsewhere: GatewaySettings, blobs: ArtefactStore, settings: GatewaySettings, geometry: ActorGeometry
) -> None:
    """A second database is refused by name with the remedies."""
    actors.create("ann", method="dubstage", enrolled=learned(blobs, "ann", geometry), footage_sha256="0" * 64, consent=CONSENT)
    before = on_disk(settings)
    for _ in range(2):
        with pytest.raises(StorageRefusedError) as caught:
            ActorStore(elsewhere)
    said = caught.value.message
    assert (
        f"the artefact store {blobs.url} belongs to another database (sqlite:///{settings.data_dir}/actors.sqlite, since " in said
    )
    assert "DUBSTAGE_DATA_DIR or DUBSTAGE_DATABASE_URL" in said
    assert "(DUBSTAGE_ARTEFACTS_URL)" in said
    assert f"remove {blobs.url}/{OWNER}" in said
    assert on_disk(settings) == before
    assert actors.get("ann").actor_id == "ann"
    with ActorStore(settings) as again:
        assert again.database.id == actors.database.id


def test_unowned_store_is_adopted(blobs: ArtefactStore, settings: GatewaySettings, elsewhere: GatewaySettings) -> None:
    """A store without an owner is adopted with what lies there."""
    bank = blobs.put_bytes(b"of stages that run without a database, or of another time")
    with ActorStore(settings) as actors:
        owner = owner_of(blobs)
        assert owner is not None
        assert owner.database == actors.database.id
        assert blobs.exists(bank)
        with pytest.raises(StorageRefusedError, match="belongs to another database"):
            ActorStore(elsewhere)
    # The step of the message for a database that is gone for good.
    (Path(settings.artefacts_url) / OWNER).unlink()
    with ActorStore(elsewhere):
        assert blobs.exists(bank)
    with pytest.raises(StorageRefusedError, match="belongs to another database"):
        ActorStore(settings)


def test_the_name_of_the_owner_is_no_blob(actors: ActorStore, blobs: ArtefactStore) -> None:
    assert list(blobs.stored()) == []
    assert blobs.remove_partials(1e12) == 0
    assert blobs.owner() is not None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"database": 3}', b"\xff\xfe"])
def test_damaged_owner_name_is_reported(blobs: ArtefactStore, settings: GatewaySettings, content: bytes) -> None:
    """A damaged name of the owner is reported with its place."""
    blobs.set_owner(content)
    with pytest.raises(StorageRefusedError, match=rf"{blobs.owner_url} is damaged: .* remove that file"):
        ActorStore(settings)


def test_work_that_counts_no_blobs_needs_no_claim(actors: ActorStore, elsewhere: GatewaySettings) -> None:
    with ActorStore(elsewhere, claim_artefacts=False) as other:
        assert other.consents.withdrawn({"6" * 64}) == {}


def test_tenants_have_own_stores(settings: GatewaySettings, elsewhere: GatewaySettings) -> None:
    """Each tenant has a store and an owner of its own."""
    with ActorStore(settings) as default, ActorStore(settings_of(settings, "acme"), beside=default) as acme:
        assert acme.database.id != default.database.id
        for places, database in ((settings, default.database), (settings_of(settings, "acme"), acme.database)):
            owner = owner_of(ArtefactStore(places.artefacts_url))
            assert owner is not None
            assert owner.database == database.id
    with pytest.raises(StorageRefusedError) as caught:
        ActorStore(settings_of(elsewhere, "acme"))
    # Callers of a tenant see the error, and must not learn of other places of the server.
    assert "actors.sqlite, since" not in caught.value.message


def test_one_process_owns_new_store(tmp_path: Path) -> None:
    """One of two processes that open a new store at the same time becomes its owner."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for number in range(3):
        (tmp_path / str(number)).mkdir()
    racing = [
        subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path), name], env=environment, stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    ends = [process.communicate(timeout=120)[0].split() for process in racing]
    assert [sorted(pair) for pair in zip(*ends, strict=True)] == [["owner", "refused"]] * 3


def _places(monkeypatch: pytest.MonkeyPatch, home: Path, **variables: Path) -> tuple[str, str]:
    """The artefact store of the gateway and of a stage whose environment has these variables."""
    for name in ("DUBSTAGE_DATA_DIR", "DUBSTAGE_ARTEFACTS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    for name, value in variables.items():
        monkeypatch.setenv(f"DUBSTAGE_{name.upper()}", str(value))
    return load_settings(GatewaySettings).artefacts_url, load_settings(FaceSettings).artefacts_url


def test_artefacts_follow_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Artefacts follow the data folder unless a setting names a store."""
    home, data, store = tmp_path / "home", tmp_path / "data", tmp_path / "store"
    default = str(home / "dubstage" / "artefacts")
    assert _places(monkeypatch, home) == (default, default)
    own = str(data / "artefacts")
    assert _places(monkeypatch, home, data_dir=data) == (own, own)
    assert GatewaySettings(data_dir=tmp_path / "given").artefacts_url == str(tmp_path / "given" / "artefacts")
    assert _places(monkeypatch, home, data_dir=data, artefacts_url=store) == (str(store), str(store))
    assert _places(monkeypatch, home, artefacts_url=store) == (str(store), str(store))
    monkeypatch.chdir(tmp_path)
    assert _places(monkeypatch, home, data_dir=Path("data")) == (own, own)
