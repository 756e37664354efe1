"""A real gRPC server of all RPCs of the table, and of health, which keeps what comes and answers what a test wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2_grpc

from dubstage.client import rpcs
from dubstage.client.rpcs import Download, Rpc, Stream, Unary, Upload

Answer = Callable[[Any, grpc.ServicerContext], Any]


class FakeServer:
    """Answers each RPC with the messages of `answers`, or calls the function there: `answer(request or requests, context)`.

    An RPC without an answer gets an empty response: one of a unary call or an upload, one per request of a stream.
    """

    def __init__(self) -> None:
        self.answers: dict[Rpc[Any, Any], Sequence[Message] | Answer] = {}
        self.received: list[Any] = []
        self.metadata: dict[str, str] = {}
        self.seconds_left: float | None = None
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
        for service in {rpc.service for rpc in rpcs.ALL}:
            handlers = {rpc.method: self._handler(rpc) for rpc in rpcs.ALL if rpc.service == service}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def _handler(self, rpc: Rpc[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        codecs: dict[str, Any] = {
            "request_deserializer": rpc.request.FromString,
            "response_serializer": rpc.response.SerializeToString,
        }

        def single(given: Any, context: grpc.ServicerContext) -> Any:
            return next(many(given, context))

        def many(given: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            self.metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
            self.seconds_left = context.time_remaining()
            answer = self.answers.get(rpc)
            if callable(answer):
                yield from answer(given, context)
                return
            streamed = isinstance(rpc, Stream | Upload)
            self.received += list(given) if streamed else [given]
            yield from answer if answer is not None else [rpc.response()]

        makers: dict[type[Rpc[Any, Any]], Any] = {
            Unary: (grpc.unary_unary_rpc_method_handler, single),
            Upload: (grpc.stream_unary_rpc_method_handler, single),
            Download: (grpc.unary_stream_rpc_method_handler, many),
            Stream: (grpc.stream_stream_rpc_method_handler, many),
        }
        make, behaviour = makers[type(rpc)]
        handler: grpc.RpcMethodHandler[Any, Any] = make(behaviour, **codecs)
        return handler


def refuse(code: grpc.StatusCode, reason: str, *, field: str = "", retry_after_s: float = 0.0) -> Answer:
    """An answer that fails as the project's servers do: a google.rpc.Status with details."""

    def answer(given: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        status = status_pb2.Status(code=code.value[0], message=f"{reason} in words")
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, metadata={"stage": "toy"}))
        if field:
            violation = error_details_pb2.BadRequest.FieldViolation(field=field)
            status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        if retry_after_s:
            info = error_details_pb2.RetryInfo()
            info.retry_delay.FromMilliseconds(int(1000 * retry_after_s))
            status.details.add().Pack(info)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, status.message)
        yield

    return answer
