"""A backup of an installation, in SQLite and in PostgreSQL, and the installation that is made from the backup."""

import hashlib
import io
import json
import re
import shutil
import sqlite3
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, Table, select, text

from dubstage.gateway.v1.dub_pb2 import DubSpec, LineSpec
from dubstage.gateway.v1.gateway_pb2 import CreateDubRequest
from gateway.actors.installation import Installation, open_installation
from gateway.actors.store import ActorStore, owner_of
from gateway.backup import rows
from gateway.backup.archive import DATABASE, ArchiveWriter, members, read_manifest
from gateway.backup.restore import RESTORE, restore_backup
from gateway.backup.rows import copy_rows, kept_tables
from gateway.backup.write import write_backup
from gateway.batch.reviews import Decision, ReviewState
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState, manifest_of
from gateway.database.tables import ActorRow, Base, LineageRow
from gateway.database.upgrades import RECORD, head
from gateway.operations.store import OperationStore
from gateway.provenance.credential import KEY_FILE, installation_credential
from gateway.provenance.installation import trusted_authorities
from gateway.settings import GatewaySettings
from gateway.signatures import KEY_FILE as SIGNING
from services.common.errors import (
    ArtefactCorruptError,
    BackendUnavailableError,
    DubstageError,
    InvalidRequestError,
    StorageRefusedError,
)
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactStore
from tests.contract.stores.long_store import fill
from tests.contract.stores.people import keep
from tests.contract.stores.programs import begun
from tests.erasing import erase
from tests.operations import submitted
from tests.unit.actors.installation import on_disk
from tests.unit.batch.rows import shot_of_row

MEMORY_BYTES = 10_000_000

about_files = pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
"""For tests of keys and of files, which are refused before a row reaches a database."""


