"""Stores of several tenants in SQLite and PostgreSQL, and gateways that learn of the tenants that another gateway serves."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from opentelemetry import trace
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from gateway.actors import erasure
from gateway.actors.store import ActorStore
from gateway.api import tenants as rooms_module
from gateway.api.context import OpenedStages, ProcessContext
from gateway.api.tenants import Tenant, Tenants
from gateway.cli.actor import run_erase
from gateway.database.session import Database
from gateway.operations.leases import OperationQueue
from gateway.operations.store import OperationStore
from gateway.settings import GatewaySettings
from gateway.tenants.paths import settings_of
from gateway.tenants.register import remember_tenant, served_tenants, stored_bytes
from services.common.errors import BackendUnavailableError, StorageRefusedError, TenantDubsReachedError
from services.common.face.actor_geometry import ActorGeometry
from services.common.server.call_context import acting_for
from services.common.store.artefacts import ArtefactStore
from tests.contract.stores.people import keep
from tests.erasing import erase
from tests.operations import submitted


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> GatewaySettings:
    url = str(request.getfixturevalue("postgres_url")) if request.param == "postgresql" else ""
    return GatewaySettings(data_dir=tmp_path / "data", artefacts_url=str(tmp_path / "artefacts"), database_url=url)


@pytest.fixture
def stores(settings: GatewaySettings) -> Iterator[dict[str, ActorStore]]:
    with ExitStack() as stack:
        default = stack.enter_context(ActorStore(settings))
        others = {name: stack.enter_context(ActorStore(settings_of(settings, name), beside=default)) for name in ("acme", "acme-2")}
        yield {"default": default, **others}


def test_tenants_separate_equal_names(stores: dict[str, ActorStore], settings: GatewaySettings, geometry: ActorGeometry) -> None:
    """Tenants keep actors operations and withdrawals of equal names apart."""
    names = {}
    for tenant, store in stores.items():
        blobs = ArtefactStore(settings_of(settings, tenant).artefacts_url)
        keep(store, blobs, geometry, "ann", method=f"m-{tenant}")
        names[tenant] = submitted(store.database, "dub", tenant.encode(), actor_id="ann").name
    assert all(stored_bytes(store.database) > 0 for store in stores.values())
    stores["acme"].consents.withdraw("7" * 64)
    receipt = erase(stores["acme"], "ann")
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
        submitted(store.database, "dub", b"", actor_id="ann")
    number = stores["acme"].erasures.ask("ann")
    assert stores["acme"].erasures.open() == [(number, "ann")]
    assert not stores["acme-2"].erasures.open()
    assert not stores["default"].erasures.open()


def test_tenants_wait_for_own_locks(postgres_url: str, tmp_path: Path) -> None:
    """A transaction that holds all locks of one tenant stalls no other tenant."""
    digest = "0f" * 32
    with ExitStack() as stack:
        default = stack.enter_context(closing(Database(postgres_url, tmp_path)))
        acme = Database(postgres_url, tmp_path, tenant="acme", beside=default)
        again = stack.enter_context(closing(Database(postgres_url, tmp_path, tenant="acme")))

        def take_all(database: Database, session: Session) -> None:
            session.execute(text("SET LOCAL lock_timeout = '1s'"))
            database.one_by_one(session)
            database.delete_blobs(session)
            database.count_blobs(session, {digest})
            database.audit_one_by_one(session)

        with default.writing() as held, acme.writing() as session:
            take_all(default, held)
            take_all(acme, session)
            with again.writing() as third, pytest.raises(OperationalError, match="lock timeout"):
                take_all(again, third)
        with default.turn(1) as of_default, acme.turn(1) as of_acme, again.turn(1) as taken, again.turn(2) as free:
            assert (of_default, of_acme, taken, free) == (True, True, False, True)


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
    made = submitted(stores["acme"].database, "dub", b"of acme")
    with ActorStore(settings_of(settings, "acme")) as alone:
        assert [record.name for record in OperationStore(alone.database).list()] == [made.name]


def rooms_at(folder: Path, url: str, **given: Path) -> Tenants:
    settings = GatewaySettings(data_dir=folder, artefacts_url=str(folder.parent / "artefacts"), database_url=url, **given)
    return Tenants(ProcessContext.of(settings, OpenedStages(settings)))


async def closed(rooms: Tenants) -> None:
    await rooms.stop()
    await rooms.close_batches()
    await rooms.close()


async def until_opened(lines: list[Any], count: int) -> None:
    async with asyncio.timeout(60):
        while sum(line["event"] == "tenant_opened" for line in lines) < count:  # noqa: ASYNC110 - the event comes from another task
            await asyncio.sleep(0.01)


async def test_a_gateway_opens_the_tenants_of_another(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms_module, "POLL_S", 0.05)
    one, other = rooms_at(tmp_path / "one", postgres_url), rooms_at(tmp_path / "other", postgres_url)
    with structlog.testing.capture_logs() as lines:
        for rooms in (one, other):
            await rooms.start(trace.NoOpTracer())
        with acting_for("acme"):
            room = await one.of_caller()
            assert await one.of_caller() is room
        assert await one.of_caller() is one.default
        await until_opened(lines, 2)
    assert [line["tenant"] for line in lines if line["event"] == "tenant_opened"] == ["acme", "acme"]
    await closed(one)
    with structlog.testing.capture_logs() as lines:
        again = rooms_at(tmp_path / "one", postgres_url)
        await again.start(trace.NoOpTracer())
        # At its start already, before anybody calls.
        assert sum(line["event"] == "tenant_opened" for line in lines) == 1
    await closed(again)
    await closed(other)


async def test_gateway_erases_in_unserved_tenant(
    postgres_url: str, tmp_path: Path, geometry: ActorGeometry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command asks for an erasure in a tenant that no gateway has served, while a gateway holds the database."""
    monkeypatch.setattr(rooms_module, "POLL_S", 0.05)
    gateway = rooms_at(tmp_path / "one", postgres_url)
    await gateway.start(trace.NoOpTracer())
    places = GatewaySettings(data_dir=tmp_path / "other", artefacts_url=str(tmp_path / "artefacts"), database_url=postgres_url)
    acme = settings_of(places, "acme")
    with ActorStore(acme) as actors:
        keep(actors, ArtefactStore(acme.artefacts_url), geometry, "ann")
    # The wait needs no more than some looks of the gateway.
    monkeypatch.setattr(erasure, "GATEWAY_SECONDS", 30.0)
    await asyncio.to_thread(run_erase, acme, "ann", None)
    assert '"actor_id": "ann"' in capsys.readouterr().out
    with ActorStore(acme) as actors:
        assert actors.find("ann") is None
    await closed(gateway)


