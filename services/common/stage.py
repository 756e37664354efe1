"""What a stage consists of, however it is run: behind a server of its own, or inside another process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client.registry import Collector

from services.common.limits import WorkerPool
from services.common.server import Register, StageServer
from services.common.settings import StageSettings


@dataclass(frozen=True, slots=True)
class StageParts:
    """The composed stage.

    Attributes:
        servicer: implements the stage's RPCs.
        register: adds it to a server.
        services: full names of its services.
        warm_up: loads models and runs them once; blocks.
        workers: pools that it computes in.
        is_serving: whether what it computes with still works, asked twice a second; must not block. None: always.
        collectors: Prometheus metrics of its own.
        close: lets go of what it holds outside this process; called once, after the last call.
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
    """The stage behind a server of its own."""
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
