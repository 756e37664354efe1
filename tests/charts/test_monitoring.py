"""Alerts, dashboard and autoscalers speak of metrics that the servers really have, in PromQL that parses."""

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest

from dubstage.client import rpcs
from gateway.live.admission import LiveAdmission, LiveMetrics
from services.common.server.limits import Admission
from services.common.server.telemetry import Metrics
from tests.charts.rendering import CHART, COMPONENTS, NAMESPACE, ROOT, STAGES, Object, label, render

METRIC = re.compile(r"\b(dubstage_\w+)")
ELSEWHERE = {
    "dubstage_operations": "gateway/api/server.py",
    "dubstage_stage_operations": "gateway/api/server.py",
    "dubstage_triton_heals_total": "services/render/backends/triton_healing.py",
}
"""Metrics that one server alone has, and the file that makes them."""
OF_PROMETHEUS = {"namespace", "service", "pod", "container", "job", "instance"}
"""Labels that every metric gets from the place where Prometheus finds it."""
LEVELS = re.compile(r"^\| [^|]+ \| `((?:[^`]|\\\|)+)` \|", re.MULTILINE)
"""A row of a table of service levels: its query."""


def known_metrics() -> set[str]:
    """Names that a server's registry exposes, as Prometheus sees them."""
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}
    names: set[str] = set()
    metrics = Metrics("audio")
    metrics.watch(Admission(max_active=1, max_queued=1), [])
    metrics.registry.register(LiveMetrics(LiveAdmission(max_streams=1)))
    for family in metrics.registry.collect():
        names |= {family.name + suffix for suffix in suffixes.get(family.type, [])}
    for name, file in ELSEWHERE.items():
        assert f'"{name.removesuffix("_total")}"' in (ROOT / file).read_text(encoding="utf-8"), file
        names.add(name)
    return names


def known_labels() -> dict[str, set[str]]:
    """Labels of every metric, as a server exposes the metric after its first call, and those that Prometheus adds."""
    metrics = Metrics("audio")
    metrics.watch(Admission(max_active=1, max_queued=1), [])
    rpc = ("audio", "/dubstage.audio.v1.AudioService/ExtractFeatures")
    metrics.rpcs.labels(*rpc, "OK").inc()
    metrics.duration.labels(*rpc).observe(1.0)
    metrics.in_flight.labels(*rpc).set(0)
    metrics.frames.labels(*rpc).inc()
    live = LiveAdmission(max_streams=1)
    live.refused["limit"] += 1
    metrics.registry.register(LiveMetrics(live))
    found: dict[str, set[str]] = {
        "dubstage_operations": set(),
        "dubstage_stage_operations": {"stage"},
        "dubstage_triton_heals_total": {"outcome"},
    }
    for family in metrics.registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return {name: labels | OF_PROMETHEUS for name, labels in found.items()}


def asked_labels(expression: Any, grouped: frozenset[str] = frozenset()) -> Iterator[tuple[str, set[str]]]:
    """Every metric of a query, with the labels by which the query selects or groups the metric."""
    if isinstance(expression, promql_parser.AggregateExpr):
        grouped = frozenset(expression.modifier.labels) if expression.modifier is not None else frozenset()
    if isinstance(expression, promql_parser.MatrixSelector):
        expression = expression.vector_selector
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression.name, {matcher.name for matcher in expression.matchers.matchers} | grouped
    for part in ("expr", "lhs", "rhs"):
        if hasattr(expression, part):
            yield from asked_labels(getattr(expression, part), grouped)
    for argument in getattr(expression, "args", []):
        yield from asked_labels(argument, grouped)


