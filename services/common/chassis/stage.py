"""Parts of a stage, which runs behind a server of its own or inside another process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client.registry import Collector

from services.common.chassis.limits import WorkerPool
from services.common.chassis.process import run_stage
from services.common.chassis.server import Register, StageServer
from services.common.chassis.settings import StageSettings, load_settings
from services.common.errors import DubstageError

Settings = TypeVar("Settings", bound=StageSettings)


@dataclass(frozen=True, slots=True)
class StageParts:
    """Parts of a composed stage.

    Attributes:
        servicer: implements the stage's RPCs.
        register: adds the servicer to a server.
        services: full names of the stage's gRPC services.
        warm_up: loads models and runs them once; blocks.
        workers: pools in which the stage computes.
        is_serving: returns whether the stage can compute. It is asked twice per second and must not block. None: always.
        collectors: Prometheus metrics of the stage's own.
        close: releases what the stage holds outside this process; called once, after the last call.
    """

    servicer: object
    register: Register
    services: tuple[str, ...]
    warm_up: Callable[[], None]
    workers: tuple[WorkerPool, ...]
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
