"""Stores that went bad: what is said of them, and that one damaged actor does not hide the others."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.actors.store import ActorStore
from gateway.cli.app import run
from gateway.cli.doctor import check_database
from gateway.database.session import Database
from gateway.settings import GatewaySettings
from services.common.errors import ArtefactCorruptError, ArtefactNotFoundError, DubstageError, StorageRefusedError
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from tests.erasing import erase
from tests.unit.actors.installation import CONSENT, actors, blobs, database_url, geometry, learned, on_disk, settings

__all__ = ["actors", "blobs", "database_url", "geometry", "settings"]

PAGE = 4096


@pytest.fixture
def file(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> Path:
    """A database with two actors, closed."""
    for name in ("ann", "bob"):
        actors.create(name, method="dubstage", enrolled=learned(blobs, name, geometry), footage_sha256="0" * 64, consent=CONSENT)
    actors.close()
    assert actors.database.file is not None
    return actors.database.file


def garbage(file: Path) -> None:
    file.write_bytes(os.urandom(8 * PAGE))


def truncated(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)


def no_file_of_sqlite(file: Path) -> None:
    file.write_text("this is not a database")


def page_of(file: Path, table: str) -> int:
    with sqlite3.connect(file) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    connection.close()
    return int(page)


def bytes_for_a_text(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE actors SET actor_id = x'fffe' WHERE actor_id = 'bob'")
    connection.close()


def bits_in_the_name_of_a_column(file: Path) -> None:
    content = file.read_bytes()
    changed = content.replace(b"\tactor_id ", b"\tactor\xf5id ")
    assert changed != content
    file.write_bytes(changed)


def one_page_zeroed(file: Path) -> None:
    page = page_of(file, "actors")
    with file.open("r+b") as opened:
        opened.seek((page - 1) * PAGE)
        opened.write(bytes(PAGE))


@pytest.mark.parametrize(
    "damage",
    [garbage, truncated, no_file_of_sqlite, one_page_zeroed, bytes_for_a_text, bits_in_the_name_of_a_column],
)
def test_a_damaged_database_is_named_with_the_remedy(file: Path, settings: GatewaySettings, damage: Callable[[Path], None]) -> None:
    damage(file)

    def use() -> None:
        with ActorStore(settings) as opened:
            opened.list()
            opened.get("ann")

    with pytest.raises(StorageRefusedError) as caught:
        use()
    assert str(file) in str(caught.value)
    assert "restore it from a backup" in str(caught.value)


def test_full_check_finds_damaged_page(file: Path, settings: GatewaySettings) -> None:
    """A check of the whole file finds a page that nothing else reads."""
    page = page_of(file, "lineage")
    with file.open("r+b") as opened:
        opened.seek((page - 1) * PAGE)
        opened.write(bytes(PAGE))
    database = Database("", settings.data_dir)
    with pytest.raises(StorageRefusedError, match="is damaged"):
        database.check_integrity()
    database.close()


def test_a_sound_file_passes_the_check(file: Path, settings: GatewaySettings) -> None:
    database = Database("", settings.data_dir)
    database.check_integrity()
    database.close()


@pytest.mark.parametrize("text", ["{", '{"subject": "Ann"}', "[]", '"words"', "7", '{"subject": 1, "more": 2}', "[" * 5000])
def test_damaged_consent_affects_own_actor(file: Path, settings: GatewaySettings, text: str) -> None:
    """A damaged consent record is reported for its actor alone."""
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE actors SET consent = ? WHERE actor_id = 'ann'", (text,))
    connection.close()
    with ActorStore(settings) as opened:
        ann, bob = opened.list()
        assert "the consent record of actor ann" in ann.damage
        assert str(file) in ann.damage
        assert ann.consent is None
        assert (bob.damage, bob.consent) == ("", CONSENT)
        with pytest.raises(ArtefactCorruptError, match=r"consent record of actor ann .* is damaged"):
            opened.get("ann")
        assert opened.show("ann").damage == ann.damage
        erase(opened, "ann")
        assert [actor.actor_id for actor in opened.list()] == ["bob"]


def enrolment(actors: ActorStore, actor_id: str) -> tuple[ArtefactRef, Path]:
    ref = actors.show(actor_id).artefacts["enrolment"]
    return ref, Path(ref.uri.removeprefix("file://"))


@pytest.mark.parametrize("gone", [True, False])
def test_damaged_enrolment_hides_no_other(file: Path, settings: GatewaySettings, gone: bool) -> None:
    """A damaged enrolment is reported when it is asked for, and hides no other actor."""
    with ActorStore(settings) as opened:
        _, blob = enrolment(opened, "ann")
        blob.unlink() if gone else blob.write_bytes(b"not what it was")
        assert [actor.damage for actor in opened.list()] == ["", ""], "listing reads no blob"
        assert [actor.num_frames for actor in opened.list()] == [100, 100]
        with pytest.raises(ArtefactNotFoundError if gone else ArtefactCorruptError, match=r"learned of actor ann .*EraseActor"):
            opened.get("ann")
        assert "learned of actor ann" in opened.show("ann").damage
        assert opened.show("ann").num_frames == 100
        assert opened.get("bob").consent == CONSENT
        erase(opened, "ann")


def test_an_actor_whose_lineage_is_gone_is_damaged(file: Path, settings: GatewaySettings) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM lineage WHERE actor_id = 'ann'")
    connection.close()
    with ActorStore(settings) as opened, pytest.raises(ArtefactCorruptError, match="rows of actor ann are damaged"):
        opened.get("ann")


def test_taken_id_leaves_no_blob(
    actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, settings: GatewaySettings
) -> None:
    """A taken id leaves no blob that is not counted."""
    actors.create("ann", method="dubstage", enrolled=learned(blobs, "ann", geometry), footage_sha256="0" * 64, consent=None)
    before = on_disk(settings)
    with pytest.raises(DubstageError, match="erase it first"):
        actors.create("ann", method="everybody", enrolled=learned(blobs, "ann", geometry), footage_sha256="1" * 64, consent=None)
    assert on_disk(settings) == before


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_installation_files_owner_only(tmp_path: Path, umask: int) -> None:
    """Only the owner reads what the installation keeps of people."""
    settings = GatewaySettings(data_dir=tmp_path / "deep" / "data", artefacts_url=str(tmp_path / "blobs"))
    (tmp_path / "deep").mkdir()
    before = os.umask(umask)
    try:
        with ActorStore(settings) as opened:
            opened.database.claim()
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (settings.data_dir, *settings.data_dir.iterdir())}
    assert modes.pop("data") == 0o700
    assert modes.pop("actors.sqlite") == 0o600
    assert all(mode & 0o077 == 0 for mode in modes.values()), modes


def test_open_database_gets_closed(file: Path, settings: GatewaySettings) -> None:
    """A database that all users could read is closed to them."""
    file.chmod(0o644)
    with ActorStore(settings) as opened:
        opened.list()
    assert file.stat().st_mode & 0o777 == 0o600


def test_impossible_data_folder_names_setting(tmp_path: Path) -> None:
    """A data folder that cannot be names the setting."""
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/dev/null"), Path("/proc/nothing")):
        with pytest.raises(StorageRefusedError, match="DUBSTAGE_DATA_DIR"):
            ActorStore(GatewaySettings(data_dir=folder, artefacts_url=str(tmp_path / "blobs")))


def test_a_damaged_key_signs_nothing(
    actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, settings: GatewaySettings
) -> None:
    actors.create("ann", method="dubstage", enrolled=learned(blobs, "ann", geometry), footage_sha256="0" * 64, consent=None)
    (settings.data_dir / "signing.pem").write_bytes(b"")
    with pytest.raises(StorageRefusedError, match=r"signing\.pem is damaged"):
        erase(actors, "ann")


@pytest.mark.parametrize(
    "arguments",
    [
        ["actor", "list"],
        ["actor", "show", "ann"],
        ["actor", "erase", "ann"],
        ["dub", "footage.mp4", "--actor", "ann", "-o", "dubbed.mp4"],
    ],
)
def test_every_command_says_which_file_is_damaged(
    file: Path,
    settings: GatewaySettings,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("DUBSTAGE_ARTEFACTS_URL", settings.artefacts_url)
    monkeypatch.chdir(tmp_path)
    one_page_zeroed(file)
    assert run(arguments) == StorageRefusedError.exit_code
    said = capsys.readouterr().err
    assert str(file) in said
    assert "restore it from a backup" in said


def test_commands_show_a_damaged_actor_beside_the_others(
    file: Path, settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("DUBSTAGE_ARTEFACTS_URL", settings.artefacts_url)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE actors SET consent = '{' WHERE actor_id = 'ann'")
    connection.close()
    with ActorStore(settings) as opened:
        enrolment(opened, "bob")[1].write_bytes(b"not what it was")
    assert run(["actor", "list"]) == 0
    listed = capsys.readouterr()
    assert "bob" in listed.out
    assert "the consent record of actor ann" in listed.err
    assert run(["actor", "show", "bob"]) == 0
    shown = capsys.readouterr()
    assert "actor erase bob" in json.loads(shown.out)["damage"]
    assert not [kind for kind in json.loads(shown.out)["artefacts"] if "superseded" in kind]
    assert run(["actor", "list", "--limit", "1"]) == 0
    cut = capsys.readouterr()
    assert "bob" not in cut.out
    assert "more actors follow: dubstage actor list --after ann" in cut.err
    assert run(["actor", "list", "--after", "ann", "--limit", "1"]) == 0
    rest = capsys.readouterr()
    assert [line.split()[0] for line in rest.out.splitlines()] == ["actor", "bob"]
    assert "ann" not in rest.err


def test_the_doctor_reads_the_whole_file(file: Path, settings: GatewaySettings) -> None:
    assert str(file) in check_database(settings)
    one_page_zeroed(file)
    with pytest.raises(StorageRefusedError, match="is damaged"):
        check_database(settings)
