"""`python -m tests.drill`: a batch of real shots while everything dies once, against the same batch undisturbed."""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated

import grpc
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dubstage.client.names import resource_id
from dubstage.gateway.v1 import batch_pb2 as pb
from gateway.provenance.binding import media_sha256
from tests.drill.batches import Batches
from tests.drill.faults import FAULTS
from tests.drill.platform import Platform
from tests.drill.report import Outcome, ShotResult, Strike, write_report
from tests.drill.shots import Cut, cut_shots

_STRIKES = 0.75
"""Part of the undisturbed time over which the faults are spread, so that the last fault strikes before the batch ends."""
console = Console(soft_wrap=True, highlight=False)
QUIET, DRILL = "quiet", "drill"
_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class Striker(threading.Thread):
    """Makes every fault happen once, in a random order and at random moments, while the batch runs."""

    def __init__(self, platform: Platform, outcome: Outcome, every_s: float) -> None:
        super().__init__(daemon=True)
        self.ended = 0
        self.over = threading.Event()
        self._platform, self._outcome, self._every_s = platform, outcome, every_s

    def run(self) -> None:
        """Strike until all faults have happened, or until the batch is over."""
        choose = random.Random(self._outcome.seed)
        began = time.monotonic()
        faults = choose.sample(FAULTS, len(FAULTS))
        for number, fault in enumerate(faults):
            if self.over.wait(self._every_s * choose.uniform(0.5, 1.5)):
                self._outcome.missed += [one.name for one in faults[number:]]
                return
            at_s, ended = time.monotonic() - began, self.ended
            hit = fault.strike(self._platform)
            self._outcome.strikes.append(Strike(round(at_s, 1), fault.name, hit, ended))
            console.print(f"{at_s:6.0f} s  {fault.name}: {hit}")


def main(
    clips: Annotated[list[Path], typer.Argument(help="Clips of people who speak, with sound.", exists=True, dir_okay=False)],
    shots: Annotated[int, typer.Option(help="Number of shots.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the moments and of the order of the faults.")] = 1,
    output: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("out/drill"),
) -> None:
    """Dub a batch twice, the second time under faults; exit 1 if a shot is not done with the same bytes."""
    outcome = Outcome(seed)
    with tempfile.TemporaryDirectory(prefix="dubstage-drill-", ignore_cleanup_errors=True) as name:
        with Platform(Path(name)) as platform, grpc.insecure_channel(platform.target, options=_OPTIONS) as channel:
            cuts = cut_shots(clips, platform.media, shots)
            batches = Batches(channel)
            outcome.quiet_s = _dubbed(batches, QUIET, cuts, outcome, None)
            striker = Striker(platform, outcome, _STRIKES * outcome.quiet_s / len(FAULTS))
            outcome.drill_s = _dubbed(batches, DRILL, cuts, outcome, striker)
            _compare(platform, batches, cuts, outcome)
        _keep_logs(Path(name) / "run", output)
    page = write_report(outcome, output)
    console.print(f"{'passed' if outcome.good else 'FAILED'}: {page}")
    sys.exit(0 if outcome.good else 1)


def _dubbed(batches: Batches, name: str, cuts: list[Cut], outcome: Outcome, striker: Striker | None) -> float:
    """Dub the batch to its end, and return the time, seconds. Failed shots of the disturbed batch are retried once."""
    began = time.monotonic()
    with Progress(TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task(name, total=len(cuts))

        def on_progress(ended: int, _: int) -> None:
            progress.update(task, completed=ended)
            if striker is not None:
                striker.ended = ended

        batches.submit(name, cuts)
        if striker is not None:
            striker.start()
        found = batches.wait(name, on_progress)
        if striker is not None:
            striker.over.set()
            striker.join()
            if found.num_failed:
                outcome.retried = {
                    resource_id(one.name): one.error for one in batches.shots(name) if one.state == pb.SHOT_STATE_FAILED
                }
                batches.retry(name)
                batches.wait(name, on_progress)
        elif found.num_done != len(cuts):
            raise SystemExit("\n".join(f"{resource_id(one.name)}: {one.error}" for one in batches.shots(name) if one.error))
    return time.monotonic() - began


def _compare(platform: Platform, batches: Batches, cuts: list[Cut], outcome: Outcome) -> None:
    for shot in batches.shots(DRILL):
        quiet, disturbed = (platform.media / name / f"{resource_id(shot.name)}.mp4" for name in (QUIET, DRILL))
        # The signed manifest of a video holds random salts.
        same = (
            quiet.is_file()
            and disturbed.is_file()
            and media_sha256(quiet) == media_sha256(disturbed)
            and hashlib.sha256(disturbed.read_bytes()).hexdigest() == shot.output_sha256
        )
        state = pb.ShotState.Name(shot.state).removeprefix("SHOT_STATE_")
        outcome.shots.append(ShotResult(resource_id(shot.name), shot.attempts, state, same, shot.error))
    known = {platform.media / cut.footage for cut in cuts}
    known |= {platform.media / name / f"{cut.id}.mp4" for cut in cuts for name in (QUIET, DRILL)}
    outcome.left = sorted(
        str(path.relative_to(platform.media)) for path in platform.media.rglob("*") if path.is_file() and path not in known
    )


def _keep_logs(run: Path, output: Path) -> None:
    logs = output / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    for log in run.glob("*.log"):
        (logs / log.name).write_bytes(log.read_bytes())


if __name__ == "__main__":
    typer.run(main)
