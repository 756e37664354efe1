"""Tests of every rendering: names, labels, probes, security, an orderly end, and nothing that depends on chance."""

import json
import tomllib
from collections import Counter
from collections.abc import Iterator

import jsonschema
import kubernetes_validate
import pytest

from gateway.settings import GatewaySettings
from services.common.server.settings import DEFAULT_PORTS
from tests.charts.crds import SCHEMAS
from tests.charts.rendering import (
    CASES,
    CHART,
    COMPONENTS,
    ROOT,
    STAGES,
    Object,
    helm,
    label,
    pod_spec,
    render,
    template,
    text_of,
    values_of,
)
from tests.kubernetes_objects import RESTRICTED, schemas_read_once

KUBERNETES = ("1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
"""Supported versions. `make test` validates with the first and the last."""
every_case = pytest.mark.parametrize("case", CASES)
TWO_GATEWAYS = ("gateway.replicas=2", "gateway.media.accessMode=ReadWriteMany")


@pytest.mark.parametrize("case", ["default", "production-gpu", "keda", "everything", "folders"])
def test_helm_lint_has_nothing_to_say(case: str) -> None:
    assert helm("lint", "--strict", "--quiet", str(CHART), *values_of(case)).stdout == ""


def test_chart_is_whole_and_dated() -> None:
    """Dependencies lie in the chart, so that an install needs no network, and all have the version of the project."""
    lines = helm("dependency", "list", str(CHART)).stdout.splitlines()[1:]
    states = {line.split()[0]: line.split()[-1] for line in lines if line.strip()}
    assert states == dict.fromkeys(("library", *COMPONENTS), "unpacked")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    charts = [CHART, *(CHART / "charts" / name for name in ("library", *COMPONENTS))]
    for chart in charts:
        lines = (chart / "Chart.yaml").read_text().splitlines()
        assert f"version: {version}" in lines, chart
        assert chart.name == "library" or f"appVersion: {version}" in lines, chart


@pytest.fixture(scope="module")
def _schemas_read_once() -> Iterator[None]:
    with schemas_read_once():
        yield


@pytest.mark.usefixtures("_schemas_read_once")
@pytest.mark.parametrize(
    "version", [KUBERNETES[0], *(pytest.param(version, marks=pytest.mark.long) for version in KUBERNETES[1:-1]), KUBERNETES[-1]]
)
def test_objects_valid_for_every_kubernetes(version: str) -> None:
    unique = {json.dumps(item, sort_keys=True): item for case in CASES for item in render(case).objects}
    for item in unique.values():
        if item["kind"] not in SCHEMAS:
            kubernetes_validate.validate(item, version, strict=True)


@every_case
def test_objects_of_a_case(case: str) -> None:
    """The same values give the same bytes: valid objects of different names, all in the release's namespace."""
    assert template(case=case).stdout == text_of(case)
    rendered = render(case)
    assert max(Counter((item["kind"], item["metadata"]["name"]) for item in rendered.objects).values()) == 1
    assert {item["metadata"]["namespace"] for item in rendered.objects} == {"dubbing"}
    assert all(len(item["metadata"]["name"]) <= 63 for item in rendered.objects)
    for item in render(case).objects:
        if item["kind"] in SCHEMAS:
            jsonschema.validate(item, SCHEMAS[item["kind"]])


def test_odd_release_names() -> None:
    """Names stay within bounds for a long name of the release, and a name with dots has services without."""
    rendered = render("production", release="a-release-with-a-name-as-long-as-helm-allows-it-to-be")
    for item in rendered.objects:
        assert len(item["metadata"]["name"]) <= 63
        assert all(len(value) <= 63 for value in item["metadata"]["labels"].values())
    rendered = render("default", release="studio.night")
    assert all("." not in item["metadata"]["name"] for item in rendered.of("Service"))
    assert rendered.environment("gateway")["DUBSTAGE_AUDIO_ENDPOINT"] == "dns:///studio-night-dubstage-audio:50051"


def test_unknown_field_is_detected() -> None:
    """A field that Kubernetes does not know would be found."""
    deployment = render("default").deployment("audio")
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["grpc"]["tls"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="tls"):
        kubernetes_validate.validate(deployment, KUBERNETES[0], strict=True)


def _matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


@every_case
def test_selectors_match_own_component(case: str) -> None:
    rendered = render(case)
    pods = {label(pod, "component"): pod["metadata"]["labels"] for pod in rendered.pods()}
    for item in rendered.objects:
        spec = item.get("spec", {})
        selector = {
            "Deployment": lambda spec=spec: spec["selector"]["matchLabels"],
            "Service": lambda spec=spec: spec["selector"],
            "PodDisruptionBudget": lambda spec=spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec=spec: spec["podSelector"]["matchLabels"],
        }.get(item["kind"])
        if selector is not None:
            matched = [component for component, labels in pods.items() if _matches(selector(), labels)]
            assert matched == [label(item, "component")], item["metadata"]["name"]
    services = [item["metadata"]["labels"] for item in rendered.of("Service")]
    for monitor in rendered.of("ServiceMonitor"):
        found = [labels for labels in services if _matches(monitor["spec"]["selector"]["matchLabels"], labels)]
        assert found
        assert {labels["app.kubernetes.io/component"] for labels in found} == {label(monitor, "component")}


def test_upgrades_change_little() -> None:
    """Selectors outlive an upgrade of replicas, images and options, and other replicas change nothing but the number."""

    def selectors(*sets: str, case: str = "default") -> dict[str, Object]:
        return {label(item, "component"): item["spec"]["selector"] for item in render(case, *sets).of("Deployment")}

    before = selectors()
    assert selectors("global.defaults.replicas=5", "global.image.tag=9.9.9", "global.defaults.podLabels.team=a") == before
    assert selectors(case="production") == before
    assert selectors(case="gpu") == before
    few, many = (render("default", f"global.defaults.replicas={number}") for number in (2, 5))
    for before, after in zip(few.objects, many.objects, strict=True):
        if before["kind"] == "Deployment" and label(before, "component") != "gateway":
            assert (before["spec"].pop("replicas"), after["spec"].pop("replicas")) == (2, 5)
        assert before == after


@every_case
def test_rolling_update_strategies(case: str) -> None:
    """A stage rolls over without a replica less and the gateway one after the other."""
    rendered = render(case)
    for stage in STAGES:
        strategy = rendered.deployment(stage)["spec"]["strategy"]
        assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    gateway = rendered.deployment("gateway")["spec"]
    assert (gateway["strategy"], gateway["replicas"]) == ({"type": "Recreate"}, 1)


def test_several_gateways() -> None:
    """Several gateways roll over, spread over nodes, and take calls until the service has forgotten their pods."""
    shared = render("production", *TWO_GATEWAYS, "gateway.data.accessMode=ReadWriteMany")
    spec = shared.deployment("gateway")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (2, "RollingUpdate")
    for constraint in pod_spec(shared.deployment("gateway"))["topologySpreadConstraints"]:
        assert constraint["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
    assert "podAffinity" not in pod_spec(shared.deployment("gateway")).get("affinity", {})
    assert shared.environment("gateway")["DUBSTAGE_DATA_DIR"] == "/data/gateway"
    several = ("production", *TWO_GATEWAYS, "gateway.data.accessMode=ReadWriteMany")
    grace_s = pod_spec(render(*several).deployment("gateway"))["terminationGracePeriodSeconds"]
    assert render(*several).container("gateway")["lifecycle"] == {"preStop": {"exec": {"command": ["sleep", "5"]}}}
    longer = render(*several, "gateway.preStopSeconds=60")
    assert pod_spec(longer.deployment("gateway"))["terminationGracePeriodSeconds"] == grace_s + 55
    assert "lifecycle" not in render(*several, "gateway.preStopSeconds=0").container("gateway")
    assert not any("lifecycle" in render("production").container(component) for component in COMPONENTS)
    key = "gateway.signingKeySecret.name=signing"
    environment = render("production", *TWO_GATEWAYS, "gateway.data.type=emptyDir", key).environment("gateway")
    assert environment["DUBSTAGE_DATA_DIR"] == "/data/gateway/$(POD_NAME)"
    names = list(environment)
    assert names.index("POD_NAME") < names.index("DUBSTAGE_DATA_DIR")
    assert environment["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    folders = ("gateway.data.type=hostPath", "gateway.data.hostPath=/srv/dubstage")
    environment = render("production", *TWO_GATEWAYS, *folders, key).environment("gateway")
    # Gateways of one node share the node's folder.
    assert environment["DUBSTAGE_DATA_DIR"] == "/data/gateway/$(NODE_NAME)"
    names = list(environment)
    assert names.index("NODE_NAME") < names.index("DUBSTAGE_DATA_DIR")
    assert environment["NODE_NAME"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    environment = render("production", *TWO_GATEWAYS, *folders, "gateway.data.accessMode=ReadWriteMany").environment("gateway")
    assert environment["DUBSTAGE_DATA_DIR"] == "/data/gateway"


def test_a_stage_may_end_before_the_next_begins() -> None:
    assert render("gpu", "render.strategy.type=Recreate").deployment("render")["spec"]["strategy"] == {"type": "Recreate"}


@every_case
def test_pods_have_time_enough(case: str) -> None:
    """A pod has longer to end than its server drains, and longer to start than the gateway waits for its stages."""
    rendered = render(case)
    for component in COMPONENTS:
        grace_s = float(rendered.environment(component)["DUBSTAGE_DRAIN_GRACE_S"])
        assert pod_spec(rendered.deployment(component))["terminationGracePeriodSeconds"] >= grace_s + 10
    probe = rendered.container("gateway")["startupProbe"]
    default_s = GatewaySettings.model_fields["stages_start_s"].default
    waits_s = float(rendered.environment("gateway").get("DUBSTAGE_STAGES_START_S", default_s))
    assert probe["periodSeconds"] * probe["failureThreshold"] > waits_s + 20


@pytest.mark.parametrize(("case", "sets"), [*((case, ()) for case in CASES), ("default", ("gateway.tokensSecret.name=tokens",))])
def test_ports_probes_and_services_agree(case: str, sets: tuple[str, ...]) -> None:
    rendered = render(case, *sets)
    for component in COMPONENTS:
        environment, container = rendered.environment(component), rendered.container(component)
        port = DEFAULT_PORTS[component]
        assert environment["DUBSTAGE_PORT"] == str(port)
        ports = {item["name"]: item["containerPort"] for item in container["ports"]}
        assert ports["grpc"] == port
        assert str(ports["metrics"]) == environment["DUBSTAGE_METRICS_PORT"]
        probed = int(environment.get("DUBSTAGE_HEALTH_PORT", port))
        # The kubelet has neither a certificate nor a token.
        closed = {"DUBSTAGE_TLS_KEY_FILE", "DUBSTAGE_AUTH_TOKEN_FILE"} & environment.keys()
        assert (probed != port) == bool(closed)
        assert ports.get("health", port) == probed
        for kind in ("startup", "readiness", "liveness"):
            probe = container[f"{kind}Probe"]
            if "grpc" in probe:
                assert probe["grpc"] == {"port": probed, "service": "liveness" if kind == "liveness" else ""}
            else:
                command = probe["exec"]["command"]
                assert command[:3] == ["/opt/dubstage/bin/python", "-m", "services.common.server.health_check"]
                assert command[3:] == (["--service=liveness"] if kind == "liveness" else [])
        for service in rendered.of("Service"):
            if label(service, "component") == component:
                for item in service["spec"]["ports"]:
                    assert item["targetPort"] in {entry["name"] for entry in _all_ports(rendered.deployment(component))}


def _all_ports(deployment: Object) -> list[Object]:
    return [port for container in pod_spec(deployment)["containers"] for port in container["ports"]]


def test_probes_use_plain_port() -> None:
    """Native probes ask a port without TLS where the server has TLS."""
    environment = render("production").environment("audio")
    assert environment["DUBSTAGE_HEALTH_PORT"] not in (environment["DUBSTAGE_PORT"], environment["DUBSTAGE_METRICS_PORT"])
    assert "DUBSTAGE_HEALTH_PORT" not in render("default").environment("audio")


@every_case
def test_headless_service_and_endpoint(case: str) -> None:
    """A stage's service is headless and the gateway is told its name."""
    rendered = render(case)
    given = {"folders": "127.0.0.1"}.get(case)
    for stage in STAGES:
        mine = [item for item in rendered.of("Service") if label(item, "component") == stage]
        (service,) = [item for item in mine if "triton" not in item["metadata"]["name"]]
        assert service["spec"]["clusterIP"] == "None"
        endpoint = rendered.environment("gateway")[f"DUBSTAGE_{stage.upper()}_ENDPOINT"]
        port = DEFAULT_PORTS[stage]
        assert endpoint == (f"{given}:{port}" if given else f"dns:///{service['metadata']['name']}:{port}")


@every_case
def test_pods_keep_the_restricted_pod_security_standard(case: str) -> None:
    for pod in render(case).pods():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["securityContext"]["runAsUser"] == 65532
        assert not any(spec.get(name) for name in ("hostPID", "hostIPC"))
        assert bool(spec.get("hostNetwork")) == (case == "folders")
        if case not in ("folders", "everything"):
            assert not any("hostPath" in volume for volume in spec["volumes"])
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == RESTRICTED
            assert {"requests", "limits"} <= container["resources"].keys()
            assert any(mount["mountPath"] == "/tmp" for mount in container["volumeMounts"])


@every_case
def test_mounts_match_volumes(case: str) -> None:
    for pod in render(case).pods():
        containers = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
        mounted = {mount["name"] for container in containers for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in containers:
            paths = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert len(paths) == len(set(paths))


def test_pods_get_nothing_unasked() -> None:
    """Every component runs as an account that may do nothing, and services of the namespace put no variables into pods."""
    rendered = render("everything")
    accounts = {pod_spec(item)["serviceAccountName"] for item in rendered.of("Deployment")}
    assert accounts == {item["metadata"]["name"] for item in rendered.of("ServiceAccount")}
    assert len(accounts) == len(COMPONENTS)
    kinds = {item["kind"] for item in rendered.objects}
    assert not kinds & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
    # A Service called dubstage would set DUBSTAGE_PORT to tcp://….
    for pod in render("default").pods():
        assert pod["spec"]["enableServiceLinks"] is False


def test_default_install_needs_nothing_special() -> None:
    """An unchanged install has no init container and asks for nothing that a cluster may lack."""
    rendered = render("default")
    builtin = {"apps/v1", "v1", "policy/v1", "networking.k8s.io/v1"}
    assert {item["apiVersion"] for item in rendered.objects} == builtin
    for pod in rendered.pods():
        assert "initContainers" not in pod["spec"]
        assert not {"nodeSelector", "runtimeClassName", "priorityClassName"} & pod["spec"].keys()
        for container in pod["spec"]["containers"]:
            assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    for claim in rendered.of("PersistentVolumeClaim"):
        assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
        assert "storageClassName" not in claim["spec"]
        assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_images_are_built_or_named() -> None:
    """Images are those that `make images` builds, unless registry, tag or digest name others."""
    script = (ROOT / "charts/images/build.sh").read_text()
    names = next(line for line in script.splitlines() if line.startswith("images=")).partition(":-")[2].rstrip("}").split()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert sorted(names) == sorted((*COMPONENTS, "suite", "workstation", "triton"))
    rendered = render("default", "render.triton.enabled=true")
    for component in COMPONENTS:
        assert rendered.container(component)["image"] == f"dubstage/{component}:{version}"
    assert rendered.container("render", "triton")["image"] == f"dubstage/triton:{version}"
    database = "gateway.database.urlSecret.name=database"
    workers = render("default", "batch.enabled=true", "batch.stages=own", database)
    (of_batches,) = [one for one in workers.of("ConfigMap") if label(one, "component") == "batch"]
    settings = json.loads(of_batches["data"]["settings.json"])
    assert settings["image"] == f"dubstage/suite:{version}"
    rendered = render("everything")
    assert rendered.container("audio")["image"] == "registry.example.com/dubstage/audio:1.2.3"
    assert rendered.container("face")["image"].startswith("registry.example.com/dubstage/face@sha256:0123")
    assert pod_spec(rendered.deployment("audio"))["imagePullSecrets"] == [{"name": "pull"}]


def test_what_podman_plays_is_plain() -> None:
    rendered = render("folders")
    ports = Counter(port["containerPort"] for component in COMPONENTS for port in rendered.container(component)["ports"])
    assert max(ports.values()) == 1, "components on one network share no port"
    for deployment in rendered.of("Deployment"):
        spec = pod_spec(deployment)
        assert "initContainers" not in spec
        assert all(volume.keys() <= {"name", "hostPath", "emptyDir"} for volume in spec["volumes"])
        assert all("subPath" not in mount for container in spec["containers"] for mount in container["volumeMounts"])
    assert not rendered.of("PersistentVolumeClaim")
    assert not rendered.of("Pod")


def test_a_subset_of_the_stages_installs_alone() -> None:
    rendered = render("default", *(f"{name}.enabled=false" for name in COMPONENTS if name != "face"))
    assert {label(item, "component") for item in rendered.objects} == {"face", "artefacts"}
    assert not rendered.of("Pod")


def test_http_port_is_reached() -> None:
    """The HTTP port is a port of the gateway's container, Service and network policy, and of no other component."""
    port = 8080
    rendered = render("everything")
    assert rendered.environment("gateway")["DUBSTAGE_HTTP_PORT"] == str(port)
    with_http = {
        (item["kind"], label(item, "component"))
        for item in rendered.objects
        if item["kind"] in {"Deployment", "Service", "NetworkPolicy"} and f'ort": {port}' in json.dumps(item)
    }
    assert with_http == {(kind, "gateway") for kind in ("Deployment", "Service", "NetworkPolicy")}
    assert not any(f": {port}" in json.dumps(item) for item in render("default").objects)
