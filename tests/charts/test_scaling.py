"""Replicas: by hand, by a HorizontalPodAutoscaler, by KEDA; disruptions, GPUs and where pods may run."""

import re

import promql_parser
import pytest

from dubstage.gateway.v1 import gateway_pb2
from tests.charts.rendering import CASES, COMPONENTS, KEEP_ARTEFACTS, STAGES, Object, pod_spec, render

QUEUE = "dubstage_queue_to_compute_ratio"
SEVERAL = (
    "gateway.autoscaling.maxReplicas=3",
    "gateway.database.url=postgresql+psycopg://dubstage@db/dubstage",
    "global.artefacts.volume.accessMode=ReadWriteMany",
    "gateway.data.accessMode=ReadWriteMany",
    "gateway.media.accessMode=ReadWriteMany",
)


def test_replicas_are_written_only_where_nothing_scales_them() -> None:
    for case, scaled in (("default", False), ("production", True), ("keda", True)):
        for stage in STAGES:
            assert ("replicas" in render(case).deployment(stage)["spec"]) != scaled
        assert render(case).deployment("gateway")["spec"]["replicas"] == 1


def test_every_stage_scales_on_its_own_queue() -> None:
    rendered = render("production")
    scaled = {item["spec"]["scaleTargetRef"]["name"] for item in rendered.of("HorizontalPodAutoscaler")}
    assert scaled == {f"dubstage-{stage}" for stage in STAGES}
    for item in rendered.of("HorizontalPodAutoscaler"):
        (metric,) = item["spec"]["metrics"]
        assert metric["type"] == "Pods"
        assert metric["pods"]["metric"] == {"name": QUEUE}
        assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "0.5"}
        assert item["spec"]["minReplicas"] == 2


def test_keda_scales_to_zero() -> None:
    """KEDA goes to zero, and wakes a stage for the work of a gateway that need not be ready."""
    rendered = render("keda")
    assert not rendered.of("HorizontalPodAutoscaler")
    for stage in STAGES:
        spec = rendered.one("ScaledObject", f"dubstage-{stage}")["spec"]
        assert spec["minReplicaCount"] == 0
        queue, work = (trigger["metadata"]["query"] for trigger in spec["triggers"])
        assert f'{QUEUE}{{namespace="dubbing",service="dubstage-{stage}"}}' in queue
        assert f'dubstage_stage_operations{{namespace="dubbing",service="dubstage-gateway-metrics",stage="{stage}"}}' in work
        # Lists, uploads and watches start no stage.
        rpc = "EstimateDub" if stage == "face" else "Live"
        assert f'dubstage_rpcs_in_flight{{namespace="dubbing",service="dubstage-gateway-metrics",rpc=~".+/{rpc}"}}' in work
        assert rpc in {method.name for method in gateway_pb2.DESCRIPTOR.services_by_name["DubService"].methods}
        for query in (queue, work):
            promql_parser.parse(query)
            # Without a pod there is no series: the query must be 0 then, not empty.
            assert query.endswith("or vector(0)")
    service = render("keda").one("Service", "dubstage-gateway-metrics")
    assert service["spec"]["publishNotReadyAddresses"] is True


def test_gateways_scale_on_their_places() -> None:
    """Gateways have an autoscaler of their own metric, or KEDA, which never goes below one gateway."""
    rendered = render("default", *SEVERAL, "gateway.autoscaling.type=hpa")
    (scaler,) = rendered.of("HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] == "dubstage-gateway"
    (metric,) = scaler["spec"]["metrics"]
    assert metric["pods"]["metric"] == {"name": "dubstage_gateway_load"}
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "0.8"}
    deployment = rendered.deployment("gateway")
    assert "replicas" not in deployment["spec"]
    assert deployment["spec"]["strategy"]["type"] == "RollingUpdate"
    assert "preStop" in rendered.container("gateway")["lifecycle"]
    address = "global.defaults.autoscaling.keda.prometheusAddress=http://prometheus:9090"
    spec = render("default", *SEVERAL, "gateway.autoscaling.type=keda", address).one("ScaledObject", "dubstage-gateway")["spec"]
    (trigger,) = spec["triggers"]
    assert trigger["metadata"]["threshold"] == "0.8"
    promql_parser.parse(trigger["metadata"]["query"])
    assert 'dubstage_gateway_load{namespace="dubbing",service="dubstage-gateway-metrics"}' in trigger["metadata"]["query"]
    assert spec["minReplicaCount"] == 1


