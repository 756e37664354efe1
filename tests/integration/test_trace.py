"""One dub is one trace, from the call that asked for it through the gateway's operation to every stage."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import structlog
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from structlog.testing import capture_logs

from dubstage.client import gateway as gateway_client
from dubstage.gateway.v1 import gateway_pb2_grpc
from gateway.stages.interface import STAGE_NAMES
from tests.integration.client_calls import dubbing
from tests.integration.servers import LoopThread
from tests.integration.videos import OTHER

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.spans: list[Any] = []

    async def Export(self, request: Any, context: Any) -> Any:
        self.spans += [span for one in request.resource_spans for scope in one.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector(loop_thread: LoopThread) -> Iterator[tuple[Collector, str]]:
    servicer = Collector()

    async def start() -> tuple[Any, int]:
        server = grpc.aio.server()
        add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
        add(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = loop_thread.run(start())
    yield servicer, f"http://127.0.0.1:{port}"
    loop_thread.run(server.stop(None))


def test_one_dub_is_one_trace(collector, start_gateway, stop_gateway, stages) -> None:
    received, endpoint = collector
    running = start_gateway(otlp_endpoint=endpoint)
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        with running.connect() as connection:
            stub = gateway_pb2_grpc.DubServiceStub(connection.channel)
            metadata = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),)
            operation = stub.CreateDub(
                gateway_client.dub.request(**dubbing("traced.mp4", footage=OTHER)), timeout=300, metadata=metadata
            )
            gateway_client.Operation(connection, operation.name, gateway_client.DUB).wait(timeout_s=300)
        stop_gateway(running)
    of_dub = [line for line in lines if line["event"] == "rpc_finished" and line.get("job_id") == operation.name[11:]]
    assert {line["stage"] for line in of_dub} == set(STAGE_NAMES)
    assert {line.get("trace_id") for line in of_dub} == {TRACE}
    spans = {span.name: span for span in received.spans if span.trace_id.hex() == TRACE}
    assert "dubstage.gateway.v1.DubService/CreateDub" in spans
    assert spans["dub"].parent_span_id == spans["dubstage.gateway.v1.DubService/CreateDub"].span_id
