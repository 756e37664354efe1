"""Stores of several tenants in a real PostgreSQL and in SQLite."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.actors.store import ActorStore
from gateway.database.session import Database
from gateway.operations.leases import OperationQueue
from gateway.operations.store import OperationStore
from gateway.settings import GatewaySettings
from gateway.tenants.paths import settings_of
from gateway.tenants.register import remember_tenant, served_tenants, stored_bytes
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactStore
from tests.unit.actors.installation import CONSENT, geometry, learned

__all__ = ["geometry"]


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
