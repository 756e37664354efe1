"""Health, back-pressure, deadlines, tokens, TLS, sizes, metrics and the orderly end, on real servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from structlog.testing import capture_logs

from services.common import calls, errors
from services.common.client import ClientConfig, RetryPolicy, StageClient
from services.common.limits import WorkerPool

ONCE = RetryPolicy(max_attempts=1)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def answer(message: bytes) -> bytes:
    return message


async def health(client: Any, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(client.stage.channel)
    response = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
    return int(response.status)


async def eventually(condition: Any, timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - the condition lies in another process or in a metric
            await asyncio.sleep(0.005)


# Health and life cycle


async def test_nothing_is_served_before_the_warm_up_has_ended(echo: Any) -> None:
    may_end = threading.Event()
    server = await echo.serve(answer, warm=False, warm_up=may_end.wait)
    client = echo.connect(server)
    warming = asyncio.create_task(server.warm_up())
    assert await health(client) == NOT_SERVING
    assert await health(client, echo.service) == NOT_SERVING
    with pytest.raises(errors.ModelNotReady):
        await client.call("Unary", policy=ONCE)
    may_end.set()
    await warming
    assert await health(client) == SERVING
    assert await health(client, echo.service) == SERVING
    await client.call("Unary")


async def test_a_failed_warm_up_ends_the_server(echo: Any) -> None:
    def fail() -> None:
        raise errors.ModelNotFound("weights/renderer.onnx is missing", resource="renderer.onnx")

    server = await echo.serve(answer, warm=False, warm_up=fail)
    with pytest.raises(errors.ModelNotFound):
        await server.warm_up()
    assert await health(echo.connect(server)) == NOT_SERVING


async def test_reflection_lists_the_services(echo: Any) -> None:
    client = echo.connect(await echo.serve(answer))
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(client.stage.channel)
    call = stub.ServerReflectionInfo(timeout=5)
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    response = await call.read()
    await call.done_writing()
    names = {service.name for service in response.list_services_response.service}
    assert names == {echo.service, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_drain_lets_the_running_call_end_and_refuses_new_ones(echo: Any) -> None:
    may_end = asyncio.Event()

    async def wait(message: bytes) -> bytes:
        await may_end.wait()
        return message

    server = await echo.serve(wait)
    client = echo.connect(server)
    stub: Any = health_pb2_grpc.HealthStub(client.stage.channel)
    watcher = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
    assert (await watcher.read()).status == SERVING
    running = asyncio.create_task(client.call("Stream", b"late"))
    await eventually(lambda: client.received == [b"first"])
    draining = asyncio.create_task(server.drain(grace_s=10))
    assert (await watcher.read()).status == NOT_SERVING
    assert await health(client) == NOT_SERVING
    with pytest.raises(errors.BackendUnavailable, match="shutting down"):
        await client.call("Unary", policy=ONCE)
    may_end.set()
    await running
    assert client.received == [b"first", b"late"]
    begin = time.monotonic()
    await draining
    assert time.monotonic() - begin < 5, "one who watches the health must not hold up the end"
    watcher.cancel()


async def test_a_call_longer_than_the_grace_ends_as_an_error_worth_trying_elsewhere(echo: Any) -> None:
    server = await echo.serve(lambda _: asyncio.Event().wait())
    client = echo.connect(server)
    running = asyncio.create_task(client.call("Stream"))
    await eventually(lambda: client.received == [b"first"])
    await server.drain(grace_s=0.05)
    with pytest.raises(errors.BackendUnavailable):
        await running


async def test_a_port_that_is_taken_is_named(echo: Any) -> None:
    server = await echo.serve(answer)
    with pytest.raises(errors.InvalidRequest, match=str(server.port)):
        await echo.serve(answer, port=server.port)


# Back-pressure


async def test_calls_beyond_places_and_queue_are_refused_at_once_with_a_time_to_retry(echo: Any) -> None:
    may_end = asyncio.Event()
    running: list[bytes] = []

    async def wait(message: bytes) -> bytes:
        running.append(message)
        await may_end.wait()
        return message

    server = await echo.serve(wait, max_concurrent_rpcs=2, max_queued_rpcs=1)
    client = echo.connect(server)
    in_flight = server.metrics.in_flight.labels("echo", f"{echo.service}/Unary")
    admitted = [asyncio.create_task(client.call("Unary", bytes([n]), policy=ONCE)) for n in range(3)]
    await eventually(lambda: in_flight.collect()[0].samples[0].value == 3)
    with pytest.raises(errors.Overloaded) as caught:
        await client.call("Unary", b"refused", policy=ONCE)
    assert caught.value.retry_after_s > 0
    assert len(running) == 2
    assert await health(client) == SERVING
    may_end.set()
    await asyncio.gather(*admitted)
    await client.call("Unary", b"room again", policy=ONCE)


@pytest.mark.parametrize("kind", ["Unary", "Download", "Upload", "Stream"])
async def test_a_cancelled_call_gives_its_place_back(echo: Any, kind: str) -> None:
    entered = asyncio.Event()
    stop = True

    async def maybe_wait(message: bytes) -> bytes:
        if stop:
            entered.set()
            await asyncio.Event().wait()
        return message

    client = echo.connect(await echo.serve(maybe_wait, max_concurrent_rpcs=1, max_queued_rpcs=0))
    task = asyncio.create_task(client.call(kind))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stop = False
    await client.call(kind)


async def test_a_refused_call_is_tried_again_until_there_is_room(echo: Any) -> None:
    refusals = 2

    async def refuse_twice(message: bytes) -> bytes:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise errors.Overloaded("full", retry_after_s=0.01)
        return message

    client = echo.connect(await echo.serve(refuse_twice))
    await client.call("Upload", policy=RetryPolicy(max_attempts=3, initial_backoff_s=0.01))
    assert client.received == [b"x"]


async def test_a_second_attempt_never_goes_out_with_what_is_left_of_the_first_ones_requests(echo: Any) -> None:
    async def refuse(message: bytes) -> bytes:
        raise errors.Overloaded("full", retry_after_s=0.01)

    async def two() -> Any:
        yield b"one"
        yield b"two"

    client = echo.connect(await echo.serve(refuse))
    requests = two()
    method: Any = client.stage.channel.stream_unary(f"/{echo.service}/Upload")
    with pytest.raises(errors.ContractBroken, match="fresh requests, after: full"):
        await client.stage.upload(method, lambda: requests)


# Deadlines and cancellation


@pytest.mark.parametrize("kind", ["Unary", "Stream"])
async def test_a_call_without_a_deadline_gets_the_servers(echo: Any, kind: str) -> None:
    client = echo.connect(await echo.serve(lambda _: asyncio.Event().wait(), default_deadline_s=0.1))
    channel = client.stage.channel
    if kind == "Unary":
        call: Any = channel.unary_unary(f"/{echo.service}/Unary")(b"")
    else:
        call = channel.unary_stream(f"/{echo.service}/Download")(b"")
        assert await call.read() == b"first"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call if kind == "Unary" else call.read())
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "0.1 s" in (caught.value.details() or "")


async def test_a_callers_long_deadline_is_cut_to_the_servers_longest(echo: Any) -> None:
    client = echo.connect(await echo.serve(lambda _: asyncio.Event().wait(), default_deadline_s=0.1, max_deadline_s=0.1))
    with pytest.raises(errors.StageDeadlineExceeded):
        await client.call("Unary", timeout_s=60, policy=ONCE)


async def test_a_callers_own_deadline_ends_the_work(echo: Any) -> None:
    ended: list[bool] = []

    async def wait(_: bytes) -> bytes:
        call = calls.current_call()
        assert call is not None
        assert 0 < (calls.remaining_s() or 0) < 0.5
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)
        return b""

    client = echo.connect(await echo.serve(wait))
    with pytest.raises(errors.StageDeadlineExceeded):
        await client.call("Unary", timeout_s=0.2, policy=ONCE)
    await eventually(lambda: ended == [True])


async def test_a_timeout_inside_of_a_handler_is_not_taken_for_the_calls_deadline(echo: Any) -> None:
    async def fail(_: bytes) -> bytes:
        raise TimeoutError("of some other thing")

    client = echo.connect(await echo.serve(fail))
    with pytest.raises(errors.Unexpected):
        await client.call("Unary", policy=ONCE)


async def test_work_in_a_thread_stops_when_its_call_is_cancelled(echo: Any) -> None:
    pool = WorkerPool(num_threads=1, max_queued=1)
    begun, stopped = threading.Event(), threading.Event()

    def work() -> bytes:
        begun.set()
        try:
            for _ in range(2000):
                calls.check_still_wanted()
                time.sleep(0.005)
        except errors.Cancelled:
            stopped.set()
            raise
        return b""

    client = echo.connect(await echo.serve(lambda _: pool.run(work)))
    task = asyncio.create_task(client.call("Unary"))
    await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(stopped.wait, 5)
    await eventually(lambda: pool.pending == 0)
    pool.shutdown()


async def test_a_consumer_that_stops_early_ends_the_stream_at_the_server(echo: Any) -> None:
    ended = asyncio.Event()

    async def wait(_: bytes) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return b""

    client = echo.connect(await echo.serve(wait))
    method = client.stage.channel.unary_stream(f"/{echo.service}/Download")
    async with contextlib.aclosing(client.stage.download(method, b"")) as responses:
        async for response in responses:
            assert response == b"first"
            break
    await asyncio.wait_for(ended.wait(), 5)


async def test_a_failure_of_the_requests_own_iterator_comes_out_as_it_is(echo: Any) -> None:
    async def requests() -> Any:
        yield b"one"
        raise errors.MediaUnsupported("the speech file is cut off", field="audio")

    client = echo.connect(await echo.serve(answer))
    with pytest.raises(errors.MediaUnsupported, match="cut off"):
        async for _ in client.stage.stream(client.stage.channel.stream_stream(f"/{echo.service}/Stream"), requests()):
            pass
    with pytest.raises(errors.MediaUnsupported, match="cut off"):
        await client.stage.upload(client.stage.channel.stream_unary(f"/{echo.service}/Upload"), requests)


# Sizes


@pytest.mark.parametrize("direction", ["request", "response"])
async def test_an_oversized_message_is_named_and_not_tried_again(echo: Any, direction: str) -> None:
    attempts = 0

    async def grow(message: bytes) -> bytes:
        nonlocal attempts
        attempts += 1
        return message * 3

    client = echo.connect(await echo.serve(grow, max_message_bytes=8192))
    size = 9000 if direction == "request" else 4000
    with pytest.raises(errors.MessageTooLarge, match="DUBSTAGE_MAX_MESSAGE_BYTES"):
        await client.call("Unary", bytes(size))
    assert attempts == (0 if direction == "request" else 1)
    await client.call("Unary", bytes(2000))


# Tokens


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text("# farm\nold-token\nnew-token\n")
    return file


def presenting(tmp_path: Path, token: str) -> Path:
    file = tmp_path / "own"
    file.write_text(token)
    return file


@pytest.mark.parametrize("kind", ["Unary", "Download", "Upload", "Stream"])
async def test_only_a_known_token_opens_the_server(echo: Any, token_file: Path, tmp_path: Path, kind: str) -> None:
    server = await echo.serve(answer, auth_token_file=token_file)
    for token in ("old-token", "new-token"):
        await echo.connect(server, auth_token_file=presenting(tmp_path, token)).call(kind, policy=ONCE)
    for client in (echo.connect(server), echo.connect(server, auth_token_file=presenting(tmp_path, "old-toke"))):
        with pytest.raises(errors.Unauthenticated):
            await client.call(kind, policy=ONCE)
        assert client.received == []
        assert await health(client) == SERVING


async def test_a_replaced_token_file_counts_without_a_restart(echo: Any, token_file: Path, tmp_path: Path) -> None:
    server = await echo.serve(answer, auth_token_file=token_file)
    client = echo.connect(server, auth_token_file=presenting(tmp_path, "old-token"))
    await client.call("Unary", policy=ONCE)
    fresh = tmp_path / "fresh"
    fresh.write_text("new-token\n")
    fresh.replace(token_file)
    with pytest.raises(errors.Unauthenticated):
        await client.call("Unary", policy=ONCE)


def test_no_token_travels_in_plain_text_to_another_machine(token_file: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="plain text"):
        StageClient(ClientConfig(stage="render", target="render.example:50055", auth_token_file=token_file))


# TLS


async def test_tls_serves_those_who_know_the_authority_only(echo: Any, certificates: Any) -> None:
    server = await echo.serve(answer, tls_certificate_file=certificates.server.chain, tls_key_file=certificates.server.key)
    target = f"localhost:{server.port}"
    await echo.connect(server, target=target, tls=True, tls_ca_file=certificates.authority).call("Unary", policy=ONCE)
    strangers = [
        echo.connect(server, target=target, tls=True, tls_ca_file=certificates.other_authority),
        echo.connect(server, target=target),
    ]
    for client in strangers:
        with pytest.raises(errors.BackendUnavailable):
            await client.call("Unary", policy=ONCE)


async def test_mutual_tls_asks_for_a_certificate_of_the_authority(echo: Any, certificates: Any) -> None:
    server = await echo.serve(
        answer,
        tls_certificate_file=certificates.server.chain,
        tls_key_file=certificates.server.key,
        tls_client_ca_file=certificates.authority,
        require_client_certificate=True,
    )
    common = {"target": f"localhost:{server.port}", "tls": True, "tls_ca_file": certificates.authority}
    own, foreign = certificates.client, certificates.foreign_client
    client = echo.connect(server, **common, tls_certificate_file=own.chain, tls_key_file=own.key)
    await client.call("Stream", policy=ONCE)
    strangers = [
        echo.connect(server, **common),
        echo.connect(server, **common, tls_certificate_file=foreign.chain, tls_key_file=foreign.key),
    ]
    for stranger in strangers:
        with pytest.raises(errors.BackendUnavailable):
            await stranger.call("Unary", policy=ONCE)


# Telemetry


async def test_each_call_leaves_one_line_and_its_metrics(echo: Any) -> None:
    bound: list[dict[str, Any]] = []

    async def count(message: bytes) -> bytes:
        bound.append(structlog.contextvars.get_contextvars())
        calls.count_frames(25)
        calls.set_model_version("ugc-1")
        if message == b"bad":
            raise errors.InvalidRequest("bad", field="message")
        return message

    server = await echo.serve(count)
    client = echo.connect(server)
    metadata = ((calls.JOB_ID_KEY, "job-7"), (calls.SHOT_ID_KEY, "s" * 500))
    with capture_logs() as lines:
        await client.stage.channel.unary_unary(f"/{echo.service}/Unary")(b"good", metadata=metadata, timeout=5)
        with pytest.raises(errors.InvalidRequest):
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


async def test_a_call_made_by_a_handler_carries_job_shot_and_what_is_left_of_the_time(echo: Any) -> None:
    seen: list[calls.Call] = []

    async def inner(message: bytes) -> bytes:
        call = calls.current_call()
        assert call is not None
        seen.append(call)
        return message

    inner_client = echo.connect(await echo.serve(inner))

    async def outer(message: bytes) -> bytes:
        await inner_client.call("Unary", message, timeout_s=60)
        return message

    client = echo.connect(await echo.serve(outer))
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    metadata = (
        (calls.JOB_ID_KEY, "job-7"),
        (calls.SHOT_ID_KEY, "shot-3"),
        ("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"),
    )
    with capture_logs() as lines:
        await client.stage.channel.unary_unary(f"/{echo.service}/Unary")(b"x", metadata=metadata, timeout=5)
        await eventually(lambda: len(lines) == 2)
    assert [line["trace_id"] for line in lines] == [trace_id] * 2
    assert (seen[0].job_id, seen[0].shot_id) == ("job-7", "shot-3")
    # gRPC rounds a deadline up by some milliseconds on its way.
    assert (seen[0].deadline or 0) - time.monotonic() < 5.5


async def test_metrics_are_served_over_http(echo: Any, free_port: int) -> None:
    server = await echo.serve(answer, metrics_port=free_port)
    await echo.connect(server).call("Unary")

    def fetch() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/metrics", timeout=5) as response:
            return str(response.read().decode())

    assert "dubstage_rpcs_total{" in await asyncio.to_thread(fetch)


async def test_a_span_a_call_goes_to_the_collector_under_the_callers_trace(echo: Any) -> None:
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
        raise errors.ContractBroken("61 frames for 60") if message == b"bad" else errors.InvalidRequest("no")

    server = await echo.serve(fail, otlp_endpoint=f"http://127.0.0.1:{port}")
    client = echo.connect(server)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    for message in (b"bad", b"wrong"):
        with pytest.raises(grpc.aio.AioRpcError):
            await client.stage.channel.unary_unary(f"/{echo.service}/Unary")(
                message, metadata=(("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"),), timeout=5
            )
    await server.drain(grace_s=1)
    assert [span.trace_id.hex() for span in received] == [trace_id] * 2
    assert [span.name for span in received] == [f"{echo.service}/Unary"] * 2
    # Status 2 is ERROR: what the caller did wrong is no error of the server's.
    assert [span.status.code for span in received] == [2, 0]
    await collector.stop(None)


# The process

STAGE = """
import asyncio, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import SERVICE, echo_handlers
from services.common.limits import WorkerPool
from services.common.server import StageServer, run_stage
from services.common.settings import StageSettings, load_settings

