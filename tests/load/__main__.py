"""`python -m tests.load`: live streams of two tenants and a batch at the same time, on one gateway."""

from __future__ import annotations

import secrets
import shutil
import signal
import sys
import tempfile
import threading
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
from tests.load.callers import Caller, Tenant
from tests.load.platform import Gateway
from tests.load.report import Outcome, write_report

console = Console(soft_wrap=True, highlight=False)
FOOTAGE, ACTOR, BATCH = "person.mp4", "person", "load"
ENROL_S = 900.0


def main(
    clip: Annotated[Path, typer.Argument(help="Clip of a person who speaks, with sound.", exists=True, dir_okay=False)],
    seconds: Annotated[float, typer.Option(help="Seconds in which streams begin.", min=10, max=3600)] = 120.0,
    stream: Annotated[float, typer.Option(help="Seconds of speech of a stream.", min=1, max=600)] = 10.0,
    greedy: Annotated[int, typer.Option(help="Streams that the first tenant wants at the same time.", min=1, max=64)] = 6,
    modest: Annotated[int, typer.Option(help="Streams that the second tenant wants at the same time.", min=1, max=64)] = 2,
    shots: Annotated[int, typer.Option(help="Shots of two seconds in the batch.", min=1, max=1000)] = 4,
    most_live: Annotated[int, typer.Option(help="DUBSTAGE_MAX_LIVE_STREAMS of the gateway.", min=1, max=1024)] = 8,
    output: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("out/load"),
) -> None:
    """Load a gateway; exit 1 if another error than RESOURCE_EXHAUSTED came, or memory, fairness, frames or the batch failed."""
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
        output.mkdir(parents=True, exist_ok=True)
        shutil.copy(gateway.log, output / "gateway.log")
        log = gateway.log.read_text(encoding="utf-8", errors="replace").splitlines()
        outcome.log_errors = [line for line in log if "[error" in line or line.startswith("Traceback")]
    page = write_report(outcome, output)
    console.print(f"{'passed' if outcome.good else 'FAILED'}: {page}")
    sys.exit(0 if outcome.good else 1)


def _enrol(gateway: Gateway, tenant: Tenant, clip: Path) -> None:
    shutil.copy(clip, gateway.media_of(tenant) / FOOTAGE)
    with connect(gateway.target, token=tenant.token, timeout_s=ENROL_S) as connection:
        client.enrol(connection, footage=FOOTAGE, actor_id=ACTOR, skip_personalization=True).wait(timeout_s=ENROL_S)


def _load(gateway: Gateway, tenants: list[Tenant], clip: Path, stream_s: float, shots: int, outcome: Outcome) -> None:
    cuts = cut_shots([clip], gateway.media_of(tenants[0]), shots)
    rows = [
        batch.row(cut.id, footage=cut.footage, output=f"videos/{cut.id}.mp4", method=cut.method, skip_personalization=True)
        for cut in cuts
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
    typer.run(main)
