"""Logs, metrics and traces of a server process, each set up once."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog
from opentelemetry import trace
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.common.server.limits import Admission, WorkerPool

_LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
_COMPUTE_BUCKETS_S = (0.001, 0.0025, *_LATENCY_BUCKETS_S)
_CALLS = "calls"


def configure_logging(*, level: str, log_format: Literal["json", "console"], stage: str) -> None:
    """Send structlog and the standard library's loggers to stderr in one format. Every line names the stage."""

    def add_stage(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.setdefault("stage", stage)
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_stage,
    ]
    final: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if log_format == "json":
        final += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        final += [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                # The default formatter would log local variables, such as frames, features and tokens.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


@dataclass(frozen=True, slots=True)
class Tracing:
    """A tracer, and the function that sends its last spans when the process ends."""

    tracer: trace.Tracer
    shutdown: Callable[[], None]


def make_tracing(*, stage: str, otlp_endpoint: str) -> Tracing:
    """Return a tracer that sends spans to an OTLP/gRPC endpoint. Without an endpoint, spans cost nothing and only pass the trace
    on.

    `https://` in the endpoint asks for TLS. Any other endpoint is plain text.
    """
    if not otlp_endpoint:
        return Tracing(trace.NoOpTracerProvider().get_tracer("dubstage"), lambda: None)
    # The imports are slow: only a process with an endpoint needs them.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": f"dubstage-{stage}"}))
    exporter = OTLPSpanExporter(endpoint=otlp_endpoint, insecure=not otlp_endpoint.startswith("https://"))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider.get_tracer("dubstage"), provider.shutdown)


class Metrics:
    """Prometheus metrics of one server, in a registry of their own, so that several servers fit in one process."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        serving = Gauge("dubstage_serving", "1 from the end of the warm-up to the drain", ["stage"], registry=self.registry)
        # Bound to its label at once, so that the metric is 0 while the stage warms up.
        self.serving = serving.labels(stage)
        self.rpcs = Counter("dubstage_rpcs", "Calls that ended, by gRPC code", ["stage", "rpc", "code"], registry=self.registry)
        self.duration = Histogram(
            "dubstage_rpc_duration_seconds",
            "Time from the arrival of a call to its end, its wait in the queue included",
            ["stage", "rpc"],
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.in_flight = Gauge("dubstage_rpcs_in_flight", "Calls that run or wait", ["stage", "rpc"], registry=self.registry)
        self.frames = Counter("dubstage_frames", "Frames that were answered", ["stage", "rpc"], registry=self.registry)
        self.reasons = Counter(
            "dubstage_frame_reasons",
            "Faces in frames, by what speaks for or against replacing their mouth",
            ["stage", "reason"],
            registry=self.registry,
        )
        self.ended = Counter(
            "dubstage_calls_ended",
            "Calls that the stage ended because they were idle or took too much memory",
            ["stage", "reason"],
            registry=self.registry,
        )
        outlived = Counter(
            "dubstage_computations_outlived",
            "Computations that went on for 5 s and more after their call had ended",
            ["stage"],
            registry=self.registry,
        )
        self.outlived = outlived.labels(stage)

    def watch(self, admission: Admission, pools: Sequence[WorkerPool]) -> None:
        """Show the server's queues in metrics: of calls (`queue="calls"`) and of computations (each pool's name)."""
        wait = Histogram(
            "dubstage_queue_wait_seconds",
            "Time that calls waited for a slot, and computations for a thread",
            ["stage", "queue"],
            buckets=_COMPUTE_BUCKETS_S,
            registry=self.registry,
        )
        compute = Histogram(
            "dubstage_compute_seconds",
            "Time that computations ran in a thread",
            ["stage", "queue"],
            buckets=_COMPUTE_BUCKETS_S,
            registry=self.registry,
        )
        admission.on_admitted = wait.labels(self.stage, _CALLS).observe
        for pool in pools:
            pool.on_computed = _observer(wait.labels(self.stage, pool.name), compute.labels(self.stage, pool.name))
        self.registry.register(_Queues(self.stage, admission, tuple(pools)))


def queue_to_compute_ratio(admission: Admission, pools: Sequence[WorkerPool]) -> float:
    """Return the metric `dubstage_queue_to_compute_ratio`: the largest ratio among the stage's queues, over WINDOW_SECONDS (60 s).

    The ratio of a worker pool is the seconds that computations waited, for a thread or for their turn at Triton, per second that
    they were computed. The ratio
    of the calls is the seconds that calls waited for a slot per second that all pools together computed.

    Both are integrals over the window: three computations that wait for ten seconds are thirty seconds, served or not. The divisor
    is at least one second. The ratio is 0 while no work waits, and 1 where work waits as long as it is computed: a second replica
    would take about half of the work.
    """
    spent = [pool.load.lately() for pool in pools]
    calls = admission.load.lately()._replace(computed_s=sum(one.computed_s for one in spent))
    return max(one.ratio for one in (calls, *spent))


class _Queues(Collector):
    """Work that waits and runs at the moment of a scrape."""

    def __init__(self, stage: str, admission: Admission, pools: tuple[WorkerPool, ...]) -> None:
        self._stage = stage
        self._admission = admission
        self._pools = pools

    def collect(self) -> Iterator[Metric]:
        queued = GaugeMetricFamily("dubstage_queued", "Calls and computations that wait", labels=["stage", "queue"])
        running = GaugeMetricFamily("dubstage_running", "Calls and computations that run", labels=["stage", "queue"])
        for name, load in ((_CALLS, self._admission.load), *((pool.name, pool.load) for pool in self._pools)):
            queued.add_metric([self._stage, name], load.queued)
            running.add_metric([self._stage, name], load.running)
        ratio = GaugeMetricFamily(
            "dubstage_queue_to_compute_ratio",
            "Seconds that work waited for each second computed, in the queue where it waits longest, over the last minute",
            labels=["stage"],
        )
        ratio.add_metric([self._stage], queue_to_compute_ratio(self._admission, self._pools))
        yield from (queued, running, ratio)


def _observer(wait: Histogram, compute: Histogram) -> Callable[[float, float], None]:
    def observe(wait_s: float, compute_s: float) -> None:
        wait.observe(wait_s)
        compute.observe(compute_s)

    return observe
