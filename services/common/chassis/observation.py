"""Report of each call: log context and one log line, a trace span, and metrics."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog
from opentelemetry import propagate, trace

from services.common.chassis import calls, error_status
from services.common.chassis.telemetry import Metrics
from services.common.errors import DubstageError

_CALLERS_CODES = frozenset(
    {"OK", "CANCELLED", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNAUTHENTICATED", "OUT_OF_RANGE"}
)
_LOADS_CODES = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"})

_log = structlog.stdlib.get_logger("dubstage.rpc")


class Outcome:
    """How a call ended: the name of its gRPC status code, and the error where there was one."""

    def __init__(self) -> None:
        self.code = "OK"
        self.error: DubstageError | None = None

    def fail(self, error: DubstageError) -> None:
        """Note that the call ended with an error."""
        self.code = error.code
        self.error = error


class Observer:
    """Reports the calls of one server.

    Args:
        stage: name in metrics.
        metrics: where calls are counted.
        tracer: makes the span of each call.
    """

    def __init__(self, stage: str, metrics: Metrics, tracer: trace.Tracer) -> None:
        self._stage = stage
        self._metrics = metrics
        self._tracer = tracer

    @asynccontextmanager
    async def observed(self, call: calls.Call, metadata: Mapping[str, str]) -> AsyncIterator[Outcome]:
        """Make the call the current one, and report the call when the block ends.

        Args:
            call: the call.
            metadata: text entries of the call's metadata, which may carry the caller's trace.
        """
        outcome = Outcome()
        labels = (self._stage, call.rpc)
        calls.set_current_call(call)
        fields = {"job_id": call.job_id, "shot_id": call.shot_id, "stage": call.stage, "rpc": call.rpc}
        in_flight = self._metrics.in_flight.labels(*labels)
        begin = time.perf_counter()
        in_flight.inc()
        with (
            structlog.contextvars.bound_contextvars(**{key: value for key, value in fields.items() if value}),
            self._tracer.start_as_current_span(
                call.rpc,
                context=propagate.extract(metadata),
                kind=trace.SpanKind.SERVER,
                attributes={"rpc.system": "grpc", "rpc.method": call.rpc, "dubstage.job_id": call.job_id},
                # The status is set below: an error of the caller is no error of this server.
                record_exception=False,
                set_status_on_exception=False,
            ) as span,
        ):
            try:
                yield outcome
            finally:
                call.finish()
                duration_s = time.perf_counter() - begin
                in_flight.dec()
                self._metrics.rpcs.labels(*labels, outcome.code).inc()
                self._metrics.duration.labels(*labels).observe(duration_s)
                if call.frames:
                    self._metrics.frames.labels(*labels).inc(call.frames)
                for reason, count in call.reasons.items():
                    self._metrics.reasons.labels(self._stage, reason).inc(count)
                span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[outcome.code].value[0])
                if outcome.code not in _CALLERS_CODES:
                    span.set_status(trace.StatusCode.ERROR, outcome.code)
                _log_line(call, outcome, duration_s, span.get_span_context())


def _log_line(call: calls.Call, outcome: Outcome, duration_s: float, span: trace.SpanContext) -> None:
    fields: dict[str, Any] = {
        "code": outcome.code,
        "frames": call.frames,
        "duration_ms": round(duration_s * 1000, 1),
        "messages_received": call.messages_received,
        "messages_sent": call.messages_sent,
    }
    if span.is_valid:
        fields["trace_id"] = trace.format_trace_id(span.trace_id)
    if call.model_version:
        fields["model_version"] = call.model_version
    if outcome.error is not None:
        fields |= error_status.log_fields(outcome.error)
    level = "info" if outcome.code in _CALLERS_CODES else "warning" if outcome.code in _LOADS_CODES else "error"
    getattr(_log, level)("rpc_finished", **fields)