@pytest.fixture
def place(settings: GatewaySettings, actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> Installation:
    """Ann and Bob, an operation that has ended, and one that waits; Cid was erased."""
    for name in ("ann", "bob", "cid"):
        keep(actors, blobs, geometry, name)
    operations = OperationStore(actors.database)
    ended = submitted(operations.database, "dub", b"\x00request", actor_id="ann", output="video.mp4")
    operations.finish(replace(ended, response=b"\xffresult"))
    submitted(operations.database, "enrol", b"waiting", actor_id="bob")
    erase(actors, "cid")
    batches = BatchStore(actors.database)
    for name in ("ann", "bob"):
        shot = shot_of_row(id="s1", footage="/plate.mp4", output=f"/out/{name}.mp4", actor=name)
        batches.create(manifest_of(f"batch-of-{name}", [shot]), "gateway")
        batches.put(f"batch-of-{name}", ShotRecord(id="s1", state=ShotState.DONE, output_sha256="1"))
        batches.put_thumbnail(f"batch-of-{name}", "s1", f"picture of {name}".encode())
        decided = Decision(id="s1", state=ReviewState.APPROVED, decided_at="2026-11-23T00:00:00.000Z", output_sha256="1")
        batches.decide(f"batch-of-{name}", decided)
    return Installation(settings, actors, blobs)


def lose_database(place: Installation) -> None:
    """Remove database and data folder. The artefact store stays, and belongs to the lost database."""
    Base.metadata.drop_all(place.actors.database.engine)
    RECORD.drop(place.actors.database.engine)
    place.actors.close()
    shutil.rmtree(place.settings.data_dir)


def wipe(place: Installation) -> None:
    lose_database(place)
    shutil.rmtree(place.settings.artefacts_url)


@contextmanager
def wiped(place: Installation) -> Iterator[Installation]:
    """Remove all that an installation holds, and open the empty installation."""
    wipe(place)
    with open_installation(place.settings) as again:
        yield again


def facts(place: Installation, name: str) -> tuple[object, ...]:
    actor = place.actors.get(name)
    return actor.method, actor.consent, actor.created_at, actor.artefacts, actor.enrolled.geometry.mean_mouth.tobytes()


@contextmanager
def little_memory() -> Iterator[None]:
    """Check that a block never holds more than MEMORY_BYTES."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
    finally:
        tracemalloc.stop()


def rows_in(file: Path) -> bytes:
    """Return the SQLite database of a backup."""
    with closing(members(file)) as found:
        return next(content.read() for name, content in found if name == DATABASE)


def tables_of(file: Path) -> dict[str, str]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(rows_in(file))
        names = [table.name for table in kept_tables()]
        return {name: repr(sorted(connection.execute(f"SELECT * FROM {name}"), key=repr)) for name in names}


def test_a_wiped_installation_comes_back_whole(place: Installation, tmp_path: Path) -> None:
    before, files = [facts(place, name) for name in ("ann", "bob")], on_disk(place.settings)
    key, credential = (place.settings.data_dir / SIGNING).read_bytes(), installation_credential(place.settings.data_dir)
    made = write_backup(place, tmp_path / "backup.tar")
    assert (made.actors, made.blobs) == (2, len(files))
    assert (tmp_path / "backup.tar").stat().st_mode & 0o777 == 0o600
    with wiped(place) as again:
        assert restore_backup(again, tmp_path / "backup.tar") == made
        assert [facts(again, name) for name in ("ann", "bob")] == before
        assert on_disk(place.settings) == files
        assert (place.settings.data_dir / SIGNING).read_bytes() == key
        assert trusted_authorities(again.settings) == credential.chain
        assert installation_credential(place.settings.data_dir) == credential
        assert {(place.settings.data_dir / name).stat().st_mode & 0o777 for name in (SIGNING, KEY_FILE)} == {0o600}
        (shot,) = BatchStore(again.actors.database).shots("batch-of-bob")
        assert (shot.record.state, shot.review, shot.shot.actor_ids) == (ShotState.DONE, ReviewState.APPROVED, ("bob",))
        operations = OperationStore(again.actors.database)
        ended, waiting = operations.list()
        assert (ended.request, ended.response, ended.done) == (b"\x00request", b"\xffresult", True)
        assert (waiting.kind, waiting.actor_id, waiting.done) == ("enrol", "bob", False)
        # New rows get new numbers.
        assert submitted(operations.database, "dub", b"").number > waiting.number
        write_backup(again, tmp_path / "second.tar")
    first, second = (tables_of(tmp_path / f"{name}.tar") for name in ("backup", "second"))
    changed = {name for name, lines in second.items() if lines != first[name]}
    assert changed == {"operations", "audit_log"}, "the log knows of the backup and of the restore"


def enrol_at_once(place: Installation, name: str) -> None:
    """Store what an enrolment stores in one transaction, or raise BackendUnavailableError if the database may not be written
    now."""
    style = place.artefacts.put_bytes(f"style of {name}".encode())
    database = place.actors.database
    with database.writing() as session:
        if not database.shared:
            session.execute(text("PRAGMA busy_timeout = 0"))
        digests = {"footage_sha256": "0" * 64, "enrolment_sha256": style.sha256, "consent_sha256": ""}
        session.add(ActorRow(actor_id=name, method="hetero", consent=None, created_at="2026-11-23T00:00:00+00:00", **digests))
        session.flush()
        session.add(LineageRow(actor_id=name, sha256=style.sha256, kind="style", uri=style.uri, size_bytes=style.size_bytes))


def test_backup_during_enrolment_is_consistent(place: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An enrolment that ends while the rows are read leaves a backup of one moment."""

    def copy_before_an_enrolment(
        source: Connection, target: Connection, table: Table, without: Mapping[str, frozenset[str]]
    ) -> None:
        copy_rows(source, target, table, without)
        if table.name == ActorRow.__tablename__:
            with open_installation(place.settings) as other:
                enrol_at_once(other, "dan")

    monkeypatch.setattr(rows, "copy_rows", copy_before_an_enrolment)
    write_backup(place, tmp_path / "backup.tar")
    monkeypatch.undo()
    assert len(place.actors.list()) == 3, "a gateway need not wait for the backup"
    assert b"dan" not in rows_in(tmp_path / "backup.tar")
    with wiped(place) as again:
        assert restore_backup(again, tmp_path / "backup.tar").actors == 2


def test_database_writable_during_backup(place: Installation, tmp_path: Path) -> None:
    """The database can be written while blobs are copied."""

    def enrolled_meanwhile(step: str, done: int, total: int) -> None:
        if not done:
            enrol_at_once(place, "dan")

    assert write_backup(place, tmp_path / "backup.tar", on_blob=enrolled_meanwhile).actors == 2
    assert len(place.actors.list()) == 3


@pytest.mark.long
@pytest.mark.parametrize("database_url", [pytest.param("sqlite", marks=pytest.mark.long), "postgresql"], indirect=True)
def test_many_rows_in_little_memory(place: Installation, tmp_path: Path) -> None:
    """The rows of years need not fit into the memory."""
    fill(place.actors.database, actors=1, operations=20_000)
    with place.actors.database.writing() as session:
        session.execute(text("DELETE FROM lineage WHERE actor_id LIKE 'p%'"))  # these blobs are nowhere
    with little_memory():
        made = write_backup(place, tmp_path / "backup.tar")
    before = tables_of(tmp_path / "backup.tar")["operations"]
    assert len(before) > 2 * MEMORY_BYTES
    with wiped(place) as again:
        with little_memory():
            assert restore_backup(again, tmp_path / "backup.tar") == made
        write_backup(again, tmp_path / "second.tar")
    assert tables_of(tmp_path / "second.tar")["operations"] == before


def test_incremental_backups(place: Installation, geometry: ActorGeometry, tmp_path: Path) -> None:
    """A backup with a base has only the blobs that the base and its own bases lack. A restore takes all files, in any order."""
    full, second, third = (tmp_path / f"{name}.tar" for name in ("full", "second", "third"))
    write_backup(place, full)
    for name, file, base in (("dan", second, full), ("eve", third, second)):
        before = on_disk(place.settings)
        keep(place.actors, place.artefacts, geometry, name)
        new = on_disk(place.settings) - before
        made = write_backup(place, file, base=base)
        assert made.blobs == len(new) > 0
    assert made.actors == 4
    assert [base.created_at for base in made.bases] == [read_manifest(full).created_at, read_manifest(second).created_at]
    people, files = [facts(place, name) for name in ("ann", "bob", "dan", "eve")], on_disk(place.settings)
    with wiped(place) as again:
        seen: list[tuple[str, int, int]] = []
        restored = restore_backup(again, third, bases=[second, full], on_blob=lambda *step: seen.append(step))
        stored = [path for path in Path(place.settings.artefacts_url).rglob("*") if re.fullmatch("[0-9a-f]{64}", path.name)]
        size = sum(path.stat().st_size for path in stored)
        assert restored == replace(made, blobs=len(files), blob_bytes=size)
        assert seen[-1] == (RESTORE, len(files), len(files))
        assert [facts(again, name) for name in ("ann", "bob", "dan", "eve")] == people
        assert on_disk(place.settings) == files


@about_files
def test_unusable_bases_are_refused(place: Installation, geometry: ActorGeometry, tmp_path: Path) -> None:
    """A base that is missing, strange, damaged or of another installation changes nothing."""
    full, other, later = (tmp_path / f"{name}.tar" for name in ("full", "other", "later"))
    write_backup(place, full)
    write_backup(place, other)
    keep(place.actors, place.artefacts, geometry, "dan")
    with pytest.raises(InvalidRequestError, match="is the base itself"):
        write_backup(place, full, base=full, overwrite=True)
    write_backup(place, later, base=full)
    with wiped(place) as again:
        with pytest.raises(InvalidRequestError, match="backup of another installation"):
            write_backup(again, tmp_path / "new.tar", base=full)
        created = re.escape(read_manifest(full).created_at)
        with pytest.raises(InvalidRequestError, match=f"give the backups of {created} with base"):
            restore_backup(again, later)
        with pytest.raises(InvalidRequestError, match=r"is not based on .*other\.tar: leave it out"):
            restore_backup(again, later, bases=[full, other])
        _flip(full)
        with pytest.raises(InvalidRequestError, match=r"full\.tar is damaged"):
            restore_backup(again, later, bases=[full])
        assert again.actors.list() == []
        assert on_disk(place.settings) == set()


def test_an_actor_can_be_left_out(place: Installation, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="there is no actor 'bobby' to leave out"):
        write_backup(place, tmp_path / "backup.tar", without=frozenset({"bob", "bobby"}))
    assert not list(tmp_path.glob("*backup*"))
    made = write_backup(place, tmp_path / "backup.tar", without=frozenset({"bob"}))
    assert made.actors == 1
    assert b"bob" not in rows_in(tmp_path / "backup.tar")
    assert b"picture of ann" in rows_in(tmp_path / "backup.tar")
    assert made.blobs == len({ref.sha256 for ref in place.actors.get("ann").artefacts.values()})


def test_scenes_and_faces_left_out(place: Installation, tmp_path: Path) -> None:
    """An operation of another actor may hold the person's consent record, and one of nobody pictures of the person's footage."""
    operations = OperationStore(place.actors.database)
    lines = [LineSpec(actor=f"actors/{name}", speech_uri=f"line of {name}") for name in ("ann", "bob")]
    for spec in (DubSpec(lines=lines), DubSpec(lines=lines[:1])):
        submitted(operations.database, "dub", CreateDubRequest(dub=spec).SerializeToString(), actor_id="ann")
    with operations.database.reading() as session:
        footage = session.scalar(select(ActorRow.footage_sha256).where(ActorRow.actor_id == "bob"))
    for sha256 in (footage, "e" * 64):
        faces = submitted(operations.database, "faces", b"request")
        operations.note_footage(faces.name, str(sha256))
        operations.finish(replace(faces, response=f"faces of {sha256}".encode()))
    write_backup(place, tmp_path / "backup.tar", without=frozenset({"bob"}))
    kept = rows_in(tmp_path / "backup.tar")
    assert (b"line of bob" in kept, b"line of ann" in kept) == (False, True)
    assert (f"faces of {footage}".encode() in kept, b"faces of eeee" in kept) == (False, True)


def test_only_an_empty_installation_is_filled(place: Installation, tmp_path: Path) -> None:
    write_backup(place, tmp_path / "backup.tar")
    with pytest.raises(InvalidRequestError, match="is not empty: its table actors has rows"):
        restore_backup(place, tmp_path / "backup.tar")


@about_files
def test_another_artefact_store_is_refused(place: Installation, tmp_path: Path) -> None:
    write_backup(place, tmp_path / "backup.tar")
    wipe(place)
    elsewhere = place.settings.model_copy(update={"artefacts_url": str(tmp_path / "elsewhere")})
    with open_installation(elsewhere) as other, pytest.raises(InvalidRequestError, match="set it to the store of the backup"):
        restore_backup(other, tmp_path / "backup.tar")


def test_store_accepts_restored_database(place: Installation, tmp_path: Path) -> None:
    lost = place.actors.database.id
    assert write_backup(place, tmp_path / "backup.tar").database == lost
    before = facts(place, "ann")
    lose_database(place)

    with pytest.raises(StorageRefusedError, match="belongs to another database"):
        ActorStore(place.settings)
    with open_installation(place.settings, claim_artefacts=False) as again:
        restore_backup(again, tmp_path / "backup.tar")
        assert facts(again, "ann") == before
    with open_installation(place.settings) as again:
        assert facts(again, "ann") == before
        assert owner_of(again.artefacts).database == again.actors.database.id != lost


def test_second_restore_replaces_owner(place: Installation, tmp_path: Path, geometry: ActorGeometry) -> None:
    """The database of the backup is refused once another was restored."""
    write_backup(place, tmp_path / "backup.tar")
    copy = place.settings.model_copy(update={"data_dir": tmp_path / "copy", "database_url": ""})
    with open_installation(copy, claim_artefacts=False) as second:
        restore_backup(second, tmp_path / "backup.tar")
    with pytest.raises(StorageRefusedError, match="belongs to another database"):
        ActorStore(place.settings)


def test_a_restore_that_was_interrupted_goes_on(place: Installation, tmp_path: Path) -> None:
    write_backup(place, tmp_path / "backup.tar")
    lose_database(place)

    def stop(step: str, *_: int) -> None:
        if step == RESTORE:
            raise InterruptedError

    with open_installation(place.settings, claim_artefacts=False) as again, pytest.raises(InterruptedError):
        restore_backup(again, tmp_path / "backup.tar", on_blob=stop)
    with open_installation(place.settings, claim_artefacts=False) as again:
        restore_backup(again, tmp_path / "backup.tar")
        assert len(again.actors.list()) == 2
    with open_installation(place.settings) as again:
        assert len(again.actors.list()) == 2


def test_third_database_refused(place: Installation, tmp_path: Path) -> None:
    """A store of a third database is refused and keeps its owner."""
    write_backup(place, tmp_path / "backup.tar")
    lose_database(place)
    store = ArtefactStore(place.settings.artefacts_url)
    store.set_owner(json.dumps({"database": "f" * 32, "where": "sqlite:///third", "since": "2026-11-25"}).encode(), replace=True)
    owner = store.owner()
    with open_installation(place.settings, claim_artefacts=False) as again:
        told = "belongs to another database.* If the other database is gone for good, remove"
        with pytest.raises(StorageRefusedError, match=told):
            restore_backup(again, tmp_path / "backup.tar")
        assert again.actors.list() == []
    assert store.owner() == owner


@about_files
@pytest.mark.parametrize("name", [SIGNING, KEY_FILE])
def test_another_key_is_never_replaced(place: Installation, tmp_path: Path, name: str) -> None:
    installation_credential(place.settings.data_dir)
    key = (place.settings.data_dir / name).read_bytes()
    write_backup(place, tmp_path / "backup.tar")
    wipe(place)
    file = place.settings.data_dir / name
    with open_installation(place.settings) as again:
        file.write_bytes(b"another key")
        with pytest.raises(InvalidRequestError, match=rf"{name} is another key than the backup's, .*: move the file away"):
            restore_backup(again, tmp_path / "backup.tar")
        assert (file.read_bytes(), again.actors.list(), on_disk(place.settings)) == (b"another key", [], set())
        file.write_bytes(key)
        restore_backup(again, tmp_path / "backup.tar")
        assert (file.read_bytes(), len(again.actors.list())) == (key, 2)


@about_files
def test_concurrent_key_not_replaced(place: Installation, tmp_path: Path) -> None:
    """A key that is made while blobs are restored is not replaced silently."""
    installation_credential(place.settings.data_dir)
    write_backup(place, tmp_path / "backup.tar")
    with wiped(place) as again:
        with pytest.raises(InvalidRequestError, match=f"{KEY_FILE} is another key than the backup's"):
            restore_backup(again, tmp_path / "backup.tar", on_blob=lambda *_: installation_credential(place.settings.data_dir))
        assert again.actors.list() == []


@about_files
def test_unsigned_installation_backup_lacks_key(place: Installation, tmp_path: Path) -> None:
    made = write_backup(place, tmp_path / "backup.tar")
    assert KEY_FILE not in made.members
    with wiped(place) as again:
        own = installation_credential(place.settings.data_dir)
        assert restore_backup(again, tmp_path / "backup.tar") == made
        assert installation_credential(place.settings.data_dir) == own


@about_files
@pytest.mark.parametrize("name", [SIGNING, KEY_FILE])
def test_unusable_key_is_named(place: Installation, tmp_path: Path, name: str) -> None:
    """A key that cannot be read or written is reported by name."""
    installation_credential(place.settings.data_dir)
    write_backup(place, tmp_path / "backup.tar")
    file = place.settings.data_dir / name
    file.unlink()
    file.mkdir()
    with pytest.raises(StorageRefusedError, match=f"the key .*{name} cannot be used: Is a directory"):
        write_backup(place, tmp_path / "second.tar")
    assert not (tmp_path / "second.tar").exists()


@about_files
def test_damaged_blob_ends_backup(place: Installation, tmp_path: Path) -> None:
    """A blob that is gone or damaged ends the backup and leaves no file."""
    ref = place.actors.get("ann").artefacts["bank"]
    file = next(path for path in Path(place.settings.artefacts_url).rglob(ref.sha256))
    content = file.read_bytes()
    file.write_bytes(b"?" * len(content))
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtefactCorruptError):
        write_backup(place, tmp_path / "out" / "backup.tar")
    file.unlink()
    with pytest.raises(BackendUnavailableError, match="take the backup again"):
        write_backup(place, tmp_path / "out" / "backup.tar")
    assert list((tmp_path / "out").iterdir()) == []


