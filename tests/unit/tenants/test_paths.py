from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.settings import GatewaySettings
from gateway.tenants.paths import settings_of

PLACES = ("data_dir", "database_url", "artefacts_url", "media_dir", "media_url")


def settings(tmp_path: Path, **more: Any) -> GatewaySettings:
    chosen: dict[str, Any] = {
        "data_dir": tmp_path / "data",
        "artefacts_url": "s3://videos/artefacts",
        "media_dir": tmp_path / "media",
        "media_url": "s3://videos/media",
        **more,
    }
    return GatewaySettings(**chosen)


def test_default_tenant_uses_settings(tmp_path: Path) -> None:
    """The default tenant has the places of the settings."""
    given = settings(tmp_path)
    assert settings_of(given, "default") == given


def test_tenant_folders_are_disjoint(tmp_path: Path) -> None:
    """No two tenants share a folder, and none lies in the folder of another."""
    given = settings(tmp_path)
    acme, beta = settings_of(given, "acme"), settings_of(given, "acme-2")
    for name in ("data_dir", "artefacts_url", "media_dir", "media_url"):
        one, other = str(getattr(acme, name)), str(getattr(beta, name))
        assert one.startswith(str(getattr(given, name)))
        assert not f"{other}/".startswith(f"{one}/"), name
    assert acme.tenant == "acme"
    assert {name for name in type(given).model_fields if getattr(acme, name) != getattr(given, name)} <= {*PLACES, "tenant"}


def test_places_that_the_settings_leave_out_stay_out(tmp_path: Path) -> None:
    acme = settings_of(settings(tmp_path, media_dir=None, media_url=""), "acme")
    assert (acme.media_dir, acme.media_url) == (None, "")


@pytest.mark.parametrize(
    ("url", "own"), [("", ""), ("sqlite:////elsewhere/actors.sqlite", ""), ("postgresql://host/db", "postgresql://host/db")]
)
def test_a_file_of_sqlite_belongs_to_one_tenant(url: str, own: str, tmp_path: Path) -> None:
    assert settings_of(settings(tmp_path, database_url=url), "acme").database_url == own
