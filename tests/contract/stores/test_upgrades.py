"""Tables in SQLite and PostgreSQL: their creation, and their upgrade by a migration of a later version."""

import io
import json
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Engine, MetaData, String, Table, create_engine, event, select, text

from gateway.actors.installation import Installation, open_installation
from gateway.actors.store import ActorStore
from gateway.backup import restore
from gateway.backup import rows as backup_rows
from gateway.backup.archive import MANIFEST
from gateway.backup.restore import restore_backup
from gateway.backup.write import write_backup
from gateway.cli.app import run
from gateway.database import upgrades
from gateway.database.session import SCHEMA_PREFIX, Database
from gateway.database.tables import Base
from gateway.settings import GatewaySettings
from gateway.tenants.paths import settings_of
from services.common.errors import InvalidRequestError, StorageRefusedError
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactStore
from tests.contract.stores.people import keep
from tests.contract.stores.programs import begun, said_by
from tests.operations import submitted
from tests.unit.actors.installation import CONSENT

TENANT: Final = "acme-2"
HEAD: Final = upgrades.head()
NEXT: Final = f"{int(HEAD) + 1:04}"
LATER: Final = f'''
"""Tables of a later version: a new column, and a table that SQLite builds anew."""

from alembic import op
from sqlalchemy import Column, String

revision = "{NEXT}"
down_revision = "{HEAD}"


def upgrade() -> None:
    op.add_column("actors", Column("note", String(20), nullable=False, server_default=""))
    op.execute("UPDATE actors SET note = 'of ' || actor_id")
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table("operations", recreate="always" if is_sqlite else "never") as batch:
        batch.add_column(Column("priority", String(8), nullable=False, server_default="low"))
    {{last}}
'''
every_database = pytest.mark.parametrize(
    ("database_url", "tenant"),
    [
        ("sqlite", "default"),
        ("postgresql", TENANT),
        pytest.param("sqlite", TENANT, marks=pytest.mark.long),
        pytest.param("postgresql", "default", marks=pytest.mark.long),
    ],
    indirect=["database_url"],
)
"""Each kind of database once, with the default tenant and with another. The other combinations are `long`."""
KEPT: Final = ("actors", "enrolments", "lineage", "operations", "audit_people")


def opened(settings: GatewaySettings) -> Database:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return Database(settings.database_url, settings.data_dir, tenant=settings.tenant)


@contextmanager
def bare(settings: GatewaySettings) -> Iterator[Engine]:
    """An engine that reaches the tables of the settings' tenant, without a Database."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    engine = create_engine(settings.database_url or f"sqlite:///{settings.data_dir / 'actors.sqlite'}")
    if settings.database_url and settings.tenant != "default":
        schema = SCHEMA_PREFIX + settings.tenant

        @event.listens_for(engine, "connect")
        def _use(connection: Any, _: object) -> None:
            connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            connection.execute(f'SET search_path TO "{schema}"')
            connection.commit()

    try:
        yield engine
    finally:
        engine.dispose()


def filled(settings: GatewaySettings, geometry: ActorGeometry) -> ActorStore:
    """A store with two actors and an operation that waits."""
    store = ActorStore(settings)
    kept = ArtefactStore(settings.artefacts_url)
    for name in ("ann", "bob"):
        keep(store, kept, geometry, name)
    submitted(store.database, "dub", b"\x00\xff", actor_id="ann")
    return store


def rows_of(settings: GatewaySettings) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables but the revision's."""
    with bare(settings) as engine, engine.connect() as connection:
        tables = MetaData()
        tables.reflect(connection)
        return {
            table.name: [row._asdict() for row in connection.execute(select(table).order_by(*table.primary_key.columns))]
            for table in tables.sorted_tables
            if table.name != upgrades.RECORD.name
        }


def revision_in(settings: GatewaySettings) -> str:
    with bare(settings) as engine, engine.connect() as connection:
        return upgrades.revision_of(connection)


def differences(settings: GatewaySettings) -> list[Any]:
    with bare(settings) as engine, engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection), Base.metadata)