@about_files
def test_existing_backup_kept_by_default(place: Installation, tmp_path: Path) -> None:
    """An existing file is kept unless it may be replaced."""
    file = tmp_path / "backup.tar"
    file.write_bytes(b"letters")
    with pytest.raises(InvalidRequestError, match="replace the file with overwrite"):
        write_backup(place, file)
    assert file.read_bytes() == b"letters"
    write_backup(place, file, overwrite=True)
    assert read_manifest(file).actors == 2


@about_files
def test_killed_backup_cleaned_live_kept(place: Installation, tmp_path: Path) -> None:
    """A backup removes leftovers of a killed backup, and keeps files that a live backup writes."""
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o755)
    for name in ("actors.tar", ".actors.0123456789abcdef.backup.gz", ".0123456789abcdef.backup"):
        (folder / name).write_bytes(b"another's")

    def partial() -> set[Path]:
        return set(folder.glob(".*.tar.*"))

    script = """
import os, sys, time
from pathlib import Path
from gateway.actors.installation import open_installation
from gateway.backup.write import write_backup
from gateway.settings import GatewaySettings
from services.common.server.settings import load_settings
os.umask(0)
with open_installation(load_settings(GatewaySettings)) as place:
    write_backup(place, Path(sys.argv[1]), on_blob=lambda *_: (print("writes", flush=True), time.sleep(600)))
"""
    named = {name: str(getattr(place.settings, name)) for name in ("data_dir", "artefacts_url", "database_url")}
    environment = {f"DUBSTAGE_{name.upper()}": value for name, value in named.items() if value}
    with begun(script, str(folder / "killed.tar"), environment=environment) as killed:
        assert killed.stdout.readline() == "writes\n"
        (left,) = partial()
        assert left.stat().st_mode & 0o777 == 0o600
        killed.kill()
    assert partial() == {left}

    def write_another(*_: object) -> None:
        (live,) = partial()
        assert live != left
        write_backup(place, folder / f"{len(list(folder.iterdir()))}.tar")
        assert partial() == {live}

    write_backup(place, folder / "live.tar", on_blob=write_another)
    assert partial() == set()
    assert read_manifest(folder / "live.tar").actors == 2
    assert {path.read_bytes() for path in folder.iterdir() if path.suffix != ".tar"} == {b"another's"}
    assert (folder / "actors.tar").read_bytes() == b"another's"


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-12_000])


