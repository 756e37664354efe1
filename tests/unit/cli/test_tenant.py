"""DUBSTAGE_TENANT: the commands of this machine work in the places of one tenant."""

from __future__ import annotations

import pytest

from gateway.actors.store import ActorStore
from gateway.api.server import GatewayServer
from gateway.cli.app import run
from gateway.settings import GatewaySettings
from gateway.tenants.paths import settings_of
from services.common.errors import InvalidRequestError
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactStore
from tests.unit.actors.installation import CONSENT, geometry, learned

__all__ = ["geometry"]


@pytest.fixture
def settings(geometry: ActorGeometry) -> GatewaySettings:
    """An installation whose tenant acme has an actor."""
    found = GatewaySettings()
    acme = settings_of(found, "acme")
    with ActorStore(acme) as actors:
        enrolled = learned(ArtefactStore(acme.artefacts_url), "ann", geometry)
        actors.create("ann", method="dubstage", enrolled=enrolled, footage_sha256="0" * 64, consent=CONSENT)
    return found


def test_commands_see_the_tenant_of_the_environment_alone(
    settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for tenant, seen in (("acme", True), ("beta", False), ("default", False), ("", False)):
        monkeypatch.setenv("DUBSTAGE_TENANT", tenant)
        assert run(["actor", "list"]) == 0
        assert ("ann" in capsys.readouterr().out) is seen, tenant
        assert (run(["actor", "show", "ann"]) == 0) is seen, tenant
        capsys.readouterr()
    monkeypatch.setenv("DUBSTAGE_TENANT", "acme")
    assert run(["actor", "erase", "ann"]) == 0
    assert not list(ArtefactStore(settings_of(settings, "acme").artefacts_url).stored())


def test_a_name_that_is_no_tenants_is_refused(
    settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUBSTAGE_TENANT", "../acme")
    assert run(["actor", "list"]) == 10
    assert "DUBSTAGE_TENANT" in capsys.readouterr().err


def test_a_gateway_serves_every_tenant_and_not_one(settings: GatewaySettings) -> None:
    with pytest.raises(InvalidRequestError, match="serves every tenant"):
        GatewayServer(settings.model_copy(update={"tenant": "acme"}))
