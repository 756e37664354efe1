"""The one server interceptor. Every call of every stage passes through it before and after the call's handler.

From outside in: log context, trace span and metrics; error mapping; bearer token; deadline; admission; the message's size and
bounds; the handler. All before the message is decided by the headers of the call, before gRPC reads a message from the caller.
Health checks have rules of their own (`services.common.server.health`). Reflection has few slots of its own.

For each call the interceptor reports a log context, one log line, a trace span, and metrics.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import structlog
from grpc_status import rpc_status
from opentelemetry import propagate, trace

from services.common.errors import DubstageError, StageDeadlineExceededError
from services.common.server import call_context, error_status
from services.common.server.auth import AUTHORIZATION_KEY, TokenCheck
from services.common.server.call_context import TENANT_KEY, Caller, named_by, set_current_caller
from services.common.server.call_messages import RequestStream, decoder, encoder
from services.common.server.health import HEALTH, Context, Handler, HealthInterceptor
from services.common.server.limits import Admission, FirstMessages
from services.common.server.telemetry import Metrics
from services.common.server.watchdog import Watchdog

_CALLERS_CODES = frozenset(
    {"OK", "CANCELLED", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNAUTHENTICATED", "OUT_OF_RANGE"}
)
_LOADS_CODES = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"})

_log = structlog.stdlib.get_logger("dubstage.rpc")
_REFLECTION = "/grpc.reflection."
_MAX_IDENTIFIER_CHARACTERS = 128
# Seconds that a status may take to leave. It waits behind earlier answers where the caller reads nothing.
_STATUS_S = 5.0
# Calls of reflection that run and that wait at the same time. Reflection works also while the stage warms up.
_REFLECTIONS = (4, 12)
# Seconds, and share of the allowed time, by which gRPC may round a deadline up between two machines.
_DEADLINE_SLACK_S = 0.05
_DEADLINE_SLACK = 0.01
# Failed calls that are drained at the same time: each may bring a largest message more.
_DRAINED_AT_ONCE = 4
# Calls that were refused by their headers, and get the error after a pause, at the same time.
_PAUSED_AT_ONCE = 64


class Outcome:
    """End of a call: the name of its gRPC status code, and the error where there was one."""

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
    async def observed(self, call: call_context.Call, metadata: Mapping[str, str]) -> AsyncIterator[Outcome]:
        """Make the call the current one, and report the call when the block ends.

        Args:
            metadata: text entries of the call's metadata, which may carry the caller's trace.
        """
        outcome = Outcome()
        labels = (self._stage, call.rpc)
        call_context.set_current_call(call)
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
                # The error's traceback refers to this call's frames, and these to the outcome: without this, messages of megabytes
                # stay until Python searches everything for unused objects.
                outcome.error = None


def _log_line(call: call_context.Call, outcome: Outcome, duration_s: float, span: trace.SpanContext) -> None:
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


class ChassisInterceptor(grpc.aio.ServerInterceptor):
    """Error mapping, log line, metrics, trace, token, deadline and back-pressure for all four kinds of handlers.

    Args:
        stage: name for logs, metrics and ErrorInfo.
        admission: how many calls run and wait.
        tokens: which bearer tokens are accepted.
        observer: reports each call.
        default_deadline_s: seconds allowed to a call that names no deadline, so that no call hangs for ever.
        max_deadline_s: seconds allowed to any call.
        max_call_memory_bytes: memory that one call may keep until its end, bytes.
        max_message_bytes: size of the largest message in or out, bytes.
        first_messages: byte budget for the first messages of calls.
        watchdog: ends calls that are idle or take too much memory.
    """

    def __init__(
        self,
        *,
        stage: str,
        admission: Admission,
        tokens: TokenCheck,
        observer: Observer,
        default_deadline_s: float,
        max_deadline_s: float,
        max_call_memory_bytes: int,
        max_message_bytes: int,
        first_messages: FirstMessages,
        watchdog: Watchdog,
    ) -> None:
        self._stage = stage
        self._admission = admission
        self._tokens = tokens
        self._observer = observer
        self._default_deadline_s = default_deadline_s
        self._max_deadline_s = max_deadline_s
        self._max_call_memory_bytes = max_call_memory_bytes
        self._max_message_bytes = max_message_bytes
        self._first_messages = first_messages
        self._watchdog = watchdog
        self._health = HealthInterceptor(stage, tokens)
        self._reflections = Admission(max_active=_REFLECTIONS[0], max_queued=_REFLECTIONS[1])
        self._reflections.open()
        self._draining = asyncio.Semaphore(_DRAINED_AT_ONCE)
        self._pausing = asyncio.Semaphore(_PAUSED_AT_ONCE)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap the handler of a call. gRPC has four kinds of handlers.

        For gRPC, every call streams its requests: gRPC reads the request of another call before it calls the handler, whoever calls
        and however long the request takes.
        """
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        if method.startswith(HEALTH):
            return self._health.of_calls(handler)
        encode = encoder(handler.response_serializer, self._max_message_bytes)
        codec = (decoder(handler.request_deserializer, self._max_message_bytes), encode)
        streams = handler.request_streaming
        if handler.response_streaming:
            behaviour = handler.stream_stream if streams else handler.unary_stream
            return grpc.stream_stream_rpc_method_handler(self._streaming(behaviour, method, encode, streams), *codec)
        behaviour = handler.stream_unary if streams else handler.unary_unary
        return grpc.stream_unary_rpc_method_handler(self._unary(behaviour, method, encode, streams), *codec)

    def _unary(self, behaviour: Any, method: str, encode: Callable[[Any], bytes], streams: bool) -> Any:
        async def answer(_: object, context: Context) -> Any:
            async with self._call(method, context, streams) as (call, requests):
                response = await behaviour(requests if streams else await requests.only(), context)
                # The answer is encoded inside the call: an answer that is too large is an error like any other.
                data = encode(response)
                _count_sent(response, call)
                return data

        return answer

    def _streaming(self, behaviour: Any, method: str, encode: Callable[[Any], bytes], streams: bool) -> Any:
        # This is a coroutine that writes, not a generator: a cancelled call then ends inside the coroutine, and the call's slot is
        # free at once. A generator would stay suspended.
        async def answer(_: object, context: Context) -> None:
            async with self._call(method, context, streams) as (call, requests):
                responses = behaviour(requests if streams else await requests.only(), context)
                if not hasattr(responses, "__aiter__"):
                    await responses
                    return
                async with aclosing(responses):
                    async for response in responses:
                        data = encode(response)
                        with call.offered():
                            await _write(context, data)
                        _count_sent(response, call)

        return answer

    @asynccontextmanager
    async def _call(self, method: str, context: Context, streams: bool) -> AsyncIterator[tuple[call_context.Call, RequestStream]]:
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        allowed_s = self._allowed_s(context)
        call = call_context.Call(
            stage=self._stage,
            rpc=method.removeprefix("/"),
            job_id=_identifier(metadata, call_context.JOB_ID_KEY),
            shot_id=_identifier(metadata, call_context.SHOT_ID_KEY),
            deadline=time.monotonic() + allowed_s,
            max_memory_bytes=self._max_call_memory_bytes,
        )
        requests = RequestStream(context, call, self._first_messages)
        admission = self._reflections if method.startswith(_REFLECTION) else self._admission
        admitted = False
        async with self._observer.observed(call, metadata) as outcome:
            try:
                set_current_caller(self._caller(metadata))
                try:
                    async with asyncio.timeout(allowed_s) as timer:
                        async with admission.slot():
                            admitted = True
                            with self._watchdog.watching(call):
                                try:
                                    yield call, requests
                                finally:
                                    # Before the slot is free and before any answer: work for the call that waits must not begin.
                                    call.finish()
                except TimeoutError:
                    if not timer.expired():
                        raise
                    raise StageDeadlineExceededError(f"{call.rpc} did not end in the {allowed_s:.3g} s allowed to it") from None
            except grpc.aio.AbortError:
                outcome.code = _code_name(context)
                raise
            except asyncio.CancelledError:
                if call.failure is not None:
                    # The watchdog ended the call.
                    outcome.fail(call.failure)
                    _uncancel()
                    if streams:
                        await self._await_pause(requests, admitted)
                    await self._send(context, call.failure)
                # The caller, the caller's deadline or the server's shutdown ended the call: gRPC itself answers.
                outcome.code = _code_of_cancelled(context.time_remaining(), allowed_s)
                raise
            except Exception as error:
                if unimplemented := isinstance(error, NotImplementedError) and context.code() is grpc.StatusCode.UNIMPLEMENTED:
                    # Raised by the generated base class of an RPC that the stage does not implement.
                    outcome.code = "UNIMPLEMENTED"
                else:
                    outcome.fail(call.failure or error_status.domain_error(error))
                traceback.clear_frames(error.__traceback__)
                if streams:
                    await self._await_pause(requests, admitted)
                if unimplemented:
                    await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the {self._stage} stage has no {call.rpc}")
                assert outcome.error is not None
                await self._send(context, outcome.error)

    async def _await_pause(self, requests: RequestStream, admitted: bool) -> None:
        """Give the caller of a failed call time to come to a pause, so that the error reaches the caller.

        A caller on grpc.aio whose write meets the end of the call sees INTERNAL in place of the status
        (https://github.com/grpc/grpc/issues/36066). Nothing is read from a caller that was not admitted. Where many calls fail at
        the same time, further ones end without a pause.
        """
        slots, pause = (self._draining, requests.drain) if admitted else (self._pausing, requests.pause)
        if not slots.locked():
            async with slots:
                await pause()

    async def _send(self, context: Context, error: DubstageError) -> None:
        """End the call with an error. Raises grpc.aio.AbortError, or CancelledError if the caller does not take the status."""
        status = rpc_status.to_status(error_status.to_status(error, stage=self._stage))
        try:
            async with asyncio.timeout(_STATUS_S):
                await context.abort(status.code, status.details, status.trailing_metadata)
        except TimeoutError:
            # gRPC would log the traceback of any other exception; the caller who does not read gets nothing either way.
            raise asyncio.CancelledError from None

    def _caller(self, metadata: Mapping[str, str]) -> Caller:
        caller = self._tokens.check(metadata.get(AUTHORIZATION_KEY, ""))
        # A gateway serves tenants themselves: nobody names another tenant there.
        return caller if self._stage == "gateway" else named_by(caller, metadata.get(TENANT_KEY, ""))

    def _allowed_s(self, context: Context) -> float:
        asked_s: float | None = context.time_remaining()
        return min(self._default_deadline_s if asked_s is None else asked_s, self._max_deadline_s)


