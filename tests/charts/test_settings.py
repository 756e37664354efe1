"""The chart's environment is what the services' own settings classes read, and every setting can be reached by a value."""

from pathlib import Path
from typing import Any

import pytest

from charts.schema import COMPONENTS, REFERENCE, SET_BY_THE_CHART, SETTINGS, reference, schemas, settings_schema
from charts.values import TENANT_LIMITS
from gateway.settings import GatewaySettings, RequireConsent
from gateway.tenants.limits import TenantLimits, read_limits
from services.common.server.settings import PREFIX, StageSettings, load_settings
from services.render.settings import RenderSettings
from tests.charts.rendering import CASES, KEEP_ARTEFACTS, STAGES, Rendered, pod_spec, render

SECRET_VALUES = {"DUBSTAGE_DATABASE_URL": "postgresql+psycopg://dubstage:secret@db/dubstage"}


def load(rendered: Rendered, component: str, folder: Path, patch: pytest.MonkeyPatch) -> StageSettings:
    """A component's settings, read from the environment of its container; what Secrets would be mounted lies below `folder`."""
    spec = pod_spec(rendered.deployment(component))
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    secrets = [mount for mount in rendered.container(component)["volumeMounts"] if "secret" in volumes[mount["name"]]]
    for mount in secrets:
        items = volumes[mount["name"]]["secret"].get("items")
        for name in [item["path"] for item in items] if items else ["tls.crt", "tls.key", "ca.crt"]:
            file = folder / mount["mountPath"].lstrip("/") / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("x", encoding="utf-8")
    for name, value in rendered.environment(component).items():
        text = SECRET_VALUES.get(name, "x") if isinstance(value, dict) else str(value)
        if text == "/models":
            (folder / "models").mkdir(exist_ok=True)
        patch.setenv(name, str(folder / text.lstrip("/")) if text.startswith(("/etc/dubstage/", "/models")) else text)
    return load_settings(SETTINGS[component])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("component", COMPONENTS)
def test_a_service_reads_what_the_chart_tells_it(case, component, tmp_path, monkeypatch) -> None:
    rendered = render(case)
    fields = SETTINGS[component].model_fields
    told = {name for name in rendered.environment(component) if name.startswith(PREFIX)}
    assert {name.removeprefix(PREFIX).lower() for name in told} <= fields.keys()
    settings = load(rendered, component, tmp_path, monkeypatch)
    assert settings.host == "0.0.0.0"
    assert settings.metrics_port > 0
    assert settings.log_format == "json"


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_setting_has_a_value(component: str) -> None:
    by_name = settings_schema(SETTINGS[component])["properties"].keys()
    assert by_name | SET_BY_THE_CHART >= SETTINGS[component].model_fields.keys()
    assert not by_name & SET_BY_THE_CHART


def test_what_is_set_by_the_chart_really_is() -> None:
    claim = ("render.models.source=claim", "render.models.claimName=models")
    signer = ("global.provenance.secret.name=studio", "global.provenance.signerCommand=sign")
    environments = [render(case).environment(component) for case in CASES for component in COMPONENTS]
    environments += [render("default", *claim).environment("render"), render("default", *signer).environment("gateway")]
    told = {name.removeprefix(PREFIX).lower() for found in environments for name in found if name.startswith(PREFIX)}
    # A pod has no use for a file that says that it is ready, the stages have a name each, a gateway serves every tenant, and no
    # server calls a command that speaks.
    assert told >= SET_BY_THE_CHART - {"ready_file", "stages_host", "tenant", "speech_command", "speech_deadline_s"}


@pytest.mark.parametrize("component", COMPONENTS)
def test_any_setting_of_a_service_reaches_it(component: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets, expected = [], {}
    for name, schema in settings_schema(SETTINGS[component])["properties"].items():
        value: Any = schema["enum"][0] if "enum" in schema else _another(schema, getattr(SETTINGS[component](), name))
        if name == "morphable_models":
            # The folder must exist.
            value = str(tmp_path)
        elif name in ("webhook_networks", "proxy_networks"):
            value = "10.0.0.0/8"
        elif name in ("proxy_user_header", "proxy_groups_header"):
            # The header of the user needs tokens and users.
            value = "x-user"
            sets += ["gateway.tokensSecret.name=tokens", "gateway.proxySecret.name=users"]
        expected[name] = value
        text = f"{value:g}" if isinstance(value, float) else str(value).lower()
        sets.append(f"{component}.settings.{name}={text}")
    settings = load(render("default", *sets), component, tmp_path, monkeypatch)
    for name, value in expected.items():
        found = getattr(settings, name)
        assert (str(found) if isinstance(found, Path) else getattr(found, "value", found)) == value


def _another(schema: dict[str, Any], value: Any) -> Any:
    match schema["type"]:
        case "boolean":
            return not value
        case "integer" | "number":
            return type(value)(min(value + 1, schema.get("maximum", value + 1)))
        case "string":
            return "s3://bucket/folder" if "pattern" in schema else "words"
        case kind:
            raise AssertionError(f"a setting of type {kind}: {schema}")


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ((), (1 << 30) * 9 // 10),
        (("audio.resources.limits.memory=1.5Gi",), 1_449_551_462),
        (("audio.resources.limits.memory=1000000000",), 900_000_000),
        (("audio.resources.limits.memory=2Gi", "audio.settings.max_memory_bytes=77"), 77),
        (("audio.settings.max_memory_bytes=0",), 0),
    ],
)
def test_memory_limit_follows_container(sets, expected, tmp_path, monkeypatch) -> None:
    """A process may take most of the memory of its container."""
    assert load(render("default", *sets), "audio", tmp_path, monkeypatch).max_memory_bytes == expected


