"""Process of a stage, which serves until a signal ends the process, and parts of a stage for this or another process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog
from prometheus_client.registry import Collector

from services.common.errors import DubstageError
from services.common.files import write_whole
from services.common.server import error_status
from services.common.server.limits import WorkerPool
from services.common.server.resources import skip_last_collection, tune_allocator
from services.common.server.server import Register, StageServer
from services.common.server.settings import StageSettings, load_settings
from services.common.server.telemetry import configure_logging

_SWITCH_S: Final = 0.0005
"""Seconds after which a thread that runs Python lets another thread run. With Python's own .005, the event loop waits as long for
each step of a call while another thread parses or computes.
"""

_log = structlog.stdlib.get_logger("dubstage.server")
Settings = TypeVar("Settings", bound=StageSettings)
Loaded = TypeVar("Loaded")


class Once(Generic[Loaded]):
    """Function that calls `load` once, in the thread that comes first, and returns the same object to all threads.

    An error is raised to the caller, and the next call loads again.
    """

    def __init__(self, load: Callable[[], Loaded]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._loaded: tuple[Loaded] | None = None

    def __call__(self) -> Loaded:
        """Return the object. Blocks while `load` runs."""
        with self._lock:
            if self._loaded is None:
                self._loaded = (self._load(),)
            return self._loaded[0]

    async def ready(self) -> Loaded:
        """Return the object: at once if it is there, otherwise from a thread outside the stage's pools, which may be full."""
        return self._loaded[0] if self._loaded is not None else await asyncio.to_thread(self)


async def serve(server: StageServer, settings: StageSettings) -> None:
    """Run a server until SIGTERM or SIGINT, then drain the server. A second signal ends the grace.

    A server that serves prints `dubstage STAGE listening on HOST:PORT` to stdout and writes HOST:PORT to `settings.ready_file`.

    Raises:
        DubstageError: the server could not listen, or the warm-up failed.
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
    """Run a stage until a signal ends the process, and return the exit code.

    Args:
        stage: name for logs.
        build: composes the stage's server; called inside the running event loop.
    """
    tune_allocator()
    sys.setswitchinterval(_SWITCH_S)
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
        # The grace is over. The interpreter's own exit would wait for threads that still compute.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    skip_last_collection()
    return 0


def _give_up(stage: str, error: DubstageError) -> int:
    """Log and print why a stage ends. Return the exit code."""
    _log.error("cannot_serve", **error_status.log_fields(error))
    with contextlib.suppress(BrokenPipeError):
        print(f"dubstage {stage}: {error.message}", file=sys.stderr, flush=True)
    return error.exit_code


def _announce(server: StageServer, ready_file: Path | None) -> None:
    _log.info("serving", stage=server.stage, address=server.address)
    if ready_file is not None:
        write_whole(ready_file, f"{server.address}\n".encode("ascii"))
    # The stage goes on when its parent has closed stdout.
    with contextlib.suppress(BrokenPipeError):
        print(f"dubstage {server.stage} listening on {server.address}", flush=True)


@dataclass(frozen=True, slots=True)
class StageParts:
    """Parts of a composed stage.

    Attributes:
        servicer: implements the stage's RPCs.
        register: adds the servicer to a server.
        services: full names of the stage's gRPC services.
        warm_up: loads all models and runs them once; blocks. Without it, calls load what they need.
        workers: pools in which the stage computes.
        check: checks the files of all models without loading a network; blocks. Called where no warm-up comes.
        is_serving: returns whether the stage can compute. It is asked twice per second and must not block. None: always.
        collectors: Prometheus metrics of the stage's own.
        close: releases what the stage holds outside this process; called once, after the last call.
    """

    servicer: object
    register: Register
    services: tuple[str, ...]
    warm_up: Callable[[], None]
    workers: tuple[WorkerPool, ...]
    check: Callable[[], object] = lambda: None
    is_serving: Callable[[], bool] | None = None
    collectors: tuple[Collector, ...] = ()
    close: Callable[[], None] | None = None


def server_of(stage: str, settings: StageSettings, parts: StageParts) -> StageServer:
    """Return a stage behind a server of its own."""
    return StageServer(
        stage,
        settings,
        register=parts.register,
        services=parts.services,
        warm_up=parts.warm_up,
        workers=parts.workers,
        is_serving=parts.is_serving,
        collectors=parts.collectors,
        close=parts.close,
    )


def main_of(stage: str, kind: type[Settings], compose: Callable[[Settings], StageParts]) -> int:
    """Run a stage's process until a signal ends the process, and return the exit code.

    Args:
        stage: name of the stage.
        kind: the stage's settings, read from the environment.
        compose: returns the stage's parts, not yet warm.
    """
    try:
        settings = load_settings(kind)
    except DubstageError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    return run_stage(settings, stage, lambda _: server_of(stage, settings, compose(settings)))