def conditions(query: str, metric: str) -> list[dict[str, tuple[str, str]]]:
    """Operator and value by label, for each selector of a metric in a query."""
    found = re.findall(rf"\b{metric}\{{([^}}]*)\}}", query)
    return [{name: (how, value) for name, how, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', text)} for text in found]


def rules(case: str = "everything") -> list[Object]:
    (rule,) = render(case).of("PrometheusRule")
    return [item for group in rule["spec"]["groups"] for item in group["rules"]]


def dashboard() -> dict[str, Any]:
    (config,) = [item for item in render("everything").of("ConfigMap") if label(item, "component") == "dashboard"]
    return dict(json.loads(config["data"]["dubstage.json"]))


def queries() -> Iterator[str]:
    yield from (rule["expr"] for case in ("everything", "production", "production-gpu") for rule in rules(case))
    yield from (target["expr"] for panel in dashboard()["panels"] for target in panel["targets"])
    for item in render("keda").of("ScaledObject"):
        yield from (trigger["metadata"]["query"] for trigger in item["spec"]["triggers"])
    yield from levels()


def levels() -> list[str]:
    """The queries of the service levels."""
    page = (ROOT / "docs" / "operations" / "observing.md").read_text(encoding="utf-8")
    return [query.replace("\\|", "|") for query in LEVELS.findall(page[page.index("## Service levels") :])]


def test_queries_name_existing_metrics() -> None:
    """Every query parses, and the metrics and labels that queries name exist."""
    for query in queries():
        promql_parser.parse(query)
    used = {name for query in queries() for name in METRIC.findall(re.sub(r'"[^"]*"', "", query))}
    used |= {item["spec"]["metrics"][0]["pods"]["metric"]["name"] for item in render("production").of("HorizontalPodAutoscaler")}
    assert used <= known_metrics()
    known = known_labels()
    asked = [one for query in queries() for one in asked_labels(promql_parser.parse(query))]
    assert {name for name, _ in asked if name.startswith("dubstage_")} >= {"dubstage_rpcs_total", "dubstage_serving"}
    wrong = [(name, labels - known[name]) for name, labels in asked if name in known and not labels <= known[name]]
    assert wrong == []
    assert len(levels()) == 4


def test_alerts_cover_documented_failures() -> None:
    """There is an alert for each way to fail and the documents explain it."""
    names = {rule["alert"] for rule in rules()}
    assert names == {f"Dubstage{name}" for name in ("Down", "QueueFull", "QueueGrows", "Errors", "Slow", "ModelHealed")}
    page = (ROOT / "docs" / "operations" / "observing.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in names)


def test_resting_or_stopped_is_not_down() -> None:
    def watched(case: str, *sets: str) -> set[str]:
        (rule,) = render(case, "global.monitoring.prometheusRule.enabled=true", *sets).of("PrometheusRule")
        return {item["labels"]["stage"] for item in rule["spec"]["groups"][0]["rules"] if item["alert"] == "DubstageDown"}

    assert watched("default") == set(COMPONENTS)
    assert watched("keda") == {"gateway"}
    assert watched("keda", "render.autoscaling.minReplicas=1") == {"gateway", "render"}
    assert watched("default", "gateway.replicas=0") == set(STAGES)


def test_alerts_and_monitors_see_this_release_only() -> None:
    for rule in rules():
        assert f'namespace="{NAMESPACE}"' in rule["expr"]
        assert "service=" in rule["expr"]


def test_a_refused_live_stream_is_no_full_queue() -> None:
    (alert,) = [rule["expr"] for rule in rules() if rule["alert"] == "DubstageQueueFull"]
    (level,) = [query for query in levels() if "RESOURCE_EXHAUSTED" in query]
    for query in (alert, level):
        for asked in conditions(query, "dubstage_rpcs_total"):
            how, pattern = asked["rpc"]
            assert how == "!~"
            assert re.fullmatch(pattern, rpcs.gateway.LIVE.path)
            assert not any(re.fullmatch(pattern, rpc.path) for rpc in rpcs.ALL if rpc is not rpcs.gateway.LIVE)


def test_panels_count_what_they_say() -> None:
    """A reloaded model counts, a failed attempt does not, and operations that wait for any gateway are not added up."""
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    alerts = [rule["expr"] for rule in rules()]
    asked = [one for query in (*panels, *alerts) for one in conditions(query, "dubstage_triton_heals_total")]
    assert [one["outcome"] for one in asked] == [("=", "healed")] * 2
    (query,) = [query for query in panels if "dubstage_operations" in query]
    expression = promql_parser.parse(query)
    assert isinstance(expression, promql_parser.AggregateExpr)
    assert expression.modifier.labels == ["pod"]


def test_metrics_are_scraped_once() -> None:
    """Each service is scraped once, also a stage with one address, and a public service has no metrics."""
    rendered = render("production-gpu")
    monitors = rendered.of("ServiceMonitor")
    assert {label(item, "component") for item in monitors} == set(COMPONENTS)
    for service in rendered.of("Service"):
        scraped = [
            endpoint["port"]
            for monitor in monitors
            if monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
            for endpoint in monitor["spec"]["endpoints"]
            if endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        ]
        has_metrics = [port["name"] for port in service["spec"]["ports"] if "metrics" in port["name"]]
        assert scraped == has_metrics
    rendered = render("production", "audio.service.type=ClusterIP")
    service = rendered.one("Service", "dubstage-audio")
    (monitor,) = [item for item in rendered.of("ServiceMonitor") if label(item, "component") == "audio"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [port["name"] for port in service["spec"]["ports"]] == ["grpc", "metrics"]
    assert service["spec"]["type"] == "ClusterIP"
    (service,) = [item for item in render("everything").of("Service") if item["spec"].get("type") == "LoadBalancer"]
    assert [port["name"] for port in service["spec"]["ports"]] == ["grpc", "http"]


@pytest.mark.parametrize("panel", dashboard()["panels"], ids=lambda panel: str(panel["title"]))
def test_a_panel_asks_for_the_chosen_release(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert 'namespace="$namespace"' in target["expr"]


def test_panels_of_the_dashboard() -> None:
    """Every metric of live streams is on the board, and panels do not overlap."""
    shown = {name for panel in dashboard()["panels"] for target in panel["targets"] for name in METRIC.findall(target["expr"])}
    assert {name for name in known_labels() if name.startswith("dubstage_live_") and not name.endswith("_created")} <= shown
    cells = [
        (x, y)
        for panel in json.loads((CHART / "files" / "dashboard.json").read_text())["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)