pool = WorkerPool(num_threads=1, max_queued=1)

def warm_up():
    if "slow-warm-up" in sys.argv:
        print("warming", flush=True)
        time.sleep(60)

async def behave(message):
    if message == b"slow":
        await asyncio.sleep(0.5)
    if message == b"stuck":
        await pool.run(time.sleep, 60)
    return message

def build(settings):
    return StageServer("echo", settings, services=[SERVICE], warm_up=warm_up, workers=[pool],
                       register=lambda server: server.add_generic_rpc_handlers([echo_handlers(behave)]))

raise SystemExit(run_stage(load_settings(StageSettings), "echo", build))
"""


def start_process(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STAGE, str(Path(__file__).parent), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "DUBSTAGE_LOG_FORMAT": "json", **environment},
    )


async def test_sigterm_lets_the_running_call_end_and_the_process_exits_with_zero(echo: Any, tmp_path: Path) -> None:
    with start_process(DUBSTAGE_READY_FILE=str(tmp_path / "ready")) as process:
        try:
            assert process.stdout is not None
            line = await asyncio.to_thread(process.stdout.readline)
            assert line.startswith("dubstage echo listening on 127.0.0.1:")
            target = line.split()[-1]
            assert (tmp_path / "ready").read_text().strip() == target
            client = echo.connect(type("Address", (), {"address": target})())
            running = asyncio.create_task(client.call("Stream", b"slow"))
            await eventually(lambda: client.received == [b"first"])
            process.send_signal(signal.SIGTERM)
            await running
            assert client.received == [b"first", b"slow"]
            _, log = await asyncio.to_thread(process.communicate, timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0
    assert '"event": "rpc_finished"' in log
    assert "Traceback" not in log


async def test_sigterm_in_mid_warm_up_ends_the_process_at_once() -> None:
    with start_process("slow-warm-up") as process:
        try:
            assert process.stdout is not None
            assert (await asyncio.to_thread(process.stdout.readline)).strip() == "warming"
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.communicate, timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0


async def test_a_computation_that_does_not_look_up_does_not_hold_the_process_beyond_the_grace(echo: Any) -> None:
    with start_process(DUBSTAGE_DRAIN_GRACE_S="0.1") as process:
        try:
            assert process.stdout is not None
            target = (await asyncio.to_thread(process.stdout.readline)).split()[-1]
            client = echo.connect(type("Address", (), {"address": target})())
            running = asyncio.create_task(client.call("Stream", b"stuck"))
            await eventually(lambda: client.received == [b"first"])
            process.send_signal(signal.SIGTERM)
            with pytest.raises(errors.BackendUnavailable):
                await running
            await asyncio.to_thread(process.communicate, timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0


async def test_a_process_that_cannot_listen_says_so_and_exits_with_the_errors_code(echo: Any) -> None:
    server = await echo.serve(answer)
    with start_process(DUBSTAGE_PORT=str(server.port)) as process:
        try:
            _, log = await asyncio.to_thread(process.communicate, timeout=20)
        finally:
            process.kill()
    assert process.returncode == errors.InvalidRequest.exit_code
    assert f"cannot listen on 127.0.0.1:{server.port}" in log
    assert "Traceback" not in log


async def test_a_server_that_is_killed_in_mid_stream_is_an_error_worth_trying_elsewhere(echo: Any) -> None:
    with start_process() as process:
        try:
            assert process.stdout is not None
            target = (await asyncio.to_thread(process.stdout.readline)).split()[-1]
            client = echo.connect(type("Address", (), {"address": target})())
            running = asyncio.create_task(client.call("Stream", b"slow"))
            await eventually(lambda: client.received == [b"first"])
            process.kill()
            with pytest.raises(errors.BackendUnavailable, match=target):
                await running
            with pytest.raises(errors.BackendUnavailable, match=target):
                await client.call("Unary", policy=ONCE)
        finally:
            process.kill()
            process.communicate()