def _flip(file: Path) -> None:
    with tarfile.open(file) as archive:
        place = [member.offset_data for member in archive if member.name.startswith("blobs/")][-1]
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def _forge(file: Path) -> None:
    content = file.read_bytes()
    assert b"anndubstage" in content, "columns of one row"
    file.write_bytes(content.replace(b"anndubstage", b"evedubstage"))


def _other_file(file: Path) -> None:
    file.write_bytes(b"RIFF" + bytes(40_000))


def _other_tar(file: Path) -> None:
    with tarfile.open(file, "w") as archive:
        archive.add(__file__, "notes.txt")


def _rewrite(file: Path, manifest: bytes, extra: tarfile.TarInfo | None = None) -> None:
    """Write a tar with a manifest, and a further member of 1 byte or of a size that is only claimed."""
    with file.open("wb") as stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        first = tarfile.TarInfo("manifest.json")
        first.size = len(manifest)
        archive.addfile(first, io.BytesIO(manifest))
        if extra is not None:
            archive.addfile(extra)
            stream.write(b"x")


def _manifest(file: Path, **changed: object) -> bytes:
    with tarfile.open(file) as archive:
        content = archive.extractfile("manifest.json")
        assert content is not None
        return json.dumps({**json.load(content), **changed}).encode()