def columns_of(engine: Engine) -> list[Any]:
    """Everything that the database says of its columns. Indices are compared by `differences`."""
    query = (
        "SELECT table_name, column_name, data_type, character_maximum_length, collation_name, is_nullable, column_default"
        " FROM information_schema.columns WHERE table_schema = current_schema() AND table_name <> 'alembic_version'"
        if engine.dialect.name == "postgresql"
        else "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name <> 'alembic_version'"
    )
    with engine.connect() as connection:
        rows = connection.execute(text(query)).all()
    if engine.dialect.name == "postgresql":
        return sorted(tuple(row) for row in rows)
    # SQLite keeps the statement. A column that was added later stands behind the keys.
    return sorted((table, sorted(part.strip(" \n\t)") for part in sql.split(","))) for table, sql in rows)


def add_migration(folder: Path, monkeypatch: pytest.MonkeyPatch, *, last: str = "pass") -> None:
    """Let this process have a second migration, as a later version has."""
    shutil.copytree(upgrades.MIGRATIONS, folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "migrations" / "versions" / f"{NEXT}_later.py").write_text(LATER.replace("{last}", last))
    monkeypatch.setattr(upgrades, "MIGRATIONS", folder / "migrations")


def declare_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let backups see the new column, as the declarations of a later version do."""
    later = MetaData()
    for table in Base.metadata.sorted_tables:
        table.to_metadata(later)
    later.tables["actors"].append_column(Column("note", String(20), nullable=False, server_default=""))

    def tables() -> list[Table]:
        return [table for table in later.sorted_tables if table.name not in backup_rows.TRANSIENT]

    for module in (restore, backup_rows):
        monkeypatch.setattr(module, "kept_tables", tables)


# New tables


@every_database
def test_new_tables_are_those_that_the_code_declares(settings: GatewaySettings, tenant: str) -> None:
    own = settings_of(settings, tenant)
    opened(own).close()
    assert differences(own) == [], "write a migration for a change of the declarations"


def test_new_tables_match_in_detail(settings: GatewaySettings) -> None:
    """Alembic compares no collations, and SQLite's types loosely."""
    declared = settings.model_copy(update={"data_dir": settings.data_dir / "declared", "tenant": "declared"})
    opened(settings).close()
    with bare(settings) as migrated, bare(declared) as other:
        Base.metadata.create_all(other)
        assert columns_of(migrated) == columns_of(other)


