"""Batches as Jobs: what the chart makes for them, read by the engine itself."""

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest

from gateway.settings import GatewaySettings
from services.common.server.settings import PREFIX
from services.render.settings import RenderSettings
from tests.charts.rendering import NAMESPACE, ROOT, STAGES, Rendered, pod_spec, render
from tests.kubernetes_objects import schemas_read_once

DATABASE = "gateway.database.urlSecret.name=database"
ON = ("batch.enabled=true", DATABASE)
VERSIONS = ("1.29", "1.34", "1.35", "1.36", "1.37")


def settings(rendered: Rendered) -> dict[str, Any]:
    return dict(json.loads(rendered.one("ConfigMap", "dubstage-batch")["data"]["settings.json"]))


def worker(rendered: Rendered, profile: int = 0) -> dict[str, Any]:
    """The pod of the workers; profiles are in the order of their names: cpu, gpu."""
    return pod_spec(rendered.jobs()[profile])


def environment(rendered: Rendered, profile: int = 0) -> dict[str, Any]:
    (container,) = worker(rendered, profile)["containers"]
    found = {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}
    assert len(found) == len(container["env"])
    return found


@pytest.fixture(scope="module", autouse=True)
def _schemas_read_once() -> Iterator[None]:
    with schemas_read_once():
        yield


def test_batches_are_off_by_default() -> None:
    rendered = render("default")
    assert not rendered.of("Role")
    assert not rendered.of("RoleBinding")
    assert not rendered.of("ConfigMap")


@pytest.mark.parametrize(
    "version", [VERSIONS[0], *(pytest.param(version, marks=pytest.mark.long) for version in VERSIONS[1:-1]), VERSIONS[-1]]
)
@pytest.mark.parametrize("sets", [ON, ()])
def test_the_jobs_of_the_charts_settings_are_valid(version: str, sets: tuple[str, ...]) -> None:
    rendered = render("default", *sets) if sets else render("batch")
    assert len(rendered.jobs()) == 2
    for job in rendered.jobs():
        kubernetes_validate.validate(job, version, strict=True)