async def test_no_room_opens_while_the_gateway_ends(tmp_path: Path) -> None:
    rooms = rooms_at(tmp_path / "data", "")
    await rooms.start(trace.NoOpTracer())
    await rooms.stop()
    with acting_for("acme"), pytest.raises(BackendUnavailableError, match="shutting down"):
        await rooms.of_caller()
    await rooms.close_batches()
    await rooms.close()


async def test_unusable_folder_affects_own_tenant(tmp_path: Path) -> None:
    """A tenant whose folders cannot be used learns so, and no other tenant does."""
    rooms = rooms_at(tmp_path / "data", "")
    await rooms.start(trace.NoOpTracer())
    (tmp_path / "data" / "tenants").write_text("no folder")
    with acting_for("acme"):
        for _ in range(2):
            with pytest.raises(Exception, match="DUBSTAGE_DATA_DIR") as caught:
                await rooms.of_caller()
            assert str(tmp_path) not in str(caught.value)
    assert await rooms.of_caller() is rooms.default
    (tmp_path / "data" / "tenants").unlink()
    with acting_for("acme"):
        assert await rooms.of_caller() is not rooms.default
    await closed(rooms)


async def test_failed_context_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant context that could not start is opened anew by the next call."""
    rooms = rooms_at(tmp_path / "data", "")
    await rooms.start(trace.NoOpTracer())
    start, failures, started = Tenant.start, [BackendUnavailableError("the database is locked")], list[Tenant]()

    async def failing_once(self: Tenant, tracer: trace.Tracer) -> None:
        await start(self, tracer)
        if failures:
            raise failures.pop()
        started.append(self)

    monkeypatch.setattr(Tenant, "start", failing_once)
    with acting_for("acme"):
        with pytest.raises(BackendUnavailableError, match="locked"):
            await rooms.of_caller()
        assert [await rooms.of_caller(), await rooms.of_caller()] == started * 2
    assert len(started) == 1
    await closed(rooms)


async def test_damaged_limits_file_locks_nobody(tmp_path: Path) -> None:
    """The limits from before the mistake hold for tenants whose first call comes after the mistake, too."""
    file = tmp_path / "limits.toml"
    file.write_text("[every]\nconcurrent_dubs = 1")
    rooms = rooms_at(tmp_path / "data", "", tenant_limits_file=file)
    await rooms.start(trace.NoOpTracer())
    file.write_text("[every]\nconcurent_dubs = 2")
    with acting_for("acme"):
        room = await rooms.of_caller()
    with pytest.raises(TenantDubsReachedError, match="tenant acme"):
        room.installation.context.quota.check_dubs(unfinished=1)
    await closed(rooms)


async def test_broken_settings_not_callers_mistake(tmp_path: Path) -> None:
    """Settings that became wrong are not the caller's mistake."""
    keys = tmp_path / "keys.pem"
    key = Ed25519PrivateKey.generate().public_key()
    keys.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    rooms = rooms_at(tmp_path / "data", "", consent_keys=keys)
    await rooms.start(trace.NoOpTracer())
    keys.write_text("no key")
    with acting_for("acme"), pytest.raises(StorageRefusedError, match="DUBSTAGE_CONSENT_KEYS"):
        await rooms.of_caller()
    await closed(rooms)