def test_default_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway requires consent unless values say otherwise, and reaches every stage by name."""
    settings = load(render("default"), "gateway", tmp_path, monkeypatch)
    assert isinstance(settings, GatewaySettings)
    assert settings.require_consent
    assert render("default", "gateway.requireConsent=false").environment("gateway")["DUBSTAGE_REQUIRE_CONSENT"] == "false"
    for stage in STAGES:
        assert settings.client_config(stage).target.startswith(f"dns:///dubstage-{stage}:")


def test_signed_consent_mounts_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed consent comes with the folder of trusted keys."""
    rendered = render("default", "gateway.requireConsent=signed", "gateway.consentKeysSecret.name=studios")
    settings = load(rendered, "gateway", tmp_path, monkeypatch)
    assert isinstance(settings, GatewaySettings)
    assert settings.require_consent is RequireConsent.SIGNED
    assert settings.consent_keys == tmp_path / "etc/dubstage/consent-keys"
    mounts = {mount["mountPath"]: mount["name"] for mount in rendered.container("gateway")["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod_spec(rendered.deployment("gateway"))["volumes"]}
    assert volumes[mounts["/etc/dubstage/consent-keys"]]["secret"]["secretName"] == "studios"


def test_artefacts_and_database() -> None:
    """Components that keep artefacts mount their volume, and no others do; database and keys come from secrets alone."""
    rendered = render("default")
    mounting = set()
    for component in COMPONENTS:
        (container,) = [each for each in pod_spec(rendered.deployment(component))["containers"] if each["name"] == component]
        if "/data/artefacts" in {mount["mountPath"] for mount in container["volumeMounts"]}:
            mounting.add(component)
            assert rendered.environment(component)["DUBSTAGE_ARTEFACTS_URL"] == "/data/artefacts"
    assert mounting == KEEP_ARTEFACTS
    environment = render("production").environment("gateway")
    assert environment["DUBSTAGE_DATABASE_URL"] == {"secretKeyRef": {"name": "dubstage-database", "key": "url"}}
    for component in KEEP_ARTEFACTS:
        own = render("production").environment(component)
        assert own["DUBSTAGE_ARTEFACTS_URL"] == "s3://dubstage-artefacts/production"
        assert own["AWS_SECRET_ACCESS_KEY"]["secretKeyRef"]["name"] == "dubstage-s3"
    for component in set(COMPONENTS) - KEEP_ARTEFACTS:
        assert "AWS_SECRET_ACCESS_KEY" not in render("production").environment(component)


@pytest.mark.parametrize("case", ["gpu", "everything"])
def test_renderer_uses_own_triton(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = render(case)
    settings = load(rendered, "render", tmp_path, monkeypatch)
    assert isinstance(settings, RenderSettings)
    assert (settings.backend, settings.triton_url, settings.triton_shared_memory) == ("triton", "localhost:8001", True)
    containers = [rendered.container("render", name) for name in ("render", "triton")]
    mounts = [{mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]} for container in containers]
    assert mounts[0]["/dev/shm"] == mounts[1]["/dev/shm"]
    volumes = {volume["name"]: volume for volume in pod_spec(rendered.deployment("render"))["volumes"]}
    assert volumes[mounts[0]["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
    assert mounts[0]["/tmp"] != mounts[1]["/tmp"]


@pytest.mark.parametrize("name", sorted(str(path) for path in schemas()))
def test_a_committed_schema_is_what_the_settings_say(name: str) -> None:
    text = {str(path): text for path, text in schemas().items()}[name]
    assert Path(name).read_text(encoding="utf-8") == text, "run: python -m charts.schema"


def test_values_page_matches_schemas() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == reference(), "run: python -m charts.schema"


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


def test_chart_takes_every_tenant_limit() -> None:
    properties = TENANT_LIMITS["properties"]
    one_tenant = properties["tenants"]["additionalProperties"]
    assert set(properties["every"]["properties"]) == set(one_tenant["properties"]) == set(TenantLimits.model_fields)


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
