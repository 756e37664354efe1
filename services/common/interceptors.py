"""The one server interceptor: what every call of every stage goes through before and after its handler.

From outside in: log context, trace span and metrics; error mapping; bearer token; deadline; admission; the message's size and
bounds; the handler. Health checks go past all but the last, reflection past admission.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from typing import Any, TypeAlias

import grpc
import grpc.aio
import structlog
from grpc_status import rpc_status
from opentelemetry import propagate, trace

from services.common import calls, error_status
from services.common.auth import AUTHORIZATION_KEY, TokenCheck
from services.common.errors import DubstageError, StageDeadlineExceeded
from services.common.limits import Admission
from services.common.telemetry import Metrics
from services.common.watchdog import Watchdog
from services.common.wire import Received, decoder, encoder

_HEALTH = "/grpc.health."
_REFLECTION = "/grpc.reflection."
_MAX_IDENTIFIER_CHARACTERS = 128
# How long a failed call's further requests are read: altogether, and each.
_HEARING_S = 1.0
_NEXT_REQUEST_S = 0.1
# How long a status may take to leave: a caller that reads nothing holds it up behind what was written before.
_STATUS_S = 5.0

_CALLERS_CODES = frozenset(
    {"OK", "CANCELLED", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNAUTHENTICATED", "OUT_OF_RANGE"}
)
_LOADS_CODES = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"})

# In quotes: generic in the type stubs only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_log = structlog.stdlib.get_logger("dubstage.rpc")


class ChassisInterceptor(grpc.aio.ServerInterceptor):
    """Error mapping, log line, metrics, trace, token, deadline and back-pressure for all four kinds of handlers.

    Args:
        stage: name for logs, metrics and ErrorInfo.
        admission: how many calls run and wait.
        tokens: which bearer tokens are accepted.
        metrics: where calls are counted.
        tracer: makes the span of each call.
        default_deadline_s: time allowed to a call that names none, so that nothing hangs for ever.
        max_deadline_s: time allowed to any call.
        max_call_memory_bytes: memory that one call may keep until its end.
        max_message_bytes: size of the largest message in or out.
        watchdog: ends calls that are idle or take too much memory.
    """

    def __init__(
        self,
        *,
        stage: str,
        admission: Admission,
        tokens: TokenCheck,
        metrics: Metrics,
        tracer: trace.Tracer,
        default_deadline_s: float,
        max_deadline_s: float,
        max_call_memory_bytes: int,
        max_message_bytes: int,
        watchdog: Watchdog,
    ) -> None:
        self._stage = stage
        self._admission = admission
        self._tokens = tokens
        self._metrics = metrics
        self._tracer = tracer
        self._default_deadline_s = default_deadline_s
        self._max_deadline_s = max_deadline_s
        self._max_call_memory_bytes = max_call_memory_bytes
        self._max_message_bytes = max_message_bytes
        self._watchdog = watchdog

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap the handler of a call, whichever of the four kinds it is."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None:
            return None
        encode = encoder(handler.response_serializer, self._max_message_bytes)
        codec = (decoder(handler.request_deserializer, self._max_message_bytes), encode)
        if method.startswith(_HEALTH):
            # None of its requests stream.
            if handler.response_streaming:
                return grpc.unary_stream_rpc_method_handler(self._passed(handler.unary_stream), *codec)
            return grpc.unary_unary_rpc_method_handler(self._passed(handler.unary_unary), *codec)
        match handler.request_streaming, handler.response_streaming:
            case False, False:
                return grpc.unary_unary_rpc_method_handler(self._unary(handler.unary_unary, method, encode), *codec)
            case True, False:
                return grpc.stream_unary_rpc_method_handler(self._unary(handler.stream_unary, method, encode), *codec)
            case False, True:
                return grpc.unary_stream_rpc_method_handler(self._streaming(handler.unary_stream, method, encode), *codec)
            case _:
                return grpc.stream_stream_rpc_method_handler(self._streaming(handler.stream_stream, method, encode), *codec)

    def _passed(self, behaviour: Any) -> Any:
        async def answer(request: Received, context: Context) -> Any:
            if request.error is not None:
                await context.abort_with_status(self._status(request.error))
            return await behaviour(request.message, context)

        return answer

    def _unary(self, behaviour: Any, method: str, encode: Callable[[Any], bytes]) -> Any:
        async def answer(request: Any, context: Context) -> Any:
            async with self._call(method, context, requests_stream=hasattr(request, "__aiter__")) as call:
                response = await behaviour(_checked(request, call), context)
                # Here, where an answer that is too large is an error like any other.
                data = encode(response)
                _count_sent(response, call)
                return data

        return answer

    def _streaming(self, behaviour: Any, method: str, encode: Callable[[Any], bytes]) -> Any:
        # A coroutine that writes, not a generator: a cancelled call then ends inside of it, never in a generator that
        # nobody goes on with, and its place is free at once.
        async def answer(request: Any, context: Context) -> None:
            async with self._call(method, context, requests_stream=hasattr(request, "__aiter__")) as call:
                responses = behaviour(_checked(request, call), context)
                if not hasattr(responses, "__aiter__"):
                    await responses
                    return
                async with aclosing(responses):
                    async for response in responses:
                        data = encode(response)
                        with call.offered():
                            await context.write(data)
                        _count_sent(response, call)

        return answer

    @asynccontextmanager
    async def _call(self, method: str, context: Context, *, requests_stream: bool) -> AsyncIterator[calls.Call]:
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        allowed_s = self._allowed_s(context)
        call = calls.Call(
            stage=self._stage,
            rpc=method.removeprefix("/"),
            job_id=_identifier(metadata, calls.JOB_ID_KEY),
            shot_id=_identifier(metadata, calls.SHOT_ID_KEY),
            deadline=time.monotonic() + allowed_s,
            max_memory_bytes=self._max_call_memory_bytes,
        )
        async with self._observed(call, metadata) as outcome:
            try:
                self._tokens.check(metadata.get(AUTHORIZATION_KEY, ""))
                try:
                    async with asyncio.timeout(allowed_s) as timer:
                        slot = nullcontext() if method.startswith(_REFLECTION) else self._admission.slot()
                        async with slot:
                            with self._watchdog.watching(call):
                                yield call
                except TimeoutError:
                    if not timer.expired():
                        raise
                    raise StageDeadlineExceeded(f"{call.rpc} did not end in the {allowed_s:.3g} s allowed to it") from None
            except grpc.aio.AbortError:
                outcome.code = _code_name(context)
                raise
            except asyncio.CancelledError:
                if call.failure is not None:
                    # By the watchdog. A read that was waiting cannot be followed by another.
                    outcome.fail(call.failure)
                    _uncancel()
                    await self._send(context, call.failure)
                # By the caller, by the caller's deadline, or by the server's shutdown: gRPC itself answers.
                remaining = context.time_remaining()
                outcome.code = "DEADLINE_EXCEEDED" if remaining is not None and remaining <= 0 else "CANCELLED"
                raise
            except Exception as error:
                if unimplemented := isinstance(error, NotImplementedError) and context.code() is grpc.StatusCode.UNIMPLEMENTED:
                    # The generated base of an RPC that the stage does not have.
                    outcome.code = "UNIMPLEMENTED"
                else:
                    outcome.fail(call.failure or error_status.domain_error(error))
                await _hear_out(context, streaming=requests_stream)
                if unimplemented:
                    await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the {self._stage} stage has no {call.rpc}")
                assert outcome.error is not None
                await self._send(context, outcome.error)

    async def _send(self, context: Context, error: DubstageError) -> None:
        """End the call with an error; raises grpc.aio.AbortError."""
        async with asyncio.timeout(_STATUS_S):
            await context.abort_with_status(self._status(error))

    def _status(self, error: DubstageError) -> grpc.Status:
        return rpc_status.to_status(error_status.to_status(error, stage=self._stage))

    def _allowed_s(self, context: Context) -> float:
        asked_s: float | None = context.time_remaining()
        return min(self._default_deadline_s if asked_s is None else asked_s, self._max_deadline_s)

    @asynccontextmanager
    async def _observed(self, call: calls.Call, metadata: Mapping[str, str]) -> AsyncIterator[_Outcome]:
        outcome = _Outcome()
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
                # Statuses are set below: an error of the caller's is not one of this server.
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


class _Outcome:
    """How a call ended."""

    def __init__(self) -> None:
        self.code = "OK"
        self.error: DubstageError | None = None

    def fail(self, error: DubstageError) -> None:
        self.code = error.code
        self.error = error


def _log_line(call: calls.Call, outcome: _Outcome, duration_s: float, span: trace.SpanContext) -> None:
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


def _checked(request: Any, call: calls.Call) -> Any:
    """The request of a handler, or the iterator of its requests: decoded, counted, and held to their bounds."""
    if isinstance(request, Received):
        call.messages_received += 1
        return request.checked()

    async def messages() -> AsyncIterator[Any]:
        source = aiter(request)
        while True:
            with call.awaited():
                received = await anext(source, None)
            if received is None:
                return
            call.messages_received += 1
            yield received.checked()

    return messages()


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


async def _hear_out(context: Context, *, streaming: bool) -> None:
    """Read what the caller of a failed call is still sending, so that the error reaches it.

    A caller on grpc.aio whose write meets the end of the call sees INTERNAL in place of the status that was sent to it
    (https://github.com/grpc/grpc/issues/36066). One that sends no more is not waited for, one that never ends is cut off.
    """
    if not streaming:
        return
    end = time.monotonic() + _HEARING_S
    with suppress(TimeoutError):
        while time.monotonic() < end:
            async with asyncio.timeout(_NEXT_REQUEST_S):
                if await context.read() is grpc.aio.EOF:
                    return


def _count_sent(response: Any, call: calls.Call) -> None:
    call.messages_sent += 1
    if hasattr(response, "frame_index"):
        call.frames += 1


def _identifier(metadata: Mapping[str, str], key: str) -> str:
    # It goes into every log line of the call: gRPC sees to it that it is printable, this that it is short.
    return metadata.get(key, "")[:_MAX_IDENTIFIER_CHARACTERS]


def _code_name(context: Context) -> str:
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    return next((known.name for known in grpc.StatusCode if known.value[0] == code), "UNKNOWN")
