"""The server of every stage: addresses, health, limits, security, telemetry, metrics over HTTP, and an orderly end.

The metrics port takes few connections at the same time and gives each little time: `prometheus_client.start_http_server` starts a
thread per connection, and waits for a request as long as the connection is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any, Final, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry import trace
from prometheus_client import make_wsgi_app
from prometheus_client.registry import Collector, CollectorRegistry

from services.common.errors import InvalidRequestError
from services.common.server.auth import TokenCheck
from services.common.server.call_messages import receive_limit
from services.common.server.health import MAX_REQUEST_BYTES, HealthInterceptor, HealthServicer
from services.common.server.interceptor import ChassisInterceptor, Observer
from services.common.server.limits import Admission, FirstMessages, WorkerPool
from services.common.server.process_tokens import ProcessTokens
from services.common.server.settings import StageSettings
from services.common.server.telemetry import Metrics, make_tracing
from services.common.server.tls import server_credentials
from services.common.server.watchdog import Watchdog

_UNREAD_BYTES: Final = 64 << 10
"""Bytes of a call that gRPC takes from its caller before the server reads: the call's window of HTTP/2. While the server reads a
message, gRPC makes room for that one message."""
FIRST_MESSAGES_BYTES: Final = 128 << 20
"""Most bytes of first messages of calls that arrive at the same time, in a server of any size."""
MAX_CALLS_CONNECTIONS: Final = 1024
"""Most connections of a port at the same time. A further connection is closed."""
_COMMON: Final = (
    # A port in use is an error. By default, two stages on Linux would share the port.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.lookahead_bytes", _UNREAD_BYTES),
    # The probe of the bandwidth would let each call's window grow to a GiB, for callers without a token too.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_allowed_incoming_connections", MAX_CALLS_CONNECTIONS),
    # A caller that connects, and neither ends the handshake of TLS nor begins HTTP/2, is gone after this time.
    ("grpc.server_handshake_timeout_ms", 20_000),
)
_MAX_HEALTH_STREAMS: Final = 64
"""Calls of one connection of the plain port at the same time. A kubelet has one."""
_FURTHER_STREAMS: Final = 128
"""Calls of one connection beyond those that run and wait: health, and calls that are refused. More calls wait in the client."""
MAX_CONNECTIONS: Final = 32
"""Most connections at the same time, each with a thread. A further connection is closed."""
MAX_CONNECTIONS_OF_HOST: Final = 8
"""Most connections of one client address at the same time, so that one host cannot take all connections."""
CONNECTION_S: Final = 10.0
"""Seconds after which a connection is closed, also during its request. A connection has one request."""
_POLL_INTERVAL_S: Final = 0.5
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
# The last responses and statuses get these seconds to leave.
_FLUSH_S = 0.5
# The server asks at this interval, in seconds, whether the stage serves.
_WATCH_S = 0.5
LIVENESS = "liveness"
"""Health name that is SERVING from the start on. It says that the event loop runs, not that the stage serves."""
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})
_log = structlog.stdlib.get_logger("dubstage.server")
Register = Callable[[grpc.aio.Server], None]
"""Adds a stage's servicers: `lambda server: add_RenderServiceServicer_to_server(servicer, server)`."""