def test_the_names_of_migrations_are_their_revisions() -> None:
    config = Config()
    config.set_main_option("script_location", str(upgrades.MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    assert [one.revision for one in script.walk_revisions()][::-1] == upgrades.revisions()
    assert script.get_heads() == [upgrades.head()]


# Opening


@every_database
def test_opening_takes_one_query(settings: GatewaySettings, tenant: str) -> None:
    own = settings_of(settings, tenant)
    opened(own).close()
    statements: list[str] = []

    thread = threading.get_ident()

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        # Gateways of other tests look for due webhooks in threads of their own.
        if threading.get_ident() == thread:
            statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        opened(own).close()
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert len(statements) == 1, statements


def test_opening_imports_alembic_only_for_an_upgrade(settings: GatewaySettings) -> None:
    script = f"""
import sys
from pathlib import Path
from gateway.database.session import Database
Database({settings.database_url!r}, Path({str(settings.data_dir)!r})).close()
print("alembic" in sys.modules)
"""
    settings.data_dir.mkdir()
    assert [said_by(script) for _ in range(2)] == ["True\n", "False\n"]


@every_database
def test_later_database_version_refused(settings: GatewaySettings, tenant: str, geometry: ActorGeometry) -> None:
    own = settings_of(settings, tenant)
    filled(own, geometry).close()
    with bare(own) as engine, engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
        connection.execute(text("DROP INDEX ix_lineage_sha256_size_bytes"))
    before = rows_of(own)
    told = rf"revision '0999'.*later version.*revisions up to {HEAD}: install the later"
    with pytest.raises(StorageRefusedError, match=told) as caught:
        opened(own)
    assert ("(tenant acme-2)" in caught.value.message) == (tenant != "default")
    assert rows_of(own) == before
    assert revision_in(own) == "0999"
    assert len(differences(own)) == 1, "the index is still missing"


@every_database
@pytest.mark.parametrize("damage", ["UPDATE alembic_version SET version_num = ''", "DROP TABLE alembic_version"])
def test_tables_without_revision_are_refused(settings: GatewaySettings, tenant: str, geometry: ActorGeometry, damage: str) -> None:
    own = settings_of(settings, tenant)
    filled(own, geometry).close()
    with bare(own) as engine, engine.begin() as connection:
        connection.execute(text(damage))
    before = rows_of(own)
    with pytest.raises(StorageRefusedError, match="its tables have no revision"):
        opened(own)
    assert rows_of(own) == before


def test_backup_refused_after_later_upgrade(settings, actors, blobs, tmp_path) -> None:
    with actors.database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    with pytest.raises(StorageRefusedError, match="revision '0999'"):
        write_backup(Installation(settings, actors, blobs), tmp_path / "backup.tar")
    assert not list(tmp_path.glob("*backup*"))


def test_a_missing_table_is_named(settings: GatewaySettings) -> None:
    opened(settings).close()
    with bare(settings) as engine, engine.begin() as connection:
        connection.execute(text("DROP TABLE installation"))
    with pytest.raises(StorageRefusedError, match=r"is damaged \(.*installation.*restore it from a backup"):
        opened(settings)


def test_processes_that_open_at_once_upgrade_once(settings: GatewaySettings) -> None:
    settings.data_dir.mkdir()
    script = f"""
import sys
from pathlib import Path
from gateway.database.session import Database
import alembic.command
print("ready", flush=True)
sys.stdin.readline()
print(Database({settings.database_url!r}, Path({str(settings.data_dir)!r})).opened_revision)
"""
    running = [begun(script, stdin=subprocess.PIPE) for _ in range(3)]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()
    assert sorted(process.communicate(timeout=120)[0] for process in running) == ["\n", f"{HEAD}\n", f"{HEAD}\n"]
    assert differences(settings) == []


def test_threads_that_open_several_databases_upgrade_each(settings: GatewaySettings) -> None:
    own = [settings_of(settings, f"tenant-{number}") for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        for database in threads.map(opened, own):
            database.close()
    assert [(revision_in(one), differences(one)) for one in own] == [(upgrades.head(), [])] * 4


# A migration of a later version


@every_database
def test_a_later_migration_keeps_every_row(settings, tenant, geometry, tmp_path, monkeypatch) -> None:
    own = settings_of(settings, tenant)
    filled(own, geometry).close()
    opened(settings).close()
    before = rows_of(own)
    add_migration(tmp_path, monkeypatch)
    with closing(opened(own)) as database:
        assert database.opened_revision == HEAD
    for row in before["actors"]:
        row["note"] = f"of {row['actor_id']}"
    for row in before["operations"]:
        row["priority"] = "low"
    assert rows_of(own) == before, "leases of the operations, which SQLite's new table replaces, stay"
    assert revision_in(own) == NEXT
    if own is not settings:
        assert revision_in(settings) == HEAD, "each tenant is upgraded by itself"


@every_database
def test_a_migration_that_fails_changes_nothing(settings, tenant, geometry, tmp_path, monkeypatch) -> None:
    own = settings_of(settings, tenant)
    filled(own, geometry).close()
    before = rows_of(own)
    add_migration(tmp_path, monkeypatch, last='raise RuntimeError("as a killed process")')
    with pytest.raises(RuntimeError):
        opened(own)
    monkeypatch.undo()
    with closing(opened(own)) as database:
        assert database.opened_revision == HEAD
    assert rows_of(own) == before
    assert differences(own) == []


def test_foreign_keys_are_checked_after_an_upgrade(settings: GatewaySettings) -> None:
    with closing(opened(settings)) as database, database.writing() as session:
        if not settings.database_url:
            assert session.scalar(text("PRAGMA foreign_keys")) == 1
            assert session.scalar(text("PRAGMA busy_timeout")) == 10_000


# Backups


def back_up(settings: GatewaySettings, geometry: ActorGeometry, file: Path) -> dict[str, list[dict[str, Any]]]:
    """Write a backup of two actors and an operation, remove the installation, and return its rows."""
    with filled(settings, geometry) as store:
        write_backup(Installation(settings, store, ArtefactStore(settings.artefacts_url)), file)
    before = rows_of(settings)
    with bare(settings) as engine:
        tables = MetaData()
        tables.reflect(engine)
        tables.drop_all(engine)
    shutil.rmtree(settings.data_dir)
    shutil.rmtree(settings.artefacts_url)
    return before


def set_revision(file: Path, revision: str) -> None:
    """Write a backup again, with another revision."""
    with tarfile.open(file) as old:
        contents = {member: stream.read() for member in old if (stream := old.extractfile(member)) is not None}
    first = next(iter(contents))
    assert first.name == MANIFEST
    contents[first] = json.dumps({**json.loads(contents[first]), "revision": revision}).encode()
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as new:
        for member, content in contents.items():
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))


@every_database
def test_a_backup_of_an_earlier_revision_is_upgraded(settings, tenant, geometry, tmp_path, monkeypatch) -> None:
    own = settings_of(settings, tenant)
    before = back_up(own, geometry, tmp_path / "backup.tar")
    add_migration(tmp_path, monkeypatch)
    declare_note(monkeypatch)
    with open_installation(own, claim_artefacts=False) as place:
        restore_backup(place, tmp_path / "backup.tar")
        assert place.actors.get("ann").consent == CONSENT
        assert submitted(place.actors.database, "dub", b"").number == 2
    after = rows_of(own)
    assert [row.pop("note") for row in after["actors"]] == ["of ann", "of bob"]
    after["operations"].pop()
    assert [row.pop("priority") for row in after["operations"]] == ["low"]
    assert {name: after[name] for name in KEPT} == {name: before[name] for name in KEPT}
    assert not [path for path in own.data_dir.iterdir() if path.name.startswith("tmp")]


@pytest.mark.parametrize("revision", [NEXT, "", "../0001"])
def test_a_backup_of_a_later_revision_is_refused(settings, geometry, tmp_path, revision) -> None:
    back_up(settings, geometry, tmp_path / "backup.tar")
    set_revision(tmp_path / "backup.tar", revision)
    with open_installation(settings, claim_artefacts=False) as place:
        with pytest.raises(InvalidRequestError, match=f"has revision {HEAD}: restore it with the version"):
            restore_backup(place, tmp_path / "backup.tar")
        assert place.actors.list() == []


# The command


def test_the_command_upgrades_the_tables_of_all_tenants(settings, monkeypatch, capsys, tmp_path) -> None:
    for name, value in (("DATA_DIR", settings.data_dir), ("DATABASE_URL", settings.database_url), ("TENANT", "acme-2")):
        monkeypatch.setenv(f"DUBSTAGE_{name}", str(value))
    if not settings.database_url:
        assert run(["database", "upgrade"]) == InvalidRequestError.exit_code
        assert "there is no database in" in capsys.readouterr().err
        assert not settings.data_dir.exists()
    for tenant in ("default", "acme-2", "zeta"):
        opened(settings_of(settings, tenant)).close()
    assert run(["database", "upgrade"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == [f"{HEAD} -> {HEAD}"] * 3
    assert [line.rpartition(" (")[2].partition(")")[0] for line in lines] == ["default", "acme-2", "zeta"]
    add_migration(tmp_path, monkeypatch)
    assert run(["database", "upgrade"]) == 0
    assert [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines()] == [f"{HEAD} -> {NEXT}"] * 3
    for tenant in ("default", "acme-2", "zeta"):
        assert revision_in(settings_of(settings, tenant)) == NEXT
