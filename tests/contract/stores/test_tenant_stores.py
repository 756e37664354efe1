"""Stores of several tenants in a real PostgreSQL and in SQLite, beside the store that a former version made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import create_engine, inspect, text

from gateway.actors.store import ActorStore
from gateway.database.session import Database
from gateway.operations.leases import OperationQueue
from gateway.operations.store import OperationStore
from gateway.settings import GatewaySettings
from gateway.tenants.paths import settings_of
from gateway.tenants.register import remember_tenant, served_tenants, stored_bytes
from services.common.errors import ActorError, OperationNotFoundError
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactStore
from tests.unit.actors.installation import CONSENT, geometry, learned

__all__ = ["geometry"]

FORMER_TABLES: Final = (
    "CREATE TABLE actors (actor_id VARCHAR(63) NOT NULL, method VARCHAR(32) NOT NULL, consent JSON, "
    " footage_sha256 VARCHAR(64) NOT NULL, created_at VARCHAR(32) NOT NULL, enrolment_sha256 VARCHAR(64) NOT NULL,"
    " PRIMARY KEY (actor_id))",
    "CREATE TABLE consent_withdrawals (record_sha256 VARCHAR(64) NOT NULL, withdrawn_at VARCHAR(32) NOT NULL,"
    " PRIMARY KEY (record_sha256))",
    "CREATE TABLE erasures (number NUMBER, actor_id VARCHAR(63) NOT NULL, asked_at VARCHAR(32) NOT NULL, receipt VARCHAR,"
    " error BYTES, PRIMARY KEY (number))",
    "CREATE TABLE job_blobs (folder VARCHAR(4096) NOT NULL, sha256 VARCHAR(64) NOT NULL, uri VARCHAR(4096) NOT NULL,"
    " size_bytes BIGINT NOT NULL, PRIMARY KEY (folder, sha256))",
    "CREATE TABLE job_folders (folder VARCHAR(4096) NOT NULL, belongs_to VARCHAR(80) NOT NULL, PRIMARY KEY (folder))",
    "CREATE TABLE operations (number NUMBER, name VARCHAR(64) NOT NULL, kind VARCHAR(32) NOT NULL, actor_id VARCHAR(63) NOT NULL,"
    " output VARCHAR(4096) NOT NULL, created_at VARCHAR(32) NOT NULL, request BYTES NOT NULL, done BOOLEAN NOT NULL,"
    " metadata_bytes BYTES NOT NULL, response BYTES, error BYTES, PRIMARY KEY (number), UNIQUE (name))",
    "CREATE TABLE actor_jobs (actor_id VARCHAR(63) NOT NULL, folder VARCHAR(4096) NOT NULL, PRIMARY KEY (actor_id, folder),"
    " FOREIGN KEY(actor_id) REFERENCES actors (actor_id))",
    "CREATE TABLE enrolments (actor_id VARCHAR(63) NOT NULL, num_frames BIGINT NOT NULL, lag_frames INTEGER,"
    " PRIMARY KEY (actor_id), FOREIGN KEY(actor_id) REFERENCES actors (actor_id))",
    "CREATE TABLE lineage (actor_id VARCHAR(63) NOT NULL, sha256 VARCHAR(64) NOT NULL, kind VARCHAR(32) NOT NULL,"
    " uri VARCHAR(4096) NOT NULL, size_bytes BIGINT NOT NULL, PRIMARY KEY (actor_id, sha256),"
    " FOREIGN KEY(actor_id) REFERENCES actors (actor_id))",
    "CREATE TABLE operation_leases (number INTEGER NOT NULL, owner VARCHAR(80) NOT NULL, until DOUBLE PRECISION NOT NULL,"
    " begun BOOLEAN NOT NULL, cancel BOOLEAN NOT NULL, PRIMARY KEY (number),"
    " FOREIGN KEY(number) REFERENCES operations (number) ON DELETE CASCADE)",
)
"""Tables of the version before tenants; NUMBER and BYTES are written differently by the two databases."""
OPERATION: Final = f"operations/{'a' * 32}"
FORMER_ROWS: Final = (
    "INSERT INTO actors VALUES ('ann', 'ugc', NULL, 'f', '2026-01-01T00:00:00+00:00', 'e')",
    "INSERT INTO enrolments VALUES ('ann', 40, 0)",
    f"INSERT INTO lineage VALUES ('ann', '{'5' * 64}', 'bank', 'file:///b', 700)",
    f"INSERT INTO consent_withdrawals VALUES ('{'6' * 64}', '2026-01-01T00:00:00+00:00')",
    f"INSERT INTO operations (name, kind, actor_id, output, created_at, request, done, metadata_bytes)"
    f" VALUES ('{OPERATION}', 'dub', 'ann', '', '2026-01-01T00:00:00+00:00', '', false, '')",
    "INSERT INTO operation_leases SELECT number, '', 0, false, false FROM operations",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> GatewaySettings:
    url = str(request.getfixturevalue("postgres_url")) if request.param == "postgresql" else ""
    return GatewaySettings(data_dir=tmp_path / "data", artefacts_url=str(tmp_path / "artefacts"), database_url=url)


@pytest.fixture
def former(settings: GatewaySettings) -> dict[str, set[str]]:
    """A store of the former version with an actor and an operation that waits; its tables and columns."""
    is_postgres = settings.database_url != ""
    settings.data_dir.mkdir()
    engine = create_engine(settings.database_url or f"sqlite:///{settings.data_dir / 'actors.sqlite'}")
    with engine.begin() as connection:
        for statement in (*FORMER_TABLES, *FORMER_ROWS):
            number, data = ("SERIAL", "BYTEA") if is_postgres else ("INTEGER NOT NULL", "BLOB")
            connection.execute(text(statement.replace("number NUMBER", f"number {number}").replace("BYTES", data)))
        found = columns(connection)
    engine.dispose()
    return found


def columns(connection: object) -> dict[str, set[str]]:
    there = inspect(connection)
    assert there is not None
    return {table: {str(column["name"]) for column in there.get_columns(table)} for table in there.get_table_names()}


@pytest.fixture
def stores(settings: GatewaySettings) -> Iterator[dict[str, ActorStore]]:
    with ExitStack() as stack:
        default = stack.enter_context(ActorStore(settings))
        others = {name: stack.enter_context(ActorStore(settings_of(settings, name), beside=default)) for name in ("acme", "acme-2")}
        yield {"default": default, **others}


def test_former_store_belongs_to_default(former: dict[str, set[str]], stores: dict[str, ActorStore]) -> None:
    """Data that a former version stored belong to the default tenant."""
    actors = stores["default"]
    assert [(actor.actor_id, actor.num_frames) for actor in actors.list()] == [("ann", 40)]
    assert set(actors.consents.withdrawn({"6" * 64})) == {"6" * 64}
    assert stored_bytes(actors.database) == 700
    operations = OperationStore(actors.database)
    assert operations.get(OPERATION).actor_id == "ann"
    assert [one.record.name for one in OperationQueue(actors.database).take(5, busy=())[0]] == [OPERATION]
    for name in ("acme", "acme-2"):
        other = stores[name]
        assert other.list() == []
        assert other.consents.withdrawn({"6" * 64}) == {}
        assert stored_bytes(other.database) == 0
        with pytest.raises(ActorError):
            other.erase("ann")
        with pytest.raises(OperationNotFoundError):
            OperationStore(other.database).get(OPERATION)
        assert OperationQueue(other.database).take(5, busy=())[0] in ((), [])


def test_former_gateway_finds_its_tables(former: dict[str, set[str]], stores: dict[str, ActorStore]) -> None:
    """The tables of the former version keep their columns: what it writes meanwhile is read."""
    OperationStore(stores["default"].database)
    with stores["default"].database.engine.connect() as connection:
        now = columns(connection)
    assert all(now[table] >= former[table] for table in former)


def test_tenants_separate_equal_names(stores: dict[str, ActorStore], settings: GatewaySettings, geometry: ActorGeometry) -> None:
    """Tenants keep actors operations and withdrawals of equal names apart."""
    names = {}
    for tenant, store in stores.items():
        blobs = ArtefactStore(settings_of(settings, tenant).artefacts_url)
        store.create(
            "ann", method=f"m-{tenant}", enrolled=learned(blobs, "ann", geometry), footage_sha256="0" * 64, consent=CONSENT
        )
        names[tenant] = OperationStore(store.database).add("dub", tenant.encode(), actor_id="ann").name
    assert all(stored_bytes(store.database) > 0 for store in stores.values())
    stores["acme"].consents.withdraw("7" * 64)
    receipt = stores["acme"].erase("ann")
    # The same blobs lie in the stores of the others, which say nothing of it.
    assert receipt.kept_sha256 == ()
    assert stored_bytes(stores["acme"].database) == 0
    for tenant in ("default", "acme-2"):
        store = stores[tenant]
        assert store.get("ann").method == f"m-{tenant}"
        assert store.consents.withdrawn({"7" * 64}) == {}
        operations = OperationStore(store.database)
        assert [record.request for record in operations.list()] == [tenant.encode()]
        assert [one.record.name for one in OperationQueue(store.database).take(9, busy=())[0]] == [names[tenant]]
    assert OperationStore(stores["acme"].database).list() == []


def test_waiting_erasure_spares_other_tenants(stores: dict[str, ActorStore], tmp_path: Path) -> None:
    """An erasure that waits in one tenant holds up no other."""
    for store in stores.values():
        OperationStore(store.database).add("dub", b"", actor_id="ann")
    number = stores["acme"].erasures.ask("ann")
    assert stores["acme"].erasures.open() == [(number, "ann")]
    assert not stores["acme-2"].erasures.open()
    assert not stores["default"].erasures.open()


def test_every_gateway_learns_which_tenants_were_served(stores: dict[str, ActorStore], settings: GatewaySettings) -> None:
    database = stores["default"].database
    assert served_tenants(database) == []
    for name in ("beta", "acme", "beta"):
        remember_tenant(database, name)
    other = Database(settings.database_url, settings.data_dir)
    assert served_tenants(other) == ["acme", "beta"]
    other.close()


def test_tenant_store_equals_gateways(settings: GatewaySettings, stores: dict[str, ActorStore]) -> None:
    """A command with DUBSTAGE_TENANT has connections of its own."""
    made = OperationStore(stores["acme"].database).add("dub", b"of acme")
    with ActorStore(settings_of(settings, "acme")) as alone:
        assert [record.name for record in OperationStore(alone.database).list()] == [made.name]
