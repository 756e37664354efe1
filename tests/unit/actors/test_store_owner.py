"""One database counts the blobs of an artefact store: a second one is refused when it is opened with the store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.actors.store import ActorStore
from gateway.actors.store_owner import owner_of
from gateway.settings import GatewaySettings
from gateway.tenants.places import settings_of
from services.common.chassis.settings import load_settings
from services.common.errors import StorageRefused
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import OWNER, ArtefactStore
from services.face.settings import FaceSettings
from tests.unit.actors.installation import CONSENT, actors, blobs, database_url, geometry, learned, on_disk, settings

__all__ = ["actors", "blobs", "database_url", "geometry", "settings"]


@pytest.fixture
def elsewhere(settings: GatewaySettings, tmp_path: Path) -> GatewaySettings:
    """Another data folder on the same artefact store."""
    return settings.model_copy(update={"data_dir": tmp_path / "elsewhere", "database_url": ""})


def test_a_second_database_is_refused_by_name_with_the_remedies(
    actors: ActorStore, elsewhere: GatewaySettings, blobs: ArtefactStore, settings: GatewaySettings, geometry: ActorGeometry
) -> None:
    actors.create("ann", method="ugc", enrolled=learned(blobs, "ann", geometry), footage_sha256="0" * 64, consent=CONSENT)
    before = on_disk(settings)
    for _ in range(2):
        with pytest.raises(StorageRefused) as caught:
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


def test_a_store_without_an_owner_is_adopted_with_what_lies_there(
    blobs: ArtefactStore, settings: GatewaySettings, elsewhere: GatewaySettings
) -> None:
    bank = blobs.put_bytes(b"of stages that run without a database, or of an earlier version")
    with ActorStore(settings) as actors:
        owner = owner_of(blobs)
        assert owner is not None
        assert owner.database == actors.database.id
        assert blobs.exists(bank)
        with pytest.raises(StorageRefused, match="belongs to another database"):
            ActorStore(elsewhere)
    # The step of the message for a database that is gone for good.
    (Path(settings.artefacts_url) / OWNER).unlink()
    with ActorStore(elsewhere):
        assert blobs.exists(bank)
    with pytest.raises(StorageRefused, match="belongs to another database"):
        ActorStore(settings)


def test_the_name_of_the_owner_is_no_blob(actors: ActorStore, blobs: ArtefactStore) -> None:
    assert list(blobs.stored()) == []
    assert blobs.remove_partials(1e12) == 0
    assert blobs.owner() is not None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"database": 3}', b"\xff\xfe"])
def test_a_damaged_name_of_the_owner_is_told_with_its_place(
    blobs: ArtefactStore, settings: GatewaySettings, content: bytes
) -> None:
    blobs.set_owner(content)
    with pytest.raises(StorageRefused, match=rf"{blobs.owner_url} is damaged: .* remove that file"):
        ActorStore(settings)


def test_work_that_counts_no_blobs_needs_no_claim(actors: ActorStore, elsewhere: GatewaySettings) -> None:
    with ActorStore(elsewhere, claim_artefacts=False) as other:
        assert other.consents.withdrawn({"6" * 64}) == {}


def test_each_tenant_has_a_store_and_an_owner_of_its_own(settings: GatewaySettings, elsewhere: GatewaySettings) -> None:
    with ActorStore(settings) as default, ActorStore(settings_of(settings, "acme"), beside=default) as acme:
        assert acme.database.id != default.database.id
        for places, database in ((settings, default.database), (settings_of(settings, "acme"), acme.database)):
            owner = owner_of(ArtefactStore(places.artefacts_url))
            assert owner is not None
            assert owner.database == database.id
    with pytest.raises(StorageRefused) as caught:
        ActorStore(settings_of(elsewhere, "acme"))
    # Callers of a tenant see the error, and must not learn of other places of the server.
    assert "actors.sqlite, since" not in caught.value.message


RACE = """
import sys, time
from pathlib import Path
from gateway.actors.store import ActorStore
from gateway.settings import GatewaySettings
from services.common.errors import StorageRefused

folder, name = Path(sys.argv[1]), sys.argv[2]
settings = GatewaySettings(data_dir=folder / name, artefacts_url=str(folder / "artefacts"))
(folder / f"{name}.ready").touch()
while len(list(folder.glob("*.ready"))) < 2:
    time.sleep(0.001)
try:
    ActorStore(settings).close()
    print("owner")
except StorageRefused:
    print("refused")
"""


def test_of_two_processes_that_open_a_new_store_at_once_one_becomes_the_owner(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for round_ in range(3):
        folder = tmp_path / str(round_)
        folder.mkdir()
        racing = [
            subprocess.Popen([sys.executable, "-c", RACE, str(folder), name], env=environment, stdout=subprocess.PIPE, text=True)
            for name in ("a", "b")
        ]
        assert sorted(process.communicate(timeout=120)[0].strip() for process in racing) == ["owner", "refused"]


def _places(monkeypatch: pytest.MonkeyPatch, home: Path, **variables: Path) -> tuple[str, str]:
    """The artefact store of the gateway and of a stage whose environment has these variables."""
    for name in ("DUBSTAGE_DATA_DIR", "DUBSTAGE_ARTEFACTS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    for name, value in variables.items():
        monkeypatch.setenv(f"DUBSTAGE_{name.upper()}", str(value))
    return load_settings(GatewaySettings).artefacts_url, load_settings(FaceSettings).artefacts_url


def test_artefacts_follow_the_data_folder_unless_a_setting_names_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_data_folder_of_an_earlier_version_keeps_its_artefacts_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, data = tmp_path / "home", tmp_path / "data"
    before, own = str(home / "dubstage" / "artefacts"), str(data / "artefacts")
    # An earlier version, with DUBSTAGE_DATA_DIR alone.
    with ActorStore(GatewaySettings(data_dir=data, artefacts_url=before)):
        pass
    for _ in range(2):
        assert _places(monkeypatch, home, data_dir=data) == (before, before)
        with ActorStore(load_settings(GatewaySettings)):
            pass
    # This version makes the folder of the artefacts before the database.
    newer = tmp_path / "newer"
    assert _places(monkeypatch, home, data_dir=newer) == (str(newer / "artefacts"), str(newer / "artefacts"))
    with ActorStore(load_settings(GatewaySettings), claim_artefacts=False):
        pass
    assert _places(monkeypatch, home, data_dir=newer) == (str(newer / "artefacts"), str(newer / "artefacts"))
    (tmp_path / "data" / "artefacts").mkdir()
    assert _places(monkeypatch, home, data_dir=data) == (own, own)
