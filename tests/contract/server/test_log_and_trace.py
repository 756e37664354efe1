"""Log lines, call metrics and spans, on real servers."""

import asyncio
import time
import urllib.request
from typing import Any

import grpc.aio
import pytest
import structlog
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from structlog.testing import capture_logs

from services.common import errors
from services.common.server import call_context
from tests.contract.server.helpers import answer, eventually


async def test_each_call_leaves_one_line_and_its_metrics(echo: Any) -> None:
    bound: list[dict[str, Any]] = []

    async def count(message: bytes) -> bytes:
        bound.append(structlog.contextvars.get_contextvars())
        call_context.count_frames(25)
        call_context.set_model_version("ugc-1")
        if message == b"bad":
            raise errors.InvalidRequestError("bad", field="message")
        return message

    server = await echo.serve(count)
    client = echo.connect(server)
    metadata = ((call_context.JOB_ID_KEY, "job-7"), (call_context.SHOT_ID_KEY, "s" * 500))
    with capture_logs() as lines:
        await client.stage.channel.unary_unary(f"/{echo.service}/Unary")(b"good", metadata=metadata, timeout=60)
        with pytest.raises(errors.InvalidRequestError):
            await client.call("Stream", b"bad")
        await eventually(lambda: len(lines) == 2)
    assert [(line["event"], line["log_level"]) for line in lines] == [("rpc_finished", "info")] * 2
    assert bound[0] == {"stage": "echo", "rpc": f"{echo.service}/Unary", "job_id": "job-7", "shot_id": "s" * 128}
    good, bad = lines
    assert {key: good[key] for key in ("code", "frames", "model_version", "messages_received", "messages_sent")} == {
        "code": "OK", "frames": 25, "model_version": "ugc-1", "messages_received": 1, "messages_sent": 1,
    }  # fmt: skip
    assert (bad["code"], bad["reason"], bad["messages_sent"]) == ("INVALID_ARGUMENT", "INVALID_REQUEST", 1)

    def sample(name: str, rpc: str, **labels: str) -> Any:
        labels = {"stage": "echo", "rpc": f"{echo.service}/{rpc}", **labels}
        return server.metrics.registry.get_sample_value(name, labels)

    assert sample("dubstage_rpcs_total", "Unary", code="OK") == 1
    assert sample("dubstage_rpcs_total", "Stream", code="INVALID_ARGUMENT") == 1
    assert sample("dubstage_frames_total", "Unary") == 25
    assert sample("dubstage_rpcs_in_flight", "Stream") == 0
    assert sample("dubstage_rpc_duration_seconds_count", "Unary") == 1


async def test_nested_call_carries_context(echo: Any) -> None:
    """A call made by a handler carries job shot and what is left of the time."""
    seen: list[call_context.Call] = []

    async def inner(message: bytes) -> bytes:
        call = call_context.current_call()
        assert call is not None
        seen.append(call)
        return message

    inner_client = echo.connect(await echo.serve(inner))

    async def outer(message: bytes) -> bytes:
        await inner_client.call("Unary", message, timeout_s=600)
        return message

    client = echo.connect(await echo.serve(outer))
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    ids = ((call_context.JOB_ID_KEY, "job-7"), (call_context.SHOT_ID_KEY, "shot-3"))
    metadata = (*ids, ("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"))
    with capture_logs() as lines:
        await client.stage.channel.unary_unary(f"/{echo.service}/Unary")(b"x", metadata=metadata, timeout=60)
        await eventually(lambda: len(lines) == 2)
    assert [line["trace_id"] for line in lines] == [trace_id] * 2
    assert (seen[0].job_id, seen[0].shot_id) == ("job-7", "shot-3")
    # gRPC rounds a deadline up by some milliseconds on its way.
    assert (seen[0].deadline or 0) - time.monotonic() < 60.5


async def test_metrics_are_served_over_http(echo: Any, free_port: int) -> None:
    server = await echo.serve(answer, metrics_port=free_port)
    await echo.connect(server).call("Unary")

    def fetch() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/metrics", timeout=60) as response:
            return str(response.read().decode())

    assert "dubstage_rpcs_total{" in await asyncio.to_thread(fetch)


async def test_span_joins_callers_trace(echo: Any) -> None:
    """A span a call goes to the collector under the caller's trace."""
    received: list[Any] = []

    class Collector(trace_service_pb2_grpc.TraceServiceServicer):
        async def Export(self, request: Any, context: Any) -> Any:
            received.extend(span for one in request.resource_spans for s in one.scope_spans for span in s.spans)
            return trace_service_pb2.ExportTraceServiceResponse()

    collector = grpc.aio.server()
    add_collector: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add_collector(Collector(), collector)
    port = collector.add_insecure_port("127.0.0.1:0")
    await collector.start()

    async def fail(message: bytes) -> bytes:
        raise errors.ContractBrokenError("61 frames for 60") if message == b"bad" else errors.InvalidRequestError("no")

    server = await echo.serve(fail, otlp_endpoint=f"http://127.0.0.1:{port}")
    client = echo.connect(server)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    for message in (b"bad", b"wrong"):
        with pytest.raises(grpc.aio.AioRpcError):
            await client.stage.channel.unary_unary(f"/{echo.service}/Unary")(
                message, metadata=(("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"),), timeout=60
            )
    await server.drain(grace_s=1)
    assert [span.trace_id.hex() for span in received] == [trace_id] * 2
    assert [span.name for span in received] == [f"{echo.service}/Unary"] * 2
    # Status 2 is ERROR: what the caller did wrong is no error of the server's.
    assert [span.status.code for span in received] == [2, 0]
    await collector.stop(None)