def bracketed(host: str) -> str:
    """Return a host as written before `:PORT`: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith(("[", "unix:")) else host


def server_options(settings: StageSettings) -> list[tuple[str, int]]:
    """Return gRPC's options of a server."""
    return [
        *_COMMON,
        ("grpc.max_concurrent_streams", settings.max_concurrent_rpcs + settings.max_queued_rpcs + _FURTHER_STREAMS),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", receive_limit(settings.max_message_bytes)),
        # A client that stays connected for ever would never see new replicas. An aged connection takes no new calls. Its running
        # calls may last as long as any call, so that no call is cut.
        ("grpc.max_connection_age_ms", int(settings.max_connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", int(settings.max_deadline_s * 1000) + 60_000),
    ]


def health_options() -> list[tuple[str, int]]:
    """Return gRPC's options of the server that serves health only, in plain text."""
    return [
        *_COMMON,
        ("grpc.max_concurrent_streams", _MAX_HEALTH_STREAMS),
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ]


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing, because scrapes come every few seconds."""


class _MetricsServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    # Connections that wait to be accepted. By default five, and a further client tries again after a second.
    request_queue_size = 128

    def __init__(self, host: str, port: int) -> None:
        host = host.strip("[]")
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        # For each open connection, the address of the client and the instant of `time.monotonic()` at which the server closes it.
        self._open: dict[socket.socket, tuple[str, float]] = {}
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        host = str(client_address[0])
        with self._lock:
            of_host = sum(1 for other, _ in self._open.values() if other == host)
            if len(self._open) >= MAX_CONNECTIONS or of_host >= MAX_CONNECTIONS_OF_HOST:
                return False
            self._open[request] = (host, time.monotonic() + CONNECTION_S)
        return True

    def service_actions(self) -> None:
        """Wake the threads whose connections are over the time."""
        now = time.monotonic()
        with self._lock:
            late = [request for request, (_, end) in self._open.items() if now > end]
        for request in late:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stop listening and end the open connections, whose time nothing measures any more."""
        super().server_close()
        with self._lock:
            still_open = list(self._open)
        for request in still_open:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: a client that goes away, or is late, is no fault of the server."""


def serve_metrics(registry: CollectorRegistry, host: str, port: int) -> Callable[[], None]:
    """Serve metrics in threads. Return a function that ends the server.

    Args:
        host: address to listen on.
        port: port to listen on.

    Raises:
        OSError: the address is in use or cannot be used.
    """
    server = _MetricsServer(host, port)
    server.set_app(make_wsgi_app(registry))
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_INTERVAL_S,), name="metrics", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


class StageServer:
    """gRPC server of a stage.

    `start()` listens at once, answers health with NOT_SERVING and calls with ModelNotReadyError. `warm_up()` loads the stage's
    models and admits calls. `drain()` refuses further calls, lets running calls end, and stops. As an async context manager the
    server does the three in turn, for tests and embedding processes.

    Args:
        stage: `audio`, `face`, `motion`, `texture`, `render` or `gateway`.
        register: adds the servicers.
        services: full names of the services, such as `dubstage.render.v1.RenderService`, for health and
            reflection.
        warm_up: loads models and runs them once; called in a thread, so it may block.
        workers: pools in which the servicers compute. The server shuts the pools down.
        is_serving: returns whether the stage can compute; asked twice per second. While it returns False, health is NOT_SERVING.
            None: always True.
        collectors: metrics of the stage's own, shown with the server's.
        close: called once, after the last call.
        most_calls_of_tenant: most calls of one tenant that run or wait; None: one tenant may have all.
        fingerprint_key: secret that the fingerprints of tokens follow from; None: a random one.

    Raises:
        InvalidRequestError: a token or TLS file cannot be used.
    """

    def __init__(
        self,
        stage: str,
        settings: StageSettings,
        *,
        register: Register,
        services: Sequence[str],
        warm_up: Callable[[], None] | None = None,
        workers: Sequence[WorkerPool] = (),
        is_serving: Callable[[], bool] | None = None,
        collectors: Sequence[Collector] = (),
        close: Callable[[], None] | None = None,
        most_calls_of_tenant: int | None = None,
        fingerprint_key: bytes | None = None,
        process_tokens: ProcessTokens | None = None,
    ) -> None:
        self.stage = stage
        self.metrics = Metrics(stage)
        self.port = 0
        """Port of the server; 0 before `start()`."""
        self._settings = settings
        self._services = tuple(services)
        """Names that health knows."""
        self._warm_up = warm_up
        self._workers = tuple(workers)
        self._is_serving = is_serving
        self._watching: asyncio.Task[None] | None = None
        self._close = close
        for collector in collectors:
            self.metrics.registry.register(collector)
        self._admission = Admission(
            max_active=settings.max_concurrent_rpcs, max_queued=settings.max_queued_rpcs, most_of_tenant=most_calls_of_tenant
        )
        self.metrics.watch(self._admission, self._workers)
        # One servicer for the calls' port and one for the plain port: watchers of the plain port, which asks for no certificate and
        # no token, take no slots of the gateways.
        self._health = HealthServicer(stage)
        self._plain_health = HealthServicer(stage)
        self._stop_metrics: Callable[[], None] = lambda: None
        self._tracing = make_tracing(stage=stage, otlp_endpoint=settings.otlp_endpoint)
        self._watchdog = Watchdog(
            self._workers,
            max_idle_s=settings.max_idle_s,
            max_memory_bytes=settings.max_memory_bytes,
            on_ended=lambda reason: self.metrics.ended.labels(stage, reason).inc(),
            on_outlived=self.metrics.outlived.inc,
        )
        self._looking: asyncio.Task[None] | None = None
        interceptor = ChassisInterceptor(
            stage=stage,
            admission=self._admission,
            tokens=TokenCheck(settings.auth_token_file, fingerprint_key, process_tokens),
            observer=Observer(stage, self.metrics, self._tracing.tracer),
            default_deadline_s=settings.default_deadline_s,
            max_deadline_s=settings.max_deadline_s,
            max_call_memory_bytes=settings.max_call_memory_bytes,
            max_message_bytes=settings.max_message_bytes,
            first_messages=FirstMessages(
                budget_bytes=FIRST_MESSAGES_BYTES,
                message_bytes=receive_limit(settings.max_message_bytes),
                shared_by_tenant=most_calls_of_tenant is not None,
            ),
            watchdog=self._watchdog,
        )
        self._server = grpc.aio.server(interceptors=[interceptor], options=server_options(settings))
        register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        # A kubelet's probe knows no TLS and no token: a plain-text port answers it.
        self._health_server: grpc.aio.Server | None = None
        if settings.health_port:
            self._health_server = grpc.aio.server(interceptors=[HealthInterceptor(stage)], options=health_options())
            health_pb2_grpc.add_HealthServicer_to_server(self._plain_health, self._health_server)
        reflection.enable_server_reflection([*services, _HEALTH, reflection.SERVICE_NAME], self._server)

    @property
    def tracer(self) -> trace.Tracer:
        """Tracer for spans of the server's own."""
        return self._tracing.tracer

    @property
    def address(self) -> str:
        """HOST:PORT for clients on the same machine."""
        host = self._settings.host
        host = "127.0.0.1" if host in {"0.0.0.0", "::", "[::]"} else host
        return f"{bracketed(host)}:{self.port}"

    async def start(self) -> int:
        """Listen, without serving yet. Return the bound port.

        Raises:
            InvalidRequestError: the address is in use or cannot be used.
        """
        settings = self._settings
        # Set before the first client can ask.
        self._set_health(_NOT_SERVING, "", *self._services)
        self._set_health(_SERVING, LIVENESS)
        address = wanted = f"{bracketed(settings.host)}:{settings.port}"
        variable = "DUBSTAGE_PORT"
        try:
            credentials = server_credentials(settings)
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
            if self._health_server is not None:
                wanted, variable = f"{bracketed(settings.host)}:{settings.health_port}", "DUBSTAGE_HEALTH_PORT"
                self._health_server.add_insecure_port(wanted)
            if settings.metrics_port:
                wanted, variable = f"{bracketed(settings.host)}:{settings.metrics_port}", "DUBSTAGE_METRICS_PORT"
                self._stop_metrics = serve_metrics(self.metrics.registry, settings.host, settings.metrics_port)
        except (RuntimeError, OSError) as error:
            raise InvalidRequestError(
                f"the {self.stage} stage cannot listen on {wanted}: another process listens there, or this machine has no such "
                f"address; end that process, or set {variable} (and DUBSTAGE_HOST) to another value",
                field=variable,
            ) from error
        self._warn_of_tokens(settings.host)
        await self._server.start()
        self._looking = asyncio.create_task(self._watchdog.run())
        if self._health_server is not None:
            await self._health_server.start()
        return self.port

    def _warn_of_tokens(self, host: str) -> None:
        """Warn if tokens come to an address of the server over a network without TLS."""
        settings = self._settings
        if settings.auth_token_file is not None and settings.tls_certificate_file is None and host not in _LOOPBACK:
            _log.warning("tokens_in_plain_text", host=host, remedy="set DUBSTAGE_TLS_CERTIFICATE_FILE")

    async def warm_up(self) -> None:
        """Run the stage's warm-up, then admit calls and report SERVING."""
        if self._warm_up is not None:
            await _in_daemon_thread(self._warm_up)
        self._admission.open()
        self._set_health(_SERVING, "", *self._services)
        self.metrics.serving.set(1)
        if self._is_serving is not None:
            self._watching = asyncio.create_task(self._watch(self._is_serving))

    async def drain(self, grace_s: float | None = None) -> None:
        """Report NOT_SERVING, refuse new calls, give running ones the grace, then cancel them.

        Args:
            grace_s: seconds. None: the setting drain_grace_s.
        """
        if self._watching is not None:
            self._watching.cancel()
        self.metrics.serving.set(0)
        self._health.enter_graceful_shutdown()
        self._plain_health.enter_graceful_shutdown()
        self._admission.close()
        grace_s = self._settings.drain_grace_s if grace_s is None else grace_s
        # gRPC's own grace would wait for calls that watch the health, and would refuse health checks.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._admission.idle()
        await self._server.stop(_FLUSH_S if grace_s else None)
        if self._looking is not None:
            self._looking.cancel()
        if self._health_server is not None:
            await self._health_server.stop(_FLUSH_S if grace_s else None)
        for pool in self._workers:
            pool.shutdown()
        close, self._close = self._close, None
        if close is not None:
            await asyncio.to_thread(close)
        await asyncio.to_thread(self._stop_metrics)
        await asyncio.to_thread(self._tracing.shutdown)

    def _set_health(self, status: int, *names: str) -> None:
        for servicer in (self._health, self._plain_health):
            for name in names:
                servicer.set(name, status)

    async def _watch(self, is_serving: Callable[[], bool]) -> None:
        """Keep health equal to what `is_serving` returns."""
        shown = True
        while True:
            await asyncio.sleep(_WATCH_S)
            if (serving := is_serving()) != shown:
                shown = serving
                self._set_health(_SERVING if serving else _NOT_SERVING, "", *self._services)
                self.metrics.serving.set(int(serving))
                (_log.info if serving else _log.error)("health_changed", serving=serving)

    @property
    def busy(self) -> bool:
        """Whether a worker still computes. After `drain()`, no caller waits for such work."""
        return any(pool.pending for pool in self._workers)

    async def __aenter__(self) -> Self:
        await self.start()
        try:
            await self.warm_up()
        except BaseException:
            await self.drain(grace_s=0)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain()


async def _in_daemon_thread(function: Callable[[], None]) -> None:
    # The interpreter joins the threads of the loop's executor. A stop during the load need not wait for the load.
    done: Future[None] = Future()

    def run() -> None:
        try:
            function()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    # The load cannot be cancelled, and a result that no task awaits does no harm.
    done.set_running_or_notify_cancel()
    threading.Thread(target=run, name="warm-up", daemon=True).start()
    await asyncio.wrap_future(done)