@pytest.mark.parametrize("case", [case for case in CASES if case != "folders"])
def test_disruption_budget_never_blocks(case: str) -> None:
    """A drain takes one pod at a time and never waits for ever."""
    budgets = render(case).of("PodDisruptionBudget")
    assert len(budgets) == len(COMPONENTS)
    for budget in budgets:
        assert budget["spec"]["maxUnavailable"] == 1
        assert "minAvailable" not in budget["spec"]


@pytest.mark.parametrize(
    ("case", "resource"),
    [("gpu", "nvidia.com/gpu"), ("gpu-mig", "nvidia.com/mig-1g.10gb"), ("gpu-shared", "nvidia.com/gpu.shared")],
)
def test_a_gpu_is_asked_for_by_its_name(case: str, resource: str) -> None:
    rendered = render(case)
    triton = rendered.container("render", "triton")["resources"]
    for kind in ("requests", "limits"):
        assert {name: count for name, count in triton[kind].items() if "/" in name} == {resource: "1"}
    assert not any("/" in name for name in rendered.container("render")["resources"]["limits"])
    assert pod_spec(rendered.deployment("render"))["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_resources_of_one_stage() -> None:
    """Any stage may have a GPU of its own, and a null takes a limit away."""
    assert render("everything").container("face")["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == "1"
    assert pod_spec(render("everything").deployment("face"))["runtimeClassName"] == "nvidia"
    assert render("default", "audio.resources.limits.cpu=null").container("audio")["resources"]["limits"].keys() == {"memory"}


def test_component_value_wins_over_default() -> None:
    """A value of a component wins over the defaults even where it is false or nothing."""
    without = ("audio.priorityClassName=", "face.podDisruptionBudget.enabled=false")
    rendered = render("default", "global.defaults.priorityClassName=media", *without)
    assert "priorityClassName" not in pod_spec(rendered.deployment("audio"))
    assert pod_spec(rendered.deployment("face"))["priorityClassName"] == "media"
    assert "dubstage-face" not in {item["metadata"]["name"] for item in rendered.of("PodDisruptionBudget")}


def _kept_together(pod: Object) -> bool:
    terms = pod.get("affinity", {}).get("podAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", [])
    return any(term["topologyKey"] == "kubernetes.io/hostname" for term in terms)


def test_node_volume_groups_pods() -> None:
    """A volume of one node keeps the pods that mount it together, and the first of them finds a place."""

    def together(*sets: str, case: str = "default") -> set[str]:
        rendered = render(case, *sets)
        return {component for component in COMPONENTS if _kept_together(pod_spec(rendered.deployment(component)))}

    assert together() == KEEP_ARTEFACTS
    assert together("global.artefacts.volume.accessMode=ReadWriteMany") == set()
    assert together(case="production") == set()
    # Else the gateway would be bound to a node whose taint it does not bear.
    assert together(case="gpu") == set()
    for component in ("motion", "texture", "render", "gateway"):
        template = render("default").deployment(component)["spec"]["template"]
        (term,) = template["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_triton_ends_after_stage() -> None:
    rendered = render("gpu")
    container = rendered.container("render", "triton")
    script = container["lifecycle"]["preStop"]["exec"]["command"][-1]
    waited = int(re.search(r"seq (\d+)", script)[1])  # type: ignore[index]
    grace_s = float(rendered.environment("render")["DUBSTAGE_DRAIN_GRACE_S"])
    assert grace_s < waited < pod_spec(rendered.deployment("render"))["terminationGracePeriodSeconds"]
    assert f":{50055:04X} " in script
