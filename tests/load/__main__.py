"""`python -m tests.load`: load on one gateway. `live`: live streams of two tenants and a batch. `http`: mixed calls over HTTP."""

from __future__ import annotations

import random
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dubstage.client import batch, connect
from dubstage.client import gateway as client
from dubstage.client.names import resource_id
from dubstage.gateway.v1 import batch_pb2 as pb
from research.bench.runs import SAMPLE_RATE_HZ, read_sound
from services.common.server.call_context import DEFAULT_TENANT
from tests.drill.shots import cut_shots
from tests.hostile.footage import carphone
from tests.load.callers import Caller, Tenant
from tests.load.http_callers import FILE, FILE_BYTES, HttpLoad, call
from tests.load.platform import Gateway
from tests.load.report import HttpOutcome, Outcome, write_http_report, write_report

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(soft_wrap=True, highlight=False)
FOOTAGE, ACTOR, BATCH = "person.mp4", "person", "load"
ENROL_S = 900.0
CLEAR_S = 60.0
"""Seconds in which calls end whose callers have gone."""


@app.command()
def live(
    clip: Annotated[Path, typer.Argument(help="Clip of a person who speaks, with sound.", exists=True, dir_okay=False)],
    seconds: Annotated[float, typer.Option(help="Seconds in which streams begin.", min=10, max=3600)] = 120.0,
    stream: Annotated[float, typer.Option(help="Seconds of speech of a stream.", min=1, max=600)] = 10.0,
    greedy: Annotated[int, typer.Option(help="Streams that the first tenant wants at the same time.", min=1, max=64)] = 6,
    modest: Annotated[int, typer.Option(help="Streams that the second tenant wants at the same time.", min=1, max=64)] = 2,
    shots: Annotated[int, typer.Option(help="Shots of two seconds in the batch.", min=1, max=1000)] = 4,
    most_live: Annotated[int, typer.Option(help="DUBSTAGE_MAX_LIVE_STREAMS of the gateway.", min=1, max=1024)] = 8,
    output: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("out/load"),
) -> None:
    """Load a gateway with live streams; exit 1 if another error than RESOURCE_EXHAUSTED came, or another claim does not hold."""
    # An end of this process is an end of the gateway, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tenants = [Tenant(DEFAULT_TENANT, secrets.token_hex(16), greedy), Tenant("modest", secrets.token_hex(16), modest)]
    outcome = Outcome(seconds, {tenant.name: tenant.callers for tenant in tenants})
    with tempfile.TemporaryDirectory(prefix="dubstage-load-", ignore_cleanup_errors=True) as name:
        gateway = Gateway(Path(name), tenants, most_live)
        with gateway:
            for tenant in tenants:
                _enrol(gateway, tenant, clip)
                console.print(f"{tenant.name}: enrolled")
            gateway.memory_mib.clear()
            _load(gateway, tenants, clip, stream, shots, outcome)
        outcome.log_errors = _log_errors(gateway, output)
    page = write_report(outcome, output)
    console.print(f"{'passed' if outcome.good else 'FAILED'}: {page}")
    sys.exit(0 if outcome.good else 1)


