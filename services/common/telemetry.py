"""Logs, metrics and traces of a server process, each set up once."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import structlog
from opentelemetry import trace
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)


def configure_logging(*, level: str, log_format: Literal["json", "console"], stage: str) -> None:
    """Send structlog and the standard library's loggers to stderr in one format; every line names the stage."""

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
                # The default shows local variables: frames, features and tokens have no place in a log.
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
    """A tracer, and what sends its last spans off when the process ends."""

    tracer: trace.Tracer
    shutdown: Callable[[], None]


def make_tracing(*, stage: str, otlp_endpoint: str) -> Tracing:
    """Spans that go to an OTLP/gRPC endpoint, or, where that is empty, that cost nothing and only pass the trace on.

    `https://` in the endpoint asks for TLS; anything else is plain text.
    """
    if not otlp_endpoint:
        return Tracing(trace.NoOpTracerProvider().get_tracer("dubstage"), lambda: None)
    # Only a process that exports pays for the imports.
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
