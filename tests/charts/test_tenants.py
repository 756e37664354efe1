"""Tokens and limits of tenants reach the gateway."""

from pathlib import Path

import pytest

from gateway.tenants.limits import TenantLimits, read_limits
from tests.charts.rendering import pod_spec, render, template


def test_gateway_reads_limits_of_tenants(tmp_path: Path) -> None:
    rendered = render("everything")
    (name,) = (one["metadata"]["name"] for one in rendered.of("ConfigMap") if one["metadata"]["name"].endswith("tenant-limits"))
    file = tmp_path / "limits.json"
    file.write_text(rendered.one("ConfigMap", name)["data"]["limits.json"])
    limits = read_limits(file)
    assert limits.of("acme") == TenantLimits(concurrent_dubs=8, storage_bytes=500_000_000_000)
    assert limits.of("beta") == TenantLimits(concurrent_dubs=4)
    spec = pod_spec(rendered.deployment("gateway"))
    (volume,) = (one for one in spec["volumes"] if one.get("configMap", {}).get("name") == name)
    (mount,) = (one for one in rendered.container("gateway")["volumeMounts"] if one["name"] == volume["name"])
    # The whole folder is mounted: a file that is mounted alone never changes.
    assert "subPath" not in mount
    assert rendered.environment("gateway")["DUBSTAGE_TENANT_LIMITS_FILE"] == f"{mount['mountPath']}/limits.json"
    rendered = render("default")
    assert "DUBSTAGE_TENANT_LIMITS_FILE" not in rendered.environment("gateway")
    assert not [one for one in rendered.of("ConfigMap") if one["metadata"]["name"].endswith("tenant-limits")]


def test_gateway_reads_users_of_proxy() -> None:
    """The Secret with the users of an OIDC proxy is mounted whole, so that a changed user counts without a restart."""
    rendered = render("everything")
    environment = rendered.environment("gateway")
    (mount,) = (one for one in rendered.container("gateway")["volumeMounts"] if one["name"] == "proxy")
    (volume,) = (one for one in pod_spec(rendered.deployment("gateway"))["volumes"] if one["name"] == "proxy")
    assert (volume["secret"]["secretName"], "subPath" in mount) == ("proxy-users", False)
    assert {item["path"]: item["key"] for item in volume["secret"]["items"]} == {"users": "users", "secret": "proxy-secret"}
    assert environment["DUBSTAGE_PROXY_USERS_FILE"] == f"{mount['mountPath']}/users"
    assert environment["DUBSTAGE_PROXY_SECRET_FILE"] == f"{mount['mountPath']}/secret"
    assert environment["DUBSTAGE_PROXY_USER_HEADER"] == "X-Forwarded-Email"
    assert not [name for name in render("default").environment("gateway") if name.startswith("DUBSTAGE_PROXY")]


@pytest.mark.parametrize(
    "wrong",
    [
        "gateway.tenantLimits.every.concurent_dubs=1",
        "gateway.tenantLimits.tenants.acme.live_streams=-1",
        "gateway.tenantLimits.tenants.Acme.live_streams=1",
    ],
)
def test_helm_names_a_limit_that_is_none(wrong: str) -> None:
    result = template(sets=[wrong], check=False)
    assert result.returncode != 0
    assert "tenantLimits" in result.stderr