def test_workers_share_store_and_consent() -> None:
    """Workers and components share the store the image tag and the rule of consent."""
    rendered = render("batch", "gateway.requireConsent=false")
    assert worker(rendered)["containers"][0]["image"] == rendered.container("gateway")["image"]
    own_stages = worker(render("batch", "batch.stages=own"))["containers"][0]["image"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert own_stages == f"registry.example.com/dubstage/suite:{version}"
    assert worker(rendered)["imagePullSecrets"] == [{"name": "pull"}]
    own, gateway = environment(rendered), rendered.environment("gateway")
    for name in ("DUBSTAGE_ARTEFACTS_URL", "DUBSTAGE_DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "DUBSTAGE_REQUIRE_CONSENT"):
        assert own[name] == gateway[name]


def test_workers_use_gateway_database() -> None:
    """Workers find batches, and count blobs, in the database of the gateway."""
    place = "gateway.database.url=postgresql+psycopg://dubstage@db/dubstage"
    for sets in (ON, (*ON[:-1], place), (*ON, "batch.stages=own")):
        rendered = render("default", *sets)
        own, gateway = environment(rendered), rendered.environment("gateway")
        for name in ("DUBSTAGE_DATABASE_URL", "DUBSTAGE_ARTEFACTS_URL"):
            assert own[name] == gateway[name]
    alone = environment(render("default", *ON[:-1], place, "gateway.enabled=false", "batch.stages=own"))
    assert alone["DUBSTAGE_DATABASE_URL"] == "postgresql+psycopg://dubstage@db/dubstage"


def test_workers_trust_gateway_keys() -> None:
    rendered = render("batch", "gateway.requireConsent=signed", "gateway.consentKeysSecret.name=studios")
    assert environment(rendered)["DUBSTAGE_REQUIRE_CONSENT"] == "signed"
    spec = worker(rendered)
    place = environment(rendered)["DUBSTAGE_CONSENT_KEYS"]
    (mount,) = [mount for mount in spec["containers"][0]["volumeMounts"] if mount["mountPath"] == place]
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == mount["name"]]
    assert volume["secret"]["secretName"] == "studios"


def test_workers_have_video_settings() -> None:
    """Workers have the settings of the gateway that change videos, and threads of all components unless the gateway has others."""
    names = ("DUBSTAGE_WATERMARK", "DUBSTAGE_WATERMARK_PUBLIC", "DUBSTAGE_FACE_MODEL", "DUBSTAGE_COMPUTE_THREADS")
    given = ("watermark=false", "watermark_public=false", "face_model=basel", "compute_threads=3")
    rendered = render("batch", *(f"gateway.settings.{field}" for field in given))
    own, gateway = environment(rendered), rendered.environment("gateway")
    assert [own[name] for name in names] == ["false", "false", "basel", "3"]
    assert [gateway[name] for name in names] == ["false", "false", "basel", "3"]
    assert not environment(render("batch")).keys() & set(names)
    every = "global.defaults.settings.compute_threads=4"
    assert environment(render("batch", every))["DUBSTAGE_COMPUTE_THREADS"] == "4"
    assert environment(render("batch", every, "gateway.settings.compute_threads=3"))["DUBSTAGE_COMPUTE_THREADS"] == "3"
    assert environment(render("batch", every, "gateway.enabled=false"))["DUBSTAGE_COMPUTE_THREADS"] == "4"


def test_workers_call_remote_stages() -> None:
    """Workers call the stages as the gateway does if values say so."""
    rendered = render("batch")
    own, gateway = environment(rendered), rendered.environment("gateway")
    calling = {f"DUBSTAGE_{stage.upper()}_ENDPOINT" for stage in STAGES}
    calling |= {name for name in gateway if name.startswith("DUBSTAGE_STAGES_")}
    assert calling <= own.keys()
    assert all(own[name] == gateway[name] for name in calling)
    assert rendered.jobs()[0]["spec"]["template"]["metadata"]["labels"]["dubstage.io/calls-stages"] == "true"
    volumes = {item["name"]: item for item in worker(rendered)["volumes"]}
    assert volumes["tls"]["secret"]["secretName"] == "dubstage-gateway-tls"
    alone = environment(render("batch", "batch.stages=own"))
    assert not calling & alone.keys()


@pytest.mark.parametrize("profile", [0, 1])
def test_every_variable_of_a_worker_is_a_setting(profile: int) -> None:
    told = {name.removeprefix(PREFIX).lower() for name in environment(render("batch"), profile) if name.startswith(PREFIX)}
    assert told <= GatewaySettings.model_fields.keys() | RenderSettings.model_fields.keys()


def test_gpu_only_in_gpu_profile() -> None:
    cpu, gpu = (worker(render("batch"), profile) for profile in (0, 1))
    assert gpu["containers"][0]["resources"]["limits"] == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}
    assert cpu["containers"][0]["resources"]["limits"] == {"cpu": "4", "memory": "8Gi"}
    assert gpu["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert gpu["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert (gpu["priorityClassName"], gpu["runtimeClassName"]) == ("batch", "nvidia")
    assert environment(render("batch"), 1)["DUBSTAGE_DEVICE"] == "cuda"
    spread = cpu["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]
    labels = render("batch").jobs()[0]["spec"]["template"]["metadata"]["labels"]
    assert spread.items() <= labels.items()


def test_shared_volume_pins_node() -> None:
    rendered = render("default", *ON)
    (claim,) = [item for item in worker(rendered)["volumes"] if item["name"] == "artefacts"]
    assert claim["persistentVolumeClaim"]["claimName"] == "dubstage-artefacts"
    (term,) = worker(rendered)["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    labels = rendered.jobs()[0]["spec"]["template"]["metadata"]["labels"]
    assert term["labelSelector"]["matchLabels"].items() <= labels.items()


def test_workers_are_shut_in() -> None:
    """Who submits may do what the engine does. Workers have no rights, take no calls, and call stages if values say so."""
    rendered = render("batch")
    (role,), (binding,) = rendered.of("Role"), rendered.of("RoleBinding")
    for rule in role["rules"]:
        assert rule.keys() <= {"apiGroups", "resources", "verbs", "resourceNames"}
        assert "*" not in rule["verbs"]
    assert [rule.get("resourceNames") for rule in role["rules"] if rule["resources"] == ["configmaps"]] == [["dubstage-batch"]]
    assert not rendered.of("ClusterRole")
    assert [subject["name"] for subject in binding["subjects"]] == ["dubstage-batch", "dubbing"]
    account = worker(rendered)["serviceAccountName"]
    assert account not in {subject["name"] for subject in binding["subjects"]}
    assert rendered.one("ServiceAccount", account)["automountServiceAccountToken"] is False
    assert worker(rendered)["automountServiceAccountToken"] is False
    policy = render("batch").one("NetworkPolicy", "dubstage-batch-worker")["spec"]
    assert policy["ingress"] == []
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert ports == {53, 443, 4317, 5432, *range(50051, 50056)}
    alone = render("default", *ON, "batch.stages=own").one("NetworkPolicy", "dubstage-batch-worker")["spec"]
    assert {port["port"] for rule in alone["egress"] for port in rule["ports"]} == {53, 5432}
    assert not render("default", *ON, "global.networkPolicy.enabled=false").of("NetworkPolicy")


def test_jobs_of_any_release() -> None:
    """Batches need no gateway, and Jobs of a release with another name are its own."""
    own = environment(render("default", *ON, "gateway.enabled=false"))
    assert own["DUBSTAGE_REQUIRE_CONSENT"] == "true"
    assert own["DUBSTAGE_DATABASE_URL"] == {"secretKeyRef": {"name": "database", "key": "url"}}
    found = render("batch", release="studio")
    document = json.loads(found.one("ConfigMap", "studio-dubstage-batch")["data"]["settings.json"])
    assert (document["instance"], document["service_account"]) == ("studio", "studio-dubstage-batch-worker")
    assert {item["metadata"]["namespace"] for item in found.jobs()} == {NAMESPACE}