@app.command()
def http(
    minutes: Annotated[float, typer.Option(help="Minutes in which callers call.", min=0.5, max=1440)] = 30.0,
    seed: Annotated[int, typer.Option(help="Seed of the callers.")] = 1,
    output: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("out/load"),
) -> None:
    """Load a gateway over HTTP; exit 1 if a wrong answer came, memory grew, a call was left, or an honest caller was locked out."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tenants = [Tenant(DEFAULT_TENANT, secrets.token_hex(16), 0), Tenant("modest", secrets.token_hex(16), 0)]
    port, metrics_port = _free_port(), _free_port()
    with tempfile.TemporaryDirectory(prefix="dubstage-load-", ignore_cleanup_errors=True) as name:
        gateway = Gateway(Path(name), tenants, 1, http_port=port, metrics_port=metrics_port)
        with gateway:
            operations = {}
            for tenant in tenants:
                uploads = gateway.media_of(tenant) / "uploads"
                uploads.mkdir(exist_ok=True)
                (uploads / FILE).write_bytes(random.Random(seed).randbytes(FILE_BYTES))
                operations[tenant.name] = _ended_operation(port, tenant, gateway.media_of(tenant))
            load = HttpLoad(port, tenants, operations, seed)
            console.print(f"calls for {minutes:g} minutes")
            # Caches and pools fill first.
            load.run(min(120.0, 15 * minutes))
            gateway.memory_mib.clear()
            load = HttpLoad(port, tenants, operations, seed + 1)
            load.run(60 * minutes)
            outcome = HttpOutcome(60 * minutes, load.seen, list(gateway.memory_mib))
            outcome.calls_left = _calls_left(metrics_port)
        outcome.log_errors = _log_errors(gateway, output)
    page = write_http_report(outcome, output)
    console.print(f"{'passed' if outcome.good else 'FAILED'}: {page}")
    sys.exit(0 if outcome.good else 1)


def _ended_operation(port: int, tenant: Tenant, media: Path) -> str:
    """Return the name of an operation that has ended, whose events callers watch."""
    shutil.copy(carphone(), media / FOOTAGE)
    status, begun = call(port, tenant.token, "POST", "/v1/faces:detect", {"footageUri": FOOTAGE})
    if status != 200:
        raise SystemExit(f"the gateway detects no faces: HTTP {status} {begun}")
    deadline = time.monotonic() + ENROL_S
    while not call(port, tenant.token, "GET", f"/v1/{begun['name']}")[1]["done"]:
        if time.monotonic() > deadline:
            raise SystemExit(f"{begun['name']} did not end within {ENROL_S:g} s")
        time.sleep(1)
    return str(begun["name"])


def _calls_left(metrics_port: int) -> int:
    """Return the number of calls that run in the gateway although all callers have gone, CLEAR_S after the last one or earlier."""
    deadline = time.monotonic() + CLEAR_S
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        running = [line for line in lines if line.startswith("dubstage_rpcs_in_flight{") and "/Watch" not in line]
        left = int(sum(float(line.rpartition(" ")[2]) for line in running))
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _log_errors(gateway: Gateway, output: Path) -> list[str]:
    """Keep the gateway's log, and return its lines with an error or a traceback."""
    output.mkdir(parents=True, exist_ok=True)
    shutil.copy(gateway.log, output / "gateway.log")
    log = gateway.log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in log if "[error" in line or line.startswith("Traceback")]


def _enrol(gateway: Gateway, tenant: Tenant, clip: Path) -> None:
    shutil.copy(clip, gateway.media_of(tenant) / FOOTAGE)
    with connect(gateway.target, token=tenant.token, timeout_s=ENROL_S) as connection:
        client.enrol(connection, footage=FOOTAGE, actor_id=ACTOR, personalize=False).wait(timeout_s=ENROL_S)


def _load(gateway: Gateway, tenants: list[Tenant], clip: Path, stream_s: float, shots: int, outcome: Outcome) -> None:
    cuts = cut_shots([clip], gateway.media_of(tenants[0]), shots)
    rows = [
        batch.row(cut.id, footage=cut.footage, output=f"videos/{cut.id}.mp4", method=cut.method, personalize=False) for cut in cuts
    ]
    speech, over = (read_sound(clip), SAMPLE_RATE_HZ), threading.Event()
    callers = [
        # One caller of the tenant that wants most reads slowly: only that caller may notice.
        Caller(gateway.target, tenant, ACTOR, speech, stream_s, over, slow=tenant is tenants[0] and number == 0)
        for tenant in tenants
        for number in range(tenant.callers)
    ]
    with connect(gateway.target, token=tenants[0].token, timeout_s=ENROL_S) as connection:
        batch.submit(connection, BATCH, rows=rows)
        for caller in callers:
            caller.start()
        console.print(f"{len(callers)} callers and {len(cuts)} shots for {outcome.seconds:g} s")
        over.wait(outcome.seconds)
        over.set()
        for caller in callers:
            caller.join(ENROL_S)
            outcome.told.append(caller.told)
        # Before the rest of the batch, which has the processors for itself.
        outcome.memory_mib = list(gateway.memory_mib)
        for found in batch.watch(connection, BATCH):
            console.print(f"shots done: {found.progress.num_done} of {found.num_shots}")
        for shot in batch.list_shots(connection, BATCH):
            state = pb.ShotState.Name(shot.state).removeprefix("SHOT_STATE_")
            outcome.shots.append(f"{resource_id(shot.name)}{f' ({shot.error})' if shot.error else ''}: {state}")


if __name__ == "__main__":
    app()