async def _write(context: Context, data: bytes) -> None:
    try:
        await context.write(data)
    except grpc.aio.InternalError:
        # A write that waits for a caller who leaves fails a moment before gRPC cancels this task, which says why.
        await asyncio.sleep(_STATUS_S)
        raise


def _code_of_cancelled(remaining_s: float | None, allowed_s: float) -> str:
    """Return the status of a call that gRPC cancelled. gRPC rounds deadlines up: the caller's own passes a little earlier.

    Args:
        remaining_s: seconds that this side's deadline is away; None: the call has no deadline.
        allowed_s: seconds that the call had at its beginning.
    """
    late = remaining_s is not None and remaining_s <= max(_DEADLINE_SLACK_S, _DEADLINE_SLACK * allowed_s)
    return "DEADLINE_EXCEEDED" if late else "CANCELLED"


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


def _count_sent(response: Any, call: call_context.Call) -> None:
    call.messages_sent += 1
    if hasattr(response, "frame_index"):
        call.frames += 1


def _identifier(metadata: Mapping[str, str], key: str) -> str:
    # The identifier stands in every log line of the call. gRPC makes sure that it is printable; here it is made short.
    return metadata.get(key, "")[:_MAX_IDENTIFIER_CHARACTERS]


def _code_name(context: Context) -> str:
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    return next((status.name for status in grpc.StatusCode if status.value[0] == code), "UNKNOWN")
