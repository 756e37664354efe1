"""`dubstage batch`: dub the shots of a manifest, on this machine, in a cluster, or by any farm manager."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from gateway.batch.changes import record_change
from gateway.batch.store import Engine, open_batches
from gateway.cli import options
from gateway.cli.app import app
from gateway.cli.batch_change import cancel_shots, remove_batch, retry_shots
from gateway.cli.batch_manifest import checked_manifest
from gateway.cli.batch_run import index_of, run_row
from gateway.cli.batch_show import STATES, show_batches, show_json, show_status, states_named
from gateway.cli.batch_submit import EngineOptions, check_engine_options, submit_manifest
from gateway.cli.batch_watch import watch_batch
from gateway.cli.console import say_result

commands = typer.Typer(no_args_is_help=True, help="Dub the shots of a manifest: each once, whatever dies meanwhile.")
app.add_typer(commands, name="batch")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the batch (`dubstage batch list`).")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of the shots.")]
Workers = Annotated[
    int,
    typer.Option(
        min=0,
        max=10_000,
        metavar="NUMBER",
        help="Shots at the same time: worker processes, or pods. 0: as many as the cores allow, or as the cluster's settings say.",
    ),
]


@commands.command("submit")
def submit(
    manifest: Annotated[
        Path, typer.Argument(metavar="SHOTS", help="Manifest: JSON lines, one shot a line. Paths are relative to its folder.")
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the batch. Default: made from the name of the manifest.")
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="local|kubernetes|farm",
            help="Who runs the workers: this command, Jobs of a Kubernetes cluster, or a farm manager of yours that runs "
            "`dubstage batch run`.",
        ),
    ] = "local",
    workers: Workers = 0,
    stages: options.Stages = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check",
            help="Look for the files and actors of the rows. --no-check suits files and actors that only the workers reach.",
        ),
    ] = True,
    namespace: Annotated[
        str, typer.Option(metavar="NAME", help="Namespace of the cluster. Default: that of the current context or of this pod.")
    ] = "",
    context: Annotated[str, typer.Option(metavar="NAME", help="Context of the kubeconfig. Default: the current context.")] = "",
    profile: Annotated[str, typer.Option(metavar="cpu|gpu", help="Kind of the pods, as the chart's settings name them.")] = "",
    config_map: Annotated[
        str, typer.Option(metavar="NAME", help="ConfigMap with the chart's settings of batches. Default: dubstage-batch.")
    ] = "",
) -> None:
    """Check the manifest SHOTS whole, and dub its shots. The same command again goes on with the shots that are left."""
    chosen = EngineOptions(engine, workers, stages, namespace, context, profile, config_map)
    kind: Engine = check_engine_options(chosen)
    settings = options.gateway_settings(stages)
    store = open_batches(settings)
    raise typer.Exit(submit_manifest(settings, store, checked_manifest(settings, manifest, name, check=check), kind, chosen))


@commands.command("list")
def list_all() -> None:
    """List all batches."""
    show_batches(open_batches(options.gateway_settings()))


@commands.command("status")
def status(
    name: Name,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help=f"Show these shots only: {', '.join(STATES)}. May be given several times."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the batch and all its shots as JSON.")] = False,
) -> None:
    """Show the shots of a batch, and how many are done, failed and left."""
    states = states_named(only or [])
    store = open_batches(options.gateway_settings())
    (show_json if json else show_status)(store, name, states)


@commands.command("watch")
def watch(name: Name) -> None:
    """Show the progress of a batch until every shot has ended. The exit code is 0 if no shot failed."""
    raise typer.Exit(watch_batch(open_batches(options.gateway_settings()), name))


@commands.command("cancel")
def cancel(name: Name, ids: Ids = None) -> None:
    """Cancel shots of a batch, or all that have not ended."""
    settings = options.gateway_settings()
    cancel_shots(open_batches(settings), name, ids or [])
    record_change(settings, "cancelled", name, ids or [])


@commands.command("retry")
def retry(name: Name, ids: Ids = None, workers: Workers = 0, stages: options.Stages = None) -> None:
    """Dub shots of a batch again: those named, or all that failed or were cancelled."""
    settings = options.gateway_settings(stages)
    raise typer.Exit(retry_shots(settings, open_batches(settings), name, ids or [], workers, stages))


@commands.command("remove")
def remove(
    name: Name,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Remove the batch although cancelled shots count as running, because their workers were killed. Safe if no worker "
            "of the batch runs any more, on any machine.",
        ),
    ] = False,
) -> None:
    """Remove the rows, the records and the pictures of a batch whose shots have all ended. The films stay."""
    settings = options.gateway_settings()
    remove_batch(settings, open_batches(settings), name, force=force)
    record_change(settings, "removed", name)


@commands.command("report")
def report(
    name: Name,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Folder of the report: a new folder, an empty folder, or the folder of an older report."
        ),
    ],
) -> None:
    """Write a report of a batch: an HTML page with a row for each shot, and the same as CSV and JSON."""
    from gateway.batch.report import write_report

    store = open_batches(options.gateway_settings())
    facts, shots, records = store.facts(name), store.manifest(name), store.records(name)
    say_result(str(write_report(facts, shots, records, partial(store.thumbnail, name), folder)))


@commands.command("run")
def run(
    batch: Annotated[
        str, typer.Argument(metavar="SHOTS|NAME", help="Manifest of the batch, or name of a batch that was submitted.")
    ],
    index: Annotated[int | None, typer.Option(min=0, metavar="NUMBER", help="Row of the shot, from 0.")] = None,
    index_from: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE",
            help="Variable of the environment that holds the index. Default: JOB_COMPLETION_INDEX or SLURM_ARRAY_TASK_ID.",
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="RANGES", help="Rows that the index counts, such as 0-9999,12: index 3 means the fourth of these rows."
        ),
    ] = None,
    stages: options.Stages = None,
) -> None:
    """Dub one shot of a batch, as a worker of a farm does. The exit code says whether to try again.

    0: done. 10: wrong input. 11: a person must change something first. 12: an error of dubstage. 20: try again. 130: interrupted.
    """
    settings = options.gateway_settings(stages)
    raise typer.Exit(run_row(settings, open_batches(settings), batch, index_of(index, index_from), rows))
