"""Network policies, read as a cluster reads them: who reaches whom, on which port, and nothing else."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.common.server.settings import DEFAULT_PORTS
from tests.charts.rendering import CHART, COMPONENTS, KEEP_ARTEFACTS, ROOT, STAGES, Object, Rendered, helm, label, render

Labels = dict[str, str]

NAMESPACE_OF_METRICS = {"kubernetes.io/metadata.name": "monitoring"}


class Pods:
    """The pods of a rendering, and strangers."""

    def __init__(self, rendered: Rendered) -> None:
        self.rendered = rendered
        self.labels: dict[str, Labels] = {label(pod, "component"): pod["metadata"]["labels"] for pod in rendered.pods()}
        self.labels["neighbour"] = {"app": "another"}

    def policies(self, pod: str) -> list[Object]:
        """Policies that select a pod."""
        return [
            policy["spec"]
            for policy in self.rendered.of("NetworkPolicy")
            if policy["spec"]["podSelector"]["matchLabels"].items() <= self.labels[pod].items()
        ]

    def _peer(self, peer: Object, other: Labels | None, namespace: Labels | None) -> bool:
        if "ipBlock" in peer or other is None:
            return False
        own_namespace = namespace is None
        if "namespaceSelector" in peer:
            wanted = peer["namespaceSelector"].get("matchLabels", {})
            if not wanted.items() <= (namespace or {"kubernetes.io/metadata.name": "dubbing"}).items():
                return False
        elif not own_namespace:
            return False
        return bool(peer.get("podSelector", {}).get("matchLabels", {}).items() <= other.items())

    def _rule(self, rule: Object, side: str, other: Labels | None, port: int, protocol: str, namespace: Labels | None) -> bool:
        ports = rule.get("ports")
        if ports is not None and not any(item["port"] == port and item["protocol"] == protocol for item in ports):
            return False
        peers = rule.get(side)
        return not peers or any(self._peer(peer, other, namespace) for peer in peers)

    def may_enter(self, pod: str, port: int, source: str | None, namespace: Labels | None = None) -> bool:
        """Whether a source (None: an address outside) gets in."""
        other = self.labels[source] if source is not None else None
        policies = [policy for policy in self.policies(pod) if "Ingress" in policy["policyTypes"]]
        rules = [rule for policy in policies for rule in policy.get("ingress", [])]
        return not policies or any(self._rule(rule, "from", other, port, "TCP", namespace) for rule in rules)

    def may_leave(self, pod: str, port: int, target: str | None, protocol: str = "TCP", namespace: Labels | None = None) -> bool:
        """Whether a pod gets out to a target (None: an address outside)."""
        other = self.labels[target] if target is not None else None
        policies = [policy for policy in self.policies(pod) if "Egress" in policy["policyTypes"]]
        rules = [rule for policy in policies for rule in policy.get("egress", [])]
        return not policies or any(self._rule(rule, "to", other, port, protocol, namespace) for rule in rules)

    def connect(self, source: str, target: str, port: int) -> bool:
        """Whether both sides let a connection through."""
        return self.may_leave(source, port, target) and self.may_enter(target, port, source)


@pytest.mark.parametrize("case", ["default", "production", "keda", "gpu", "everything"])
def test_the_gateway_alone_reaches_the_stages(case: str) -> None:
    pods = Pods(render(case))
    for stage in STAGES:
        callers = {name for name in pods.labels if name != stage and pods.connect(name, stage, DEFAULT_PORTS[stage])}
        # The pod of `helm test` lives for its seconds only.
        assert callers == {"gateway", "test"}
        assert not pods.may_enter(stage, DEFAULT_PORTS[stage], None)
        assert not pods.may_enter(stage, DEFAULT_PORTS[stage], "neighbour", {"kubernetes.io/metadata.name": "elsewhere"})


def test_stage_reaches_dns_only() -> None:
    """A stage reaches names and nothing else by default. Without policies, a neighbour would get in."""
    pods = Pods(render("default"))
    for stage in STAGES:
        assert pods.may_leave(stage, 53, None, "UDP")
        for port in (80, 443, 5432, 4317, *DEFAULT_PORTS.values()):
            for target in ("neighbour", "gateway", *STAGES, None):
                assert not pods.may_leave(stage, port, target)
    assert Pods(render("folders")).connect("neighbour", "audio", DEFAULT_PORTS["audio"])


def test_production_reaches_what_it_uses() -> None:
    """Components reach the object store, the database and the collector if they use these, and only who is named reads metrics."""
    pods = Pods(render("production"))
    assert {component for component in COMPONENTS if pods.may_leave(component, 443, None)} == KEEP_ARTEFACTS
    assert {component for component in COMPONENTS if pods.may_leave(component, 5432, None)} == {"gateway"}
    assert not Pods(render("default")).may_leave("gateway", 5432, None)
    for component in COMPONENTS:
        assert pods.may_leave(component, 4317, "neighbour", namespace=NAMESPACE_OF_METRICS)
        assert not pods.may_leave(component, 4317, None)
    for component in COMPONENTS:
        assert pods.may_enter(component, 9090, "neighbour", NAMESPACE_OF_METRICS)
        assert not pods.may_enter(component, 9090, "neighbour")
    assert not any(Pods(render("default")).may_enter(component, 9090, "neighbour") for component in COMPONENTS)


def test_kubernetes_api_egress() -> None:
    """The gateway alone reaches the API of Kubernetes, only if it sends batches, and at the address that values name."""
    folder = ("gateway.batchesOnKubernetes=true", "gateway.media.accessMode=ReadWriteMany")
    pods = Pods(render("default", "batch.enabled=true", "gateway.database.urlSecret.name=database", *folder))
    assert {name for name in pods.labels if name != "neighbour" and pods.may_leave(name, 6443, None)} == {"gateway"}
    assert not any(Pods(render("batch")).may_leave(name, 6443, None) for name in (*COMPONENTS, "batch-worker", "test"))
    policy = render("batch-gateway").one("NetworkPolicy", "dubstage-gateway")["spec"]
    (rule,) = [rule for rule in policy["egress"] if {"protocol": "TCP", "port": 6443} in rule["ports"]]
    assert rule == {"ports": [{"protocol": "TCP", "port": 6443}], "to": [{"ipBlock": {"cidr": "10.0.0.10/32"}}]}


def test_bucket_egress() -> None:
    """The gateway and its workers, and no stages, reach the bucket of media beside artefacts on a volume."""
    database = "gateway.database.urlSecret.name=database"
    sends = ("batch.enabled=true", "gateway.batchesOnKubernetes=true", "gateway.media.accessMode=ReadWriteMany", database)
    on_folder = ("default", *sends, "global.networkPolicy.kubernetesApi.ports={6443}")
    assert not any(Pods(render(*on_folder)).may_leave(name, 443, None) for name in ("gateway", "batch-worker"))
    media = Pods(render(*on_folder, "gateway.settings.media_url=s3://videos/day"))
    assert all(media.may_leave(name, 443, None) for name in ("gateway", "batch-worker"))
    pods = Pods(render("default", "gateway.settings.media_url=s3://videos/day"))
    assert pods.may_leave("gateway", 443, None)
    assert not any(pods.may_leave(stage, 443, None) for stage in STAGES)


def test_ingress_sources() -> None:
    """The gateway takes calls of its namespace, and any component those of the sources that values name."""
    port = DEFAULT_PORTS["gateway"]
    elsewhere: Any = {"kubernetes.io/metadata.name": "elsewhere"}
    assert Pods(render("default")).may_enter("gateway", port, "neighbour")
    assert not Pods(render("default")).may_enter("gateway", port, "neighbour", elsewhere)
    source = "gateway.networkPolicy.ingressFrom[0].namespaceSelector.matchLabels"
    named = render("default", f"{source}.kubernetes\\.io/metadata\\.name=elsewhere")
    assert Pods(named).may_enter("gateway", port, "neighbour", elsewhere)
    assert not Pods(named).may_enter("gateway", port, "neighbour")
    pods = Pods(render("default", "audio.networkPolicy.ingressFrom[0].podSelector.matchLabels.app=another"))
    assert pods.may_enter("audio", DEFAULT_PORTS["audio"], "neighbour")
    assert not pods.may_enter("face", DEFAULT_PORTS["face"], "neighbour")


def test_closed_pods() -> None:
    """Nobody reaches Triton from outside of its pod, and nobody calls the pod of `helm test`."""
    pods = Pods(render("production-gpu"))
    for port in (8000, 8001):
        assert not any(pods.may_enter("render", port, source) for source in pods.labels)
    assert pods.may_enter("render", 8002, "neighbour", NAMESPACE_OF_METRICS)
    pods = Pods(render("default"))
    assert not any(pods.may_enter("test", port, source) for port in (80, 50050) for source in pods.labels)


def test_guides_route_values_work(tmp_path: Path) -> None:
    """The values that the guide gives for routes let the proxies of the Gateway in, to the ports of gRPC and HTTP."""
    guide = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    (values,) = [block for block in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL) if "ingressFrom" in block]
    (tmp_path / "values.yaml").write_text(values, encoding="utf-8")
    objects = helm("template", "dubstage", str(CHART), "--namespace", "dubbing", "--values", str(tmp_path / "values.yaml")).stdout
    rendered = Rendered(tuple(item for item in yaml.safe_load_all(objects) if item))
    for kind, host in (("GRPCRoute", "dubstage.example.com"), ("HTTPRoute", "dubstage-http.example.com")):
        route = rendered.one(kind, "dubstage-gateway")["spec"]
        (backend,) = route["rules"][0]["backendRefs"]
        (service,) = [each for each in rendered.of("Service") if each["metadata"]["name"] == backend["name"]]
        assert route["hostnames"] == [host]
        assert backend["port"] in {each["port"] for each in service["spec"]["ports"]}
    pods, port = Pods(rendered), DEFAULT_PORTS["gateway"]
    assert pods.may_enter("gateway", port, "neighbour")
    assert pods.may_enter("gateway", port, "neighbour", {"kubernetes.io/metadata.name": "gateways"})
    assert not pods.may_enter("gateway", port, "neighbour", {"kubernetes.io/metadata.name": "elsewhere"})


INGRESS = (
    "gateway.httpPort=8080",
    "gateway.tokensSecret.name=tokens",
    "gateway.ingress.enabled=true",
    "gateway.ingress.host=dubs.example.com",
)


def test_ingress_leads_to_pages() -> None:
    """The Ingress sends its host to the port of pages and HTTP/JSON, over TLS with the controller's own certificate."""
    rendered = render("default", *INGRESS)
    spec = rendered.one("Ingress", "dubstage-gateway")["spec"]
    assert spec.keys() == {"tls", "rules"}
    assert spec["tls"] == [{"hosts": ["dubs.example.com"]}]
    (rule,) = spec["rules"]
    (path,) = rule["http"]["paths"]
    assert (rule["host"], path["path"], path["pathType"]) == ("dubs.example.com", "/", "Prefix")
    backend = path["backend"]["service"]
    (service,) = [each for each in rendered.of("Service") if each["metadata"]["name"] == backend["name"]]
    (port,) = [each for each in service["spec"]["ports"] if each["port"] == backend["port"]["number"]]
    assert port["name"] == "http"


def test_ingress_takes_class_and_certificate() -> None:
    (ingress,) = render("everything").of("Ingress")
    assert ingress["metadata"]["annotations"] == {"nginx.ingress.kubernetes.io/proxy-body-size": "0"}
    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert ingress["spec"]["tls"] == [{"hosts": ["dubstage-pages.example.com"], "secretName": "pages-tls"}]
    plain = render("default", *INGRESS, "gateway.ingress.tls.enabled=false")
    assert "tls" not in plain.one("Ingress", "dubstage-gateway")["spec"]
    assert not render("default").of("Ingress")
