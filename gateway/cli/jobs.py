"""`dubstage jobs`: list and remove the files of failed and interrupted jobs, and kept analyses of footage."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from gateway.actors.store import ActorStore
from gateway.cli.app import command_group
from gateway.cli.console import say, say_json, say_result, wants_json
from gateway.cli.options import AsJson, gateway_settings
from gateway.cli.values import parse_age, parse_size, shown_age, shown_size
from gateway.dub.state.removal import BLOBS_PER_LOCK, RemovalReport
from gateway.dub.state.workspace import JOBS
from gateway.housekeeping import (
    LEAST_BLOB_AGE_S,
    JobFolder,
    JobLimits,
    find_job,
    list_jobs,
    open_jobs_folder,
    remove_jobs,
    uncounted_blobs,
)
from gateway.settings import GatewaySettings
from gateway.times import DAY_S
from services.common.errors import InvalidRequestError, StorageRefusedError, WorkCancelledError
from services.common.store.artefacts import ArtefactRef, ArtefactStore

commands = command_group("jobs", "List and remove the files of failed and interrupted jobs, and kept analyses of footage.")

_LINE: Final = "{:<14}{:<9}{:<18}{:>6}{:>10}{:>7}{:>10}  {:<9}{}"
_SHOWN_DIGITS: Final = 12


@commands.command("list")
def list_all(_: AsJson = False) -> None:
    """List all jobs on disk, those used most recently at the end. A finished dub leaves the analysis of its footage."""
    jobs = list_jobs(gateway_settings().data_dir / JOBS, _say_unreadable)
    if wants_json():
        say_json({"jobs": [_facts(job) for job in jobs]})
        return
    if not jobs:
        say("no jobs on disk")
        return
    _show(jobs)


@commands.command("show")
def show(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="Key of the job, or the first characters of the key (`dubstage jobs list`).")
    ],
    _: AsJson = False,
) -> None:
    """Print one job as JSON."""
    say_json(_facts(find_job(gateway_settings().data_dir / JOBS, key)))


def _facts(job: JobFolder) -> dict[str, object]:
    return {
        "key": job.key,
        "folder": str(job.folder),
        **job.facts,
        "running": job.running,
        "lastUsed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(job.last_used)),
        "folderBytes": job.folder_bytes,
        "finishedSteps": len(job.steps),
        "finishedStepsBytes": job.step_bytes,
    }


@commands.command("clean")
def clean(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY]...", help="Keys of the jobs, or the first characters of the keys.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Choose jobs that were not used for this long, such as 12h or 7d.")
    ] = None,
    larger_than: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Choose jobs that take more space than this on disk and in the artefact store, such as 500M or 10G.",
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Choose all jobs that are not running.")] = False,
    blobs: Annotated[
        bool,
        typer.Option(
            "--blobs",
            help="Remove blobs of the artefact store that no actor and no job refers to, instead of jobs. Needs --older-than. "
            "Blobs that other services made by calling the stages are removed too.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    _: AsJson = False,
) -> None:
    """Remove jobs and their blobs. Running jobs are kept. If the same dub is requested again, it starts from the beginning."""
    age = parse_age(older_than, "--older-than") if older_than is not None else None
    size = parse_size(larger_than, "--larger-than") if larger_than is not None else None
    settings = gateway_settings()
    if blobs:
        if age is None or keys or everything or size is not None:
            raise InvalidRequestError("--blobs needs --older-than AGE and takes no KEY, --larger-than or --all", field="blobs")
        _clean_blobs(settings, age, dry_run=dry_run, yes=yes)
        return
    if not keys and not everything and age is None and size is None:
        raise InvalidRequestError("no jobs were chosen: give KEY, --older-than AGE, --larger-than SIZE or --all", field="key")
    _clean_jobs(settings, keys or [], JobLimits(older_than_s=age, larger_than=size), dry_run=dry_run, yes=yes)


def _clean_jobs(settings: GatewaySettings, keys: list[str], limits: JobLimits, *, dry_run: bool, yes: bool) -> None:
    folder = open_jobs_folder(settings.data_dir)
    jobs = (
        list({job.key: job for job in (find_job(folder, key) for key in keys)}.values())
        if keys
        else list_jobs(folder, _say_unreadable)
    )
    for job in jobs:
        if keys and job.running:
            say(f"{job.key} is running: the job is kept")
    chosen = [job for job in jobs if limits.meets(job, time.time())]
    if not chosen:
        say("there is nothing to remove")
        _say_freed()
        return
    _show(chosen)
    if dry_run or not _agreed(f"remove {len(chosen)} jobs", yes=yes):
        _say_freed(jobs=chosen)
        return
    total, removed = RemovalReport(), []
    with ActorStore(settings) as actors:
        for job, freed in remove_jobs(chosen, actors, ArtefactStore(settings.artefacts_url)):
            if freed is None:
                say(f"{job.key} is running: the job is kept")
            else:
                total += freed
                removed.append(job)
    say_result(
        f"freed {shown_size(total.folder_bytes)} on disk, and {total.blobs} blobs ({shown_size(total.blob_bytes)}) in the artefact "
        "store"
    )
    _say_freed(total.folder_bytes, total.blob_bytes, removed)


def _clean_blobs(settings: GatewaySettings, older_than_s: float, *, dry_run: bool, yes: bool) -> None:
    if older_than_s < LEAST_BLOB_AGE_S:
        raise InvalidRequestError(
            "--blobs needs --older-than of at least 1d: younger blobs may belong to running work", field="older_than"
        )
    store = ArtefactStore(settings.artefacts_url)
    with ActorStore(settings) as actors:
        blobs = list(uncounted_blobs(open_jobs_folder(settings.data_dir), actors, store, older_than_s=older_than_s))
        size = sum(blob.ref.size_bytes for blob in blobs)
        say(f"{len(blobs)} blobs of {shown_size(size)} older than {shown_age(older_than_s)} belong to no actor and no job")
        if dry_run or not blobs or not _agreed(f"remove {len(blobs)} blobs from {store.url}", yes=yes):
            _say_freed(blobs=[blob.ref for blob in blobs])
            return
        # The jobs are counted again: somebody may have thought about the answer for an hour.
        deleted, refs = [], [blob.ref for blob in blobs]
        for begin in range(0, len(refs), BLOBS_PER_LOCK):
            with actors.jobs.unused(refs[begin : begin + BLOBS_PER_LOCK]) as unused:
                deleted += [ref for ref in unused if store.delete(ref)]
    freed = sum(ref.size_bytes for ref in deleted) + store.remove_partials(time.time() - DAY_S)
    say_result(f"freed {shown_size(freed)} in the artefact store")
    _say_freed(blob_bytes=freed, blobs=deleted)


def _say_freed(
    folder_bytes: int = 0,
    blob_bytes: int = 0,
    jobs: Sequence[JobFolder] = (),
    blobs: Sequence[ArtefactRef] | None = None,
) -> None:
    """Print with --json how many bytes a cleaning has freed on disk and in the artefact store.

    Args:
        jobs: the jobs that were removed, or that a dry run would remove.
        blobs: the blobs that were removed, or that a dry run would remove; None: jobs were to be removed.
    """
    if not wants_json():
        return
    chosen: dict[str, object] = {"jobs": [_facts(job) for job in jobs]}
    if blobs is not None:
        chosen["blobs"] = [{"sha256": ref.sha256, "uri": ref.uri, "sizeBytes": ref.size_bytes} for ref in blobs]
    say_json({**chosen, "freedFolderBytes": folder_bytes, "freedBlobBytes": blob_bytes})


def _agreed(what: str, *, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise InvalidRequestError(f"{what}? There is no terminal to ask at: give --yes to remove without asking", field="yes")
    try:
        agreed = typer.confirm(f"{what}?", err=True)
    except typer.Abort:
        say("")  # Ctrl-C and Ctrl-D do not end the line of the question
        agreed = False
    if not agreed:
        raise WorkCancelledError("nothing was removed")
    return True


def _say_unreadable(problem: StorageRefusedError) -> None:
    say(problem)


def _show(jobs: list[JobFolder]) -> None:
    """Print one line per job. Names may be long, so they are at the end of the line."""
    now = time.time()
    say_result(_LINE.format("job", "what", "started", "used", "on disk", "steps", "in store", "", "footage, actor").rstrip())
    for job in jobs:
        line = _LINE.format(
            job.key[:_SHOWN_DIGITS],
            job.fact("kind"),
            job.fact("started")[:16].replace("T", " "),
            shown_age(now - job.last_used),
            shown_size(job.folder_bytes),
            len(job.steps),
            shown_size(job.step_bytes),
            "running" if job.running else "",
            ", ".join(name for name in (job.fact("footage"), job.fact("actor")) if name),
        )
        say_result(line.rstrip())