def _claims_a_petabyte(file: Path) -> None:
    member = tarfile.TarInfo("blobs/" + "a" * 64)
    member.size = 1 << 50
    _rewrite(file, _manifest(file), member)


def _claims_a_petabyte_of_holes(file: Path) -> None:
    member = tarfile.TarInfo("x")
    member.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.name": "blobs/" + "a" * 64, "GNU.sparse.size": str(1 << 50)}
    _rewrite(file, _manifest(file), member)


def _broken_map(file: Path) -> None:
    member = tarfile.TarInfo("x")
    member.pax_headers = {"GNU.sparse.map": "a,b"}
    _rewrite(file, _manifest(file), member)


def _members_are_a_list(file: Path) -> None:
    _rewrite(file, _manifest(file, members=[1]))


def _count_is_a_text(file: Path) -> None:
    _rewrite(file, _manifest(file, members={}, blobs="many"))


def _deep(file: Path) -> None:
    _rewrite(file, b"[" * 100_000)


HOSTILE = [_claims_a_petabyte, _claims_a_petabyte_of_holes, _broken_map, _members_are_a_list, _count_is_a_text, _deep]


@about_files
@pytest.mark.parametrize("spoil", [_truncate, _flip, _forge, _other_file, _other_tar, *HOSTILE])
def test_partial_backup_changes_nothing(place: Installation, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    file = tmp_path / "backup.tar"
    write_backup(place, file)
    wipe(place)
    spoil(file)
    with open_installation(place.settings) as again:
        with pytest.raises(DubstageError, match=r"damaged|no backup of dubstage"):
            restore_backup(again, file)
        assert OperationStore(again.actors.database).list() == []
        assert on_disk(place.settings) == set()


def _no_database() -> bytes:
    return b"[]\n" * 2000


def _no_tables() -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE actors (a)")
        return connection.serialize()


def _hostile_view() -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (head(),))
        connection.execute("CREATE VIEW tenants AS SELECT 5 AS tenant")
        return connection.serialize()


@about_files
@pytest.mark.parametrize("content", [_no_database, _no_tables, _hostile_view])
def test_invalid_rows_change_nothing(place: Installation, tmp_path: Path, content: Callable[[], bytes]) -> None:
    """A database that is none, or has other tables, is refused and changes nothing."""
    file, database = tmp_path / "backup.tar", content()
    made = write_backup(place, file)
    wipe(place)
    manifest = replace(made, blobs=0, members={DATABASE: hashlib.sha256(database).hexdigest()})
    with tarfile.open(file, "w") as archive:
        ArchiveWriter(archive, manifest, {DATABASE: io.BytesIO(database)})
    with open_installation(place.settings) as again:
        with pytest.raises(InvalidRequestError, match="do not fit the tables"):
            restore_backup(again, file)
        assert again.actors.list() == []
    assert not [path for path in place.settings.data_dir.iterdir() if path.name.startswith("tmp")]
