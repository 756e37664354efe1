"""Faults of the drill, one after the other."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from gateway.stages.interface import STAGE_NAMES
from tests.drill.platform import DATABASE, GATEWAYS, Platform

REFUSES_S = 10.0
FULL_S = 10.0
_STUB = "triton_python_backend_stub"


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: what happens, for the report.
        strike: makes the fault happen, and returns what was hit. Blocks while the fault lasts.
    """

    name: str
    strike: Callable[[Platform], str]


def _kill(server: str, platform: Platform) -> str:
    pid = platform.servers[server].pid
    platform.servers[server].kill()
    return f"process {pid}"


def _kill_models(platform: Platform) -> str:
    """Kill the processes in which Triton runs the networks; the server itself goes on."""
    server = psutil.Process(platform.servers["triton"].pid)
    stubs = [child for child in server.children(recursive=True) if child.name().startswith(_STUB[:15])]
    for stub in stubs:
        stub.kill()
    return f"{len(stubs)} processes of models"


def _drop_connections(platform: Platform) -> str:
    rows = platform.postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{DATABASE}'")
    return f"{len(rows)} connections"


def _refuse_blobs(platform: Platform) -> str:
    platform.store.cut()
    time.sleep(REFUSES_S)
    platform.store.heal()
    return f"for {REFUSES_S:g} s"


def _fill_disk(platform: Platform) -> str:
    gateway = GATEWAYS[-1]
    # The disk is seen by this process alone.
    folder = Path(f"/proc/{platform.servers[gateway].pid}/root{platform.data_of(gateway)}")
    filler = folder / "filler"
    written = 0
    try:
        with filler.open("wb", buffering=0) as file:
            while True:
                written += file.write(b"\0" * (1 << 20))
    except OSError as problem:
        if problem.errno != errno.ENOSPC:
            raise
    time.sleep(FULL_S)
    filler.unlink(missing_ok=True)
    return f"{written >> 20} MiB for {FULL_S:g} s"


FAULTS = (
    *(Fault(f"SIGKILL {name}", partial(_kill, name)) for name in (*STAGE_NAMES, *GATEWAYS, "triton")),
    Fault("SIGKILL the models of Triton", _kill_models),
    Fault("PostgreSQL drops all connections", _drop_connections),
    Fault("S3 refuses", _refuse_blobs),
    Fault("the disk of gateway-b is full", _fill_disk),
)
