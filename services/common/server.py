"""The server that every stage runs in: one bootstrap for health, limits, security, telemetry and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Self

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry import trace
from prometheus_client import start_http_server
from prometheus_client.registry import Collector

from services.common import error_status
from services.common.auth import TokenCheck
from services.common.errors import DubstageError, InvalidRequest
from services.common.interceptors import ChassisInterceptor
from services.common.limits import Admission, WorkerPool
from services.common.listening import bracketed, server_credentials, server_options
from services.common.settings import StageSettings
from services.common.telemetry import Metrics, configure_logging, make_tracing
from services.common.watchdog import Watchdog

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# For the last responses and statuses of calls that have ended to leave.
_FLUSH_S = 0.5
# Between two looks at what a stage says of itself.
_WATCH_S = 0.5
LIVENESS = "liveness"
"""A name that health answers for from the start on: it says that the event loop runs, and nothing about what the stage can do."""
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})

_log = structlog.stdlib.get_logger("dubstage.server")

Register = Callable[[grpc.aio.Server], None]
"""Adds a stage's servicers: `lambda server: add_RenderServiceServicer_to_server(servicer, server)`."""


class StageServer:
    """A gRPC server with everything that is not the stage's own business.

    `start()` listens at once, answers health with NOT_SERVING and calls with ModelNotReady; `warm_up()` loads what the
    stage needs and opens it; `drain()` closes it, lets running calls end, and stops. As an async context manager it
    does the three in turn, which is how tests and embedding processes use it.

    Args:
        stage: `audio`, `face`, `motion`, `texture`, `render` or `gateway`.
        settings: of the process.
        register: adds the servicers.
        services: full names of the services, such as `dubstage.render.v1alpha1.RenderService`, for health and
            reflection.
        warm_up: loads models and runs them once; called in a thread, so it may block.
        workers: pools that the servicers compute in; they are shut down with the server.
        is_serving: whether what the stage computes with still works; asked twice a second, while it does not, health is
            NOT_SERVING. None: always.
        collectors: metrics of the stage's own, shown with the server's.
        close: called once, after the last call.

    Raises:
        InvalidRequest: a token or TLS file cannot be used.
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
    ) -> None:
        self.stage = stage
        self.metrics = Metrics(stage)
        self.port = 0
        """The port that is listened on; 0 before `start()`."""
        self._settings = settings
        self._services = tuple(services)
        self._warm_up = warm_up
        self._workers = tuple(workers)
        self._is_serving = is_serving
        self._watching: asyncio.Task[None] | None = None
        self._close = close
        for collector in collectors:
            self.metrics.registry.register(collector)
        self._admission = Admission(max_active=settings.max_concurrent_rpcs, max_queued=settings.max_queued_rpcs)
        self.metrics.watch(self._admission, self._workers)
        self._health = health.aio.HealthServicer()
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
            tokens=TokenCheck(settings.auth_token_file),
            metrics=self.metrics,
            tracer=self._tracing.tracer,
            default_deadline_s=settings.default_deadline_s,
            max_deadline_s=settings.max_deadline_s,
            max_call_memory_bytes=settings.max_call_memory_bytes,
            max_message_bytes=settings.max_message_bytes,
            watchdog=self._watchdog,
        )
        self._server = grpc.aio.server(interceptors=[interceptor], options=server_options(settings))
        register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        # A kubelet's probe knows no TLS. The same servicer in the same event loop, without the secrets of the other port.
        self._health_server = grpc.aio.server(options=[("grpc.so_reuseport", 0)]) if settings.health_port else None
        if self._health_server is not None:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._health_server)
        reflection.enable_server_reflection([*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)

    @property
    def tracer(self) -> trace.Tracer:
        """For spans of the server's own, beside those of its calls."""
        return self._tracing.tracer

    @property
    def address(self) -> str:
        """HOST:PORT for clients on the same machine."""
        host = self._settings.host
        host = "127.0.0.1" if host in {"0.0.0.0", "::", "[::]"} else host
        return f"{bracketed(host)}:{self.port}"

    async def start(self) -> int:
        """Listen, not serving yet; returns the bound port.

        Raises:
            InvalidRequest: the address is taken or cannot be used.
        """
        settings = self._settings
        # grpc_health begins with SERVING; nobody may see that.
        for name in ("", *self._services):
            await self._health.set(name, _NOT_SERVING)
        await self._health.set(LIVENESS, _SERVING)
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
                http, thread = start_http_server(settings.metrics_port, settings.host, self.metrics.registry)

                def stop_metrics() -> None:
                    http.shutdown()
                    http.server_close()
                    thread.join()

                self._stop_metrics = stop_metrics
        except (RuntimeError, OSError) as error:
            raise InvalidRequest(
                f"the {self.stage} stage cannot listen on {wanted}: another process listens there, or the address is none of this "
                f"machine's; end that process, or set {variable} (and DUBSTAGE_HOST) to another",
                field=variable,
            ) from error
        if settings.auth_token_file is not None and credentials is None and settings.host not in _LOOPBACK:
            _log.warning("tokens_in_plain_text", host=settings.host, remedy="set DUBSTAGE_TLS_CERTIFICATE_FILE")
        await self._server.start()
        self._looking = asyncio.create_task(self._watchdog.run())
        if self._health_server is not None:
            await self._health_server.start()
        return self.port

    async def warm_up(self) -> None:
        """Run the stage's warm-up, then admit calls and report SERVING."""
        if self._warm_up is not None:
            await _in_daemon_thread(self._warm_up)
        self._admission.open()
        for name in ("", *self._services):
            await self._health.set(name, _SERVING)
        self.metrics.serving.set(1)
        if self._is_serving is not None:
            self._watching = asyncio.create_task(self._watch(self._is_serving))

    async def drain(self, grace_s: float | None = None) -> None:
        """Report NOT_SERVING, refuse new calls, give running ones the grace, then cancel them.

        Args:
            grace_s: seconds; the setting's where None.
        """
        if self._watching is not None:
            self._watching.cancel()
        self.metrics.serving.set(0)
        await self._health.enter_graceful_shutdown()
        self._admission.close()
        grace_s = self._settings.drain_grace_s if grace_s is None else grace_s
        # gRPC's own grace would wait for those who only watch the health, and refuse the checks of those who ask.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._admission.idle()
        await self._server.stop(_FLUSH_S if grace_s else None)
        if self._looking is not None:
            self._looking.cancel()
        if self._health_server is not None:
            await self._health_server.stop(None)
        for pool in self._workers:
            pool.shutdown()
        close, self._close = self._close, None
        if close is not None:
            await asyncio.to_thread(close)
        await asyncio.to_thread(self._stop_metrics)
        await asyncio.to_thread(self._tracing.shutdown)

    async def _watch(self, is_serving: Callable[[], bool]) -> None:
        """Keep health to what the stage says of itself."""
        shown = True
        while True:
            await asyncio.sleep(_WATCH_S)
            if (serving := is_serving()) != shown:
                shown = serving
                for name in ("", *self._services):
                    await self._health.set(name, _SERVING if serving else _NOT_SERVING)
                self.metrics.serving.set(int(serving))
                (_log.info if serving else _log.error)("health_changed", serving=serving)

    @property
    def busy(self) -> bool:
        """Whether a worker still computes; after `drain()` that is work which nobody waits for."""
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


