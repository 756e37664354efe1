"""`python -m tests.hostile`: the campaign, with a report in out/hostile."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.hostile.campaign import Campaign
from tests.hostile.case import Case, Outcome
from tests.hostile.footage import astronaut, carphone
from tests.hostile.plan import SURFACES, cases
from tests.hostile.report import KINDS, write_report
from tests.hostile.world import World

console = Console(soft_wrap=True, highlight=False)
PLAIN_LINE_EVERY = 250
"""Cases between two lines of progress where there is no terminal."""


def main(
    count: Annotated[int, typer.Option("--cases", help="Number of cases.", min=1)] = 10_000,
    first: Annotated[int, typer.Option(help="Number of the first case.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the generated cases.")] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"Surface of the cases: {', '.join(SURFACES)}. May be given several times. Default: all."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Cases that run at once.", min=1)] = 3,
    output: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("out/hostile"),
) -> None:
    """Run hostile cases against the command line, the stages and the gateway; exit 1 if anything is found."""
    if unknown := set(only or ()) - set(SURFACES):
        raise typer.BadParameter(f"{sorted(unknown)[0]!r} is no surface: give {', '.join(SURFACES)}", param_hint="--only")
    with (
        tempfile.TemporaryDirectory(prefix="dubstage-hostile-", ignore_cleanup_errors=True) as folder,
        World(Path(folder), carphone(), astronaut()) as world,
        _progress() as progress,
    ):
        task = progress.add_task("cases", total=count, found=0)
        campaign: Campaign

        def on_case(case: Case, outcome: Outcome) -> None:
            result = campaign.result
            progress.update(task, advance=1, found=len(result.findings))
            if not console.is_terminal and result.cases % PLAIN_LINE_EVERY == 0:
                console.print(f"{result.cases} of {count} cases, {len(result.findings)} findings")
            for fault in outcome.faults:
                progress.console.print(escape(f"{case.number} {case.surface} | {case.name} | {fault.kind}: {fault.seen[:200]!r}"))

        campaign = Campaign(world, seed, workers=workers, on_case=on_case)
        campaign.run(cases(count, seed, first=first, only=only or ()))
        result = campaign.result
    page = write_report(result, output)
    counts = result.kinds()
    console.print(
        f"{result.cases} cases, {result.named_errors} named errors, {', '.join(f'{counts[kind]} {kind}' for kind in KINDS)}"
    )
    console.print(
        f"{result.warm_bytes >> 20} MiB warm, {result.peak_bytes >> 20} MiB at most, {result.end_bytes >> 20} MiB at the end"
    )
    console.print(str(page))
    sys.exit(1 if result.findings else 0)


def _progress() -> Progress:
    found = TextColumn("{task.fields[found]} findings")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        found,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