async def serve(server: StageServer, settings: StageSettings) -> None:
    """Run a server until SIGTERM or SIGINT, then drain it; a second signal ends the grace.

    Once it serves, `dubstage STAGE listening on HOST:PORT` goes to stdout, and HOST:PORT to `settings.ready_file`.

    Raises:
        DubstageError: it could not listen, or the warm-up failed.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        await server.start()
        warming = asyncio.create_task(server.warm_up())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({warming, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if warming.done():
            warming.result()
            _announce(server, settings.ready_file)
            await stopping
        else:
            warming.cancel()
        _log.info("draining", stage=server.stage, grace_s=settings.drain_grace_s)
        stop.clear()
        draining = asyncio.create_task(server.drain())
        hurry = asyncio.create_task(stop.wait())
        await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            await server.drain(grace_s=0)
        await draining
        hurry.cancel()
        _log.info("stopped", stage=server.stage)
    except BaseException:
        await server.drain(grace_s=0)
        raise
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def run_stage(settings: StageSettings, stage: str, build: Callable[[StageSettings], StageServer]) -> int:
    """A stage's whole `__main__` after its settings are read; returns the exit code.

    Args:
        settings: of the process.
        stage: name for logs.
        build: composes the stage; called inside the running event loop.
    """
    configure_logging(level=settings.log_level, log_format=settings.log_format, stage=stage)

    async def main() -> bool:
        server = build(settings)
        await serve(server, settings)
        return server.busy

    try:
        busy = asyncio.run(main())
    except DubstageError as error:
        return _give_up(stage, error)
    except Exception as error:
        return _give_up(stage, error_status.domain_error(error))
    if busy:
        # The grace is over: a computation that does not look up must not keep the process, as the interpreter's own
        # exit would by joining its thread.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def _give_up(stage: str, error: DubstageError) -> int:
    """Say why a stage ends, to machines in the log and to people in a sentence; returns the exit code."""
    _log.error("cannot_serve", **error_status.log_fields(error))
    with contextlib.suppress(BrokenPipeError):
        print(f"dubstage {stage}: {error.message}", file=sys.stderr, flush=True)
    return error.exit_code


def _announce(server: StageServer, ready_file: Path | None) -> None:
    _log.info("serving", stage=server.stage, address=server.address)
    if ready_file is not None:
        partial = ready_file.with_name(f".{ready_file.name}.partial")
        partial.write_text(server.address + "\n", encoding="ascii")
        partial.replace(ready_file)
    # A parent that went away must not take the stage with it.
    with contextlib.suppress(BrokenPipeError):
        print(f"dubstage {server.stage} listening on {server.address}", flush=True)


async def _in_daemon_thread(function: Callable[[], None]) -> None:
    # Not the loop's executor, whose threads the interpreter joins: a stop in mid-load need not wait for the load.
    done: Future[None] = Future()

    def run() -> None:
        try:
            function()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    # It cannot be called off, and a result that nobody awaits any more does no harm.
    done.set_running_or_notify_cancel()
    threading.Thread(target=run, name="warm-up", daemon=True).start()
    await asyncio.wrap_future(done)
