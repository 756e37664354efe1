"""`dubstage batch`: dub the shots of a manifest, on this machine, in a cluster, or by any farm manager.

Modules that dub, deliver and read timelines are imported in functions: commands that show a batch need none of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from dubstage.gateway.v1.dub_pb2 import ShotOptions
from gateway.batch.changes import (
    NO_OPTIONS,
    ask_cluster,
    begin_anew,
    cancel,
    check_for_cluster,
    check_options,
    record,
    record_change,
    rejected,
    remove,
    retry_in_cluster,
    review_event,
    revise,
    send_to_cluster,
    submission,
)
from gateway.batch.lists import ShotQuery
from gateway.batch.reviews import Region, ReviewState, Verdict, decision_of, region_from
from gateway.batch.store import BatchStore, open_batches
from gateway.batch.types import WRITTEN, BatchFacts, Engine, Manifest, ShotRecord, ShotState
from gateway.cli import options
from gateway.cli.app import command_group, run_async
from gateway.cli.batch_results import decisions, deliver_command, kitsu
from gateway.cli.batch_watch import (
    POLL_SECONDS,
    SHOWN_SHOTS,
    STATES,
    BatchProgress,
    counts,
    progress_now,
    reviews_named,
    show_batches,
    show_end,
    show_shots,
    show_status,
    states_named,
    watch_batch,
)
from gateway.cli.console import say, say_error, say_json, say_output, say_result, say_to_quiet, say_warning, wants_json
from gateway.cli.progress import StepProgress
from gateway.dub.request.spec_text import CHANGEABLE, options_from
from gateway.settings import GatewaySettings
from gateway.times import now_ms
from services.common.errors import DubstageError, InvalidRequestError

SHOWN_MISTAKES: Final = 50
"""Most mistakes of a manifest that are printed."""
ENGINES: Final[tuple[Engine, ...]] = ("local", "kubernetes", "farm")
"""Engines that the command serves. Batches of the engine `gateway` are submitted to a gateway."""
INDEX_VARIABLES: Final = ("JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID")
"""Variables of the environment that hold the index of a worker: of a Kubernetes Job, and of a Slurm array."""
_NAME: Final = re.compile(r"[a-z0-9-]+")
commands = command_group("batch", "Dub the shots of a manifest: each once, whatever dies meanwhile.")
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
Rate = Annotated[
    str | None,
    typer.Option(
        metavar="RATE", help="Frames per second, such as 25 or 23.976. EDLs need it, because they do not name their rate."
    ),
]
VideoTrack = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Video track, by name or by number from the lowest. Default: the only one that has clips."),
]
Batch = Annotated[str, typer.Argument(metavar="SHOTS|NAME", help="Manifest of the batch, or name of a batch that was submitted.")]


def checked_manifest(settings: GatewaySettings, path: Path, name: str | None, *, check: bool) -> Manifest:
    """Read and check a manifest. If rows have mistakes, print them, at most `SHOWN_MISTAKES`.

    Args:
        name: name of the batch; None: made from the name of the file.
        check: whether to look for the files and the actors of the rows.

    Raises:
        InvalidRequestError: the manifest is wrong. The message says how many mistakes there are.
        StorageRefusedError, BackendUnavailableError: the database of actors, or the store of a URL, cannot be used.
    """
    from gateway.batch.manifest import ActorLookup, manifest_or_mistakes

    if check:
        from gateway.actors.store import ActorStore
        from gateway.batch.worker import words_of

        with ActorStore(settings) as actors:
            look = ActorLookup(actors).method_of
            checked = manifest_or_mistakes(path, name=name, method_of=look, speaks=partial(words_of, settings))
    else:
        checked = manifest_or_mistakes(path, name=name, check_files=False)
    if isinstance(checked, Manifest):
        return checked
    if len(checked) == 1:
        raise InvalidRequestError(checked[0], field="manifest")
    for mistake in checked[:SHOWN_MISTAKES]:
        say_to_quiet(mistake)
    hidden = len(checked) - SHOWN_MISTAKES
    more = f", {hidden} of them not shown" if hidden > 0 else ""
    raise InvalidRequestError(f"{path}: {len(checked)} mistakes{more}; nothing was started", field="manifest")


def run_here(settings: GatewaySettings, store: BatchStore, facts: BatchFacts, workers: int) -> int:
    """Dub the shots of a batch that are left by worker processes of this machine, with progress, and return the exit code.

    Args:
        store: store of batches.
        workers: worker processes; 0: one for each `compute_threads` cores.
    """
    from gateway.batch.expiry import expire_batches
    from gateway.batch.local import run_local

    processes = workers or max(1, len(os.sched_getaffinity(0)) // settings.compute_threads)

    async def work() -> None:
        with BatchProgress(facts.name) as progress:
            shown = asyncio.create_task(_show_progress(store, facts.name, progress))
            try:
                await run_local(settings, store, facts.name, workers=processes)
            finally:
                shown.cancel()
            progress.update(await asyncio.to_thread(progress_now, store, facts.name))

    run_async(work())
    # The next run, or a gateway, tries again. Batches of other engines are left to their gateway.
    with suppress(DubstageError):
        expire_batches(settings, store, lambda name: store.facts(name).engine != "local")
    return show_end(store, facts.name)


async def _show_progress(store: BatchStore, name: str, progress: BatchProgress) -> None:
    """Show the progress of a batch again and again."""
    while True:
        # If the store does not answer, the workers try again or say so.
        with suppress(DubstageError):
            progress.update(await asyncio.to_thread(progress_now, store, name))
        await asyncio.sleep(POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of the command that choose an engine.

    Attributes:
        engine: name of the engine.
        workers: shots at the same time; 0: the engine decides.
        stages: host of running stages, for workers of this machine; None: the stages run in the workers.
        device: device of stages in workers of this machine; None: the settings choose.
        namespace, context, profile, config_map: options of the engine `kubernetes`; empty: its defaults.
    """

    engine: str
    workers: int
    stages: str | None = None
    device: str | None = None
    namespace: str = ""
    context: str = ""
    profile: str = ""
    config_map: str = ""


def check_engine_options(chosen: EngineOptions) -> Engine:
    """Return the engine of the options.

    Raises:
        InvalidRequestError: there is no such engine, or the engine does not take one of the options.
    """
    engine = next((name for name in ENGINES if name == chosen.engine), None)
    if engine is None:
        raise InvalidRequestError(f"--engine {chosen.engine!r} is unknown; there are: {', '.join(ENGINES)}", field="engine")
    given = {
        "--namespace": (chosen.namespace, "kubernetes"),
        "--context": (chosen.context, "kubernetes"),
        "--profile": (chosen.profile, "kubernetes"),
        "--config-map": (chosen.config_map, "kubernetes"),
        "--stages": (chosen.stages, "local"),
        "--device": (chosen.device, "local"),
    }
    for option, (value, owner) in given.items():
        if value and engine != owner:
            raise InvalidRequestError(f"{option} is an option of --engine {owner}, not of {engine}: leave it out", field=option[2:])
    if engine == "farm" and chosen.workers:
        raise InvalidRequestError("--workers does not go with --engine farm: the farm manager starts the workers", field="workers")
    return engine


def submit_manifest(settings: GatewaySettings, store: BatchStore, manifest: Manifest, engine: Engine, chosen: EngineOptions) -> int:
    """Create the batch of a manifest, or take the batch that exists, and give the shots that are left to the engine.

    Returns:
        The exit code.

    Raises:
        InvalidRequestError: the batch exists with another manifest or another engine.
        DubstageError: the engine cannot work.
    """
    before = store.find(manifest.name)
    cluster = {
        "namespace": chosen.namespace,
        "context": chosen.context,
        "profile": chosen.profile,
        "config_map": chosen.config_map,
    }
    if engine == "kubernetes" and (before is None or before.manifest_sha256 != manifest.sha256):
        check_for_cluster(store, manifest.shots, **cluster)
    changed = revise(store, manifest, engine)
    facts = store.create(manifest, engine)
    if facts.engine != engine:
        raise InvalidRequestError(
            f"batch {facts.name} belongs to the engine {facts.engine}: give --engine {facts.engine}, or choose another --name NAME",
            field="engine",
        )
    record(store, submission(facts))
    if changed:
        say(f"{len(changed)} shots with changed rows begin anew")
    say(f"batch {facts.name} {'is new' if before is None else 'exists and goes on'}: {counts(progress_now(store, facts.name))}")
    if engine == "kubernetes":
        submitted = send_to_cluster(store, facts.name, workers=chosen.workers, **cluster)
        show_jobs(facts.name, submitted.jobs, submitted.rows)
        return 0
    if engine == "farm":
        return _tell_farm(store, facts)
    return run_here(settings, store, facts, chosen.workers)


def show_jobs(name: str, jobs: tuple[str, ...], rows: int) -> None:
    """Print the Jobs that were made for shots of a batch."""
    if not jobs:
        say("no shot is left without a Job")
    for job in jobs:
        say_result(job)
    say(f"{rows} shots in {len(jobs)} new Jobs; follow them with: dubstage batch watch {name}")


def _tell_farm(store: BatchStore, facts: BatchFacts) -> int:
    from gateway.batch.row_ranges import format_rows

    rows = list(store.left(facts.name))
    if not rows:
        return show_end(store, facts.name)
    _warn_of_sqlite(store)
    say("each shot is one run of the farm manager, with the settings of this command; for a Slurm array:")
    say_result(f"sbatch --array={format_rows(rows)} --wrap 'dubstage batch run {facts.name} --index $SLURM_ARRAY_TASK_ID'")
    return 0


def _warn_of_sqlite(store: BatchStore) -> None:
    if not store.is_shared:
        say_warning(
            f"only workers of this machine reach the batch in {store.where}: for workers of other machines, submit it with "
            "DUBSTAGE_DATABASE_URL of a PostgreSQL, which the workers need too"
        )


def cancel_shots(store: BatchStore, name: str, ids: Sequence[str]) -> None:
    """Cancel shots of a batch; without ids, all that have not ended.

    Raises:
        BatchNotFoundError: there is no such batch or shot.
    """
    cancel(store, name, ids)
    progress = progress_now(store, name)
    say_result(f"batch {name}: {counts(progress)}")
    if progress.running and not ids:
        say(f"{progress.running} running shots stop within seconds; a shot whose worker was killed goes on counting as running")
        say(f"if no worker runs any more: dubstage batch remove {name} --force")


def retry_shots(
    settings: GatewaySettings,
    store: BatchStore,
    name: str,
    ids: Sequence[str],
    workers: int,
    stages: str | None = None,
    *,
    device: str | None = None,
    changed: ShotOptions = NO_OPTIONS,
) -> int:
    """Let shots of a batch begin anew and give them to the engine of the batch; without ids, all in TO_RETRY.

    The audit log gets an entry when the shots are reset.

    Args:
        store: store of batches.
        workers: shots at the same time; 0: the engine decides.
        stages: host of running stages that the user gave, for workers of this machine.
        device: device that the user gave, for stages in workers of this machine.
        changed: other options for the one shot that is named.

    Returns:
        The exit code.

    Raises:
        BatchNotFoundError: there is no such batch or shot.
        InvalidRequestError: a named shot is running, a submission of the batch runs, an option of the shot is
            wrong, or the engine does not take an option.
    """
    facts = store.facts(name)
    if facts.engine == "gateway":
        raise InvalidRequestError(f"the gateways dub batch {name}: let a gateway retry it (the RPC RetryBatch)", field="name")
    check_engine_options(EngineOptions(facts.engine, workers, stages, device))
    if changed.ListFields():
        from gateway.actors.store import ActorStore
        from gateway.batch.manifest import ActorLookup

        with ActorStore(settings) as actors:
            check_options(store, name, ids, changed, ActorLookup(actors).method_of)
    if facts.engine == "kubernetes":
        submitted = retry_in_cluster(store, name, ids, changed, workers=workers)
        record_change(store, "retried", name, ids, changed)
        show_jobs(name, submitted.jobs, submitted.rows)
        return 0
    chosen = begin_anew(store, name, ids, changed)
    # The local engine returns when the batch has ended, so the entry is written before.
    record_change(store, "retried", name, ids, changed)
    say(f"{len(chosen)} shots begin anew")
    if facts.engine == "local":
        return run_here(settings, store, facts, workers)
    if chosen:
        from gateway.batch.row_ranges import format_rows

        say("start these rows on the farm again:")
        say_result(format_rows(sorted(store.rows_of(name, chosen).values())))
    return 0


def changed_options(texts: Sequence[str]) -> dict[str, Any]:
    """Return the options of texts such as `seed=3`. A value is that of a manifest: JSON, or a text without quotation marks.

    Raises:
        InvalidRequestError: a text has no `=`, or an option is given twice.
    """
    fields: dict[str, Any] = {}
    for text in texts:
        field, equals, value = text.partition("=")
        if not equals or field in fields:
            wrong = f"{field} is given twice" if equals else "give OPTION=VALUE, such as seed=3"
            raise InvalidRequestError(f"--set {text[:80]!r}: {wrong}", field="set")
        try:
            # The face 3 is a text in a manifest.
            fields[field] = value if field == "face" else json.loads(value)
        except (ValueError, RecursionError):
            fields[field] = value
    return fields


def _say_batch(store: BatchStore, name: str) -> None:
    """Print a batch with --json."""
    if wants_json():
        from gateway.cli.documents import batch_document

        say_json(batch_document(store, name))


def _say_shot(store: BatchStore, name: str, shot_id: str) -> None:
    """Print a shot with --json."""
    if wants_json():
        from gateway.cli.documents import shot_document

        say_json(shot_document(store, name, shot_id))


def review_shot(store: BatchStore, name: str, shot_id: str, said: Verdict) -> None:
    """Store a decision about a shot, with its entry in the audit log, and print the decision.

    Raises:
        BatchNotFoundError: there is no such batch or shot.
        InvalidRequestError: the shot has no finished video, or a value is wrong.
    """
    from gateway.studio.review_export import marker_text

    ask_cluster(store, store.facts(name))
    decision = store.decide(name, decision_of(store.record(name, shot_id), said, now=now_ms()))
    record(store, review_event(name, decision))
    say_result(f"{shot_id}: {marker_text(decision)}")


def verdict_of(approve: bool, reject: bool, assign: str | None, **more: Any) -> Verdict:
    """Return what the options of a review say.

    Raises:
        InvalidRequestError: none, or more than one, of the options --approve, --reject and --assign is given, or one is wrong.
    """
    if approve + reject + (assign is not None) != 1:
        raise InvalidRequestError("give one of --approve, --reject and --assign WHO", field="state")
    state = ReviewState.APPROVED if approve else ReviewState.REJECTED if reject else ReviewState.ASSIGNED
    return Verdict(state=state, assignee=assign or "", **more)


def region_of(text: str | None) -> Region | None:
    """Return the region that an option X,Y,W,H names; None: the option is not given.

    Raises:
        InvalidRequestError: the text is no region.
    """
    if text is None:
        return None
    parts = text.split(",")
    try:
        x, y, width, height = map(float, parts)
    except ValueError:
        raise InvalidRequestError(
            f"--region {text[:80]!r}: give X,Y,W,H as shares of the picture from 0 to 1, such as 0.25,0.5,0.5,0.3", field="region"
        ) from None
    return region_from(x, y, width, height)


def index_of(index: int | None, variable: str | None) -> int:
    """Return the index of the worker: `index`, else from the variable of the environment, else from one of `INDEX_VARIABLES`.

    Raises:
        InvalidRequestError: both are given, or no variable holds an index.
    """
    if index is not None:
        if variable is not None:
            raise InvalidRequestError("give --index or --index-from, not both", field="index")
        return index
    for name in (variable,) if variable is not None else INDEX_VARIABLES:
        text = os.environ.get(name, "")
        if re.fullmatch(r"[0-9]{1,9}", text):
            return int(text)
        if text or variable is not None:
            raise InvalidRequestError(f"{name} must hold the index of a row, from 0, and holds {text[:40]!r}", field="index_from")
    raise InvalidRequestError(
        f"no index was given: give --index NUMBER, --index-from VARIABLE, or set {' or '.join(INDEX_VARIABLES)}", field="index"
    )


def run_row(settings: GatewaySettings, store: BatchStore, batch: str, index: int, rows: str | None) -> int:
    """Dub one shot of a batch, print its result, and return the exit code.

    Args:
        store: store of batches.
        batch: name of a batch; or file of a manifest, whose batch is created if there is none.
        index: row of the shot, from 0.
        rows: rows that the index counts, such as `0-99,105`; None: all.

    Raises:
        BatchNotFoundError: there is no such batch.
        InvalidRequestError: the manifest is wrong, or there is no such row.
        DubstageError: the store of batches, the database or the data folder cannot be used.
    """
    from gateway.batch.row_ranges import parse_rows

    name = _batch_of(settings, store, batch)
    total = store.facts(name).rows
    chosen = range(total) if rows is None else parse_rows(rows)
    if rows is not None and index >= len(chosen):
        raise InvalidRequestError(
            f"there is no row {index}: --rows {rows[:80]} has {len(chosen)} rows, counted from 0", field="index"
        )
    if (row := chosen[index] if index < len(chosen) else index) >= total:
        raise InvalidRequestError(f"there is no row {row}: batch {name} has the rows 0 to {total - 1}", field="index")
    record = _dubbed(settings, store, name, row)
    code = _show_result(record)
    _say_shot(store, name, record.id)
    return code


def _batch_of(settings: GatewaySettings, store: BatchStore, batch: str) -> str:
    """Return the name of a batch that is named, or of the batch of a manifest, which is created if there is none.

    Only the command that creates the batch looks for files and actors.
    """
    if _NAME.fullmatch(batch):
        return store.facts(batch).name
    path = Path(batch)
    manifest = checked_manifest(settings, path, None, check=False)
    if store.find(manifest.name) is None:
        manifest = checked_manifest(settings, path, None, check=True)
    return store.create(manifest, "farm").name


def _dubbed(settings: GatewaySettings, store: BatchStore, name: str, row: int) -> ShotRecord:
    from gateway.batch.worker import open_worker_context, run_shot

    async def work() -> ShotRecord:
        with StepProgress() as progress:
            async with open_worker_context(settings) as context:
                return await run_shot(context, store, name, row, on_progress=progress)

    return run_async(work())


def _show_result(record: ShotRecord) -> int:
    """Print the result of a shot, and return the exit code."""
    from gateway.batch.worker import exit_code_of

    for warning in record.warnings:
        say_warning(warning)
    for reason in record.look:
        say_warning(f"look at this video: {reason}")
    if record.state in WRITTEN:
        say(f"{record.id}: {record.frames_dubbed} of {record.frames} frames dubbed")
        say_result(record.output)
    elif record.state is ShotState.CANCELLED:
        say(f"{record.id}: cancelled")
    else:
        say_error(f"{record.id}: {record.error}")
    return exit_code_of(record)


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
    device: options.Device = None,
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
    _: options.AsJson = False,
) -> None:
    """Check the manifest SHOTS whole, and dub its shots. The same command again goes on with the shots that are left."""
    chosen = EngineOptions(engine, workers, stages, device, namespace, context, profile, config_map)
    kind: Engine = check_engine_options(chosen)
    settings = options.gateway_settings(stages, device)
    with open_batches(settings) as store:
        rows = checked_manifest(settings, manifest, name, check=check)
        code = submit_manifest(settings, store, rows, kind, chosen)
        _say_batch(store, rows.name)
        raise typer.Exit(code)


@commands.command("list")
def list_all(_: options.AsJson = False) -> None:
    """List all batches."""
    with open_batches(options.gateway_settings()) as store:
        if wants_json():
            from gateway.cli.documents import batches_document

            say_json(batches_document(sorted(store.batches(), key=lambda facts: (facts.created_at, facts.name))))
            return
        show_batches(store)


@commands.command("status")
def status(
    name: options.BatchName,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help=f"Show these shots only: {', '.join(STATES)}. May be given several times."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="NUMBER", help=f"Most shots to show. Default: {SHOWN_SHOTS}; with --json, all.", show_default=False
        ),
    ] = None,
    _: options.AsJson = False,
) -> None:
    """Show the shots of a batch, and how many are done, failed and left."""
    states = states_named(only or [], "only")
    with open_batches(options.gateway_settings()) as store:
        if wants_json():
            from gateway.cli.documents import batch_document, shots_document

            shown = shots_document(store, name, ShotQuery(states=states), limit)
            say_json({"batch": batch_document(store, name), "shots": shown["shots"]})
        else:
            show_status(store, name, states, limit or SHOWN_SHOTS)


@commands.command("shots")
def shots(
    name: options.BatchName,
    order: Annotated[str, typer.Option(metavar="row|risk|name", help="Order of the shots. risk: the highest risk first.")] = "row",
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help=f"Show these shots only: {', '.join(STATES)}. May be given several times."),
    ] = None,
    review: Annotated[
        list[str] | None,
        typer.Option(metavar="REVIEW", help=f"Show these shots only: {', '.join(ReviewState)}. May be given several times."),
    ] = None,
    assignee: Annotated[
        str | None, typer.Option(metavar="WHO", help="Show the shots only that are assigned to this person.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="NUMBER", help="Most shots to show.")] = SHOWN_SHOTS,
    _: options.AsJson = False,
) -> None:
    """List the shots of a batch with their risk and the decisions about them."""
    states, reviews = states_named(state or [], "state"), reviews_named(review or [])
    with open_batches(options.gateway_settings()) as store:
        show_shots(store, name, states, reviews, assignee=assignee, order=order, limit=limit)


@commands.command("review")
def review_command(
    name: options.BatchName,
    shot: Annotated[str, typer.Argument(metavar="SHOT", help="Id of the shot.")],
    approve: Annotated[bool, typer.Option("--approve", help="The video is good.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="The video is not good: dub the shot again.")] = False,
    assign: Annotated[str | None, typer.Option(metavar="WHO", help="This person is to look at the video.")] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Note, at most 4000 characters.")] = "",
    frame: Annotated[int | None, typer.Option(min=0, metavar="NUMBER", help="Frame that the note is about, from 0.")] = None,
    region: Annotated[
        str | None,
        typer.Option(metavar="X,Y,W,H", help="Part of the picture that the note is about, as shares from 0 to 1."),
    ] = None,
    by: Annotated[str, typer.Option(metavar="WHO", help="Name of the person who decides.")] = "",
    _: options.AsJson = False,
) -> None:
    """Decide about the present video of a shot that has ended. The last decision counts, and all are kept."""
    said = verdict_of(approve, reject, assign, note=note, frame=frame, region=region_of(region), reviewer=by)
    with open_batches(options.gateway_settings()) as store:
        review_shot(store, name, shot, said)
        _say_shot(store, name, shot)


commands.command("decisions")(decisions)


@commands.command("from-timeline")
def from_timeline(
    timeline: Annotated[
        Path, typer.Argument(metavar="TIMELINE", help="Timeline: a file that ends in .otio, .edl, .fcpxml or .aaf.")
    ],
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for the manifest, the parts and the videos. The batch gets its name.")
    ],
    script: Annotated[
        list[str] | None,
        typer.Option(metavar="[LANGUAGE=]FILE", help="Dubbing script: CSV, SRT, or DAPT and TTML. May be given several times."),
    ] = None,
    speech: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Sound files, such as 'rec/{language}/{id}.wav', with {language}, {id}, {speaker} and {number} of a line; "
            "without a script with {clip} and {number} of a clip.",
        ),
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option(metavar="LANGUAGE", help="Language to dub without a script (BCP 47). May be given several times."),
    ] = None,
    media: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder in which the media of the clips is looked for, by file name and reel. May be given several times. "
            "Default: the paths of the timeline.",
        ),
    ] = None,
    handles: Annotated[
        int,
        typer.Option(min=0, max=10_000, metavar="FRAMES", help="Frames before and after each clip, as far as the media has them."),
    ] = 0,
    rate: Rate = None,
    track: VideoTrack = None,
    face: Annotated[str, typer.Option(metavar="FACE", help="Face of lines without actor and face, as in a manifest.")] = "speaker",
    actor: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEAKER=ACTOR", help="Enrolled actor of a speaker of the script. May be given several times."),
    ] = None,
    other: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Option of all rows, as in a manifest. May be given several times."),
    ] = None,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Leave refused clips and lines out. Otherwise nothing is written if one is refused.")
    ] = False,
    _: options.AsJson = False,
) -> None:
    """Write a manifest from a timeline and dubbing scripts: one row for each clip and language that has a line."""
    from gateway.cli.batch_timeline import make_manifest

    make_manifest(
        timeline,
        output=output,
        rate=rate,
        track=track,
        scripts=script or [],
        languages=language or [],
        media=media or [],
        speech=speech,
        handles=handles,
        face=face,
        actors=actor or [],
        defaults=changed_options(other or []),
        leave_out=leave_out,
    )


@commands.command("conform")
def conform_command(
    name: options.BatchName,
    timeline: Annotated[Path, typer.Argument(metavar="TIMELINE", help="Timeline of the batch, or a later cut of this timeline.")],
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="File to write, which ends in .otio, .edl (one language), .fcpxml or .aaf.")
    ],
    language: Annotated[
        list[str] | None,
        typer.Option(metavar="LANGUAGE", help="Language of a new track. May be given several times. Default: all of the batch."),
    ] = None,
    approved: Annotated[bool, typer.Option("--approved", help="Take approved videos only.")] = False,
    delivered: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Take the videos in this folder of `dubstage batch deliver`.")
    ] = None,
    rate: Rate = None,
    track: VideoTrack = None,
    clips: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File clips.json of the manifest. Default: two folders above the videos."),
    ] = None,
    leave_out: Annotated[
        bool,
        typer.Option("--leave-out", help="Leave clips without a usable video out. Otherwise nothing is written if one is missing."),
    ] = False,
    _: options.AsJson = False,
) -> None:
    """Write a timeline with the dubbed videos of a batch on a new video track for each language, with markers for decisions."""
    from gateway.cli.batch_timeline import conform_batch

    with open_batches(options.gateway_settings()) as store:
        conform_batch(
            store,
            name,
            timeline,
            output=output,
            rate=rate,
            track=track,
            languages=language or [],
            approved=approved,
            delivered=delivered,
            clips=clips,
            leave_out=leave_out,
        )


@commands.command("watch")
def watch(name: options.BatchName, _: options.AsJson = False) -> None:
    """Show the progress of a batch until every shot has ended. The exit code is 0 if every shot is done or cancelled."""
    with open_batches(options.gateway_settings()) as store:
        code = watch_batch(store, name)
        _say_batch(store, name)
        raise typer.Exit(code)


@commands.command("cancel")
def cancel_command(name: options.BatchName, ids: Ids = None, _: options.AsJson = False) -> None:
    """Cancel shots of a batch, or all that have not ended."""
    with open_batches(options.gateway_settings()) as store:
        cancel_shots(store, name, ids or [])
        record_change(store, "cancelled", name, ids or [])
        _say_batch(store, name)


@commands.command("retry")
def retry(
    name: options.BatchName,
    ids: Ids = None,
    only_rejected: Annotated[bool, typer.Option("--rejected", help="The shots whose present videos are rejected.")] = False,
    workers: Workers = 0,
    stages: options.Stages = None,
    device: options.Device = None,
    other: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="OPTION=VALUE",
            help=f"Other option for the one shot that is named: {', '.join(CHANGEABLE)}, as in a manifest. May be given several "
            "times.",
        ),
    ] = None,
    _: options.AsJson = False,
) -> None:
    """Dub shots of a batch again: those named or rejected, or all undubbed, failed and cancelled ones."""
    changed = options_from(changed_options(other or []))
    settings = options.gateway_settings(stages, device)
    with open_batches(settings) as store:
        of_reviews = rejected(store, store.facts(name)) if only_rejected else []
        chosen = list(dict.fromkeys([*(ids or []), *of_reviews]))
        if only_rejected and not chosen:
            say_result(f"batch {name}: no shot is rejected")
            _say_batch(store, name)
            return
        code = retry_shots(settings, store, name, chosen, workers, stages, device=device, changed=changed)
        _say_batch(store, name)
        raise typer.Exit(code)


@commands.command("remove")
def remove_command(
    name: options.BatchName,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Remove the batch although cancelled shots count as running, because their workers were killed. Safe if no worker "
            "of the batch runs any more, on any machine.",
        ),
    ] = False,
    _: options.AsJson = False,
) -> None:
    """Remove the rows, the records and the pictures of a batch whose shots have all ended. The videos stay."""
    with open_batches(options.gateway_settings()) as store:
        remove(store, name, force=force)
        say_result(f"batch {name} is removed; its videos stay")
        record_change(store, "removed", name)
    if wants_json():
        say_json({"name": f"batches/{name}"})


@commands.command("report")
def report(
    name: options.BatchName,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Folder of the report: a new folder, an empty folder, or the folder of an older report."
        ),
    ],
    _: options.AsJson = False,
) -> None:
    """Write a report of a batch: an HTML page with a row for each shot, and the same as CSV and JSON."""
    from gateway.batch.report import write_report

    with open_batches(options.gateway_settings()) as store:
        say_output(write_report(store.facts(name), store.each_shot(name), partial(store.thumbnails, name), folder))


commands.command("deliver")(deliver_command)
commands.command("kitsu")(kitsu)


@commands.command("openjd")
def openjd_command(
    batch: Batch,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of the job bundle. Files of an earlier bundle are replaced.")
    ],
    _: options.AsJson = False,
) -> None:
    """Write a batch as a job bundle of Open Job Description, for AWS Deadline Cloud or `openjd run`: one task for each row."""
    from gateway.studio.open_job import write_job_bundle

    settings = options.gateway_settings()
    with open_batches(settings) as store:
        name = _batch_of(settings, store, batch)
        _warn_of_sqlite(store)
        write_job_bundle(name, store.facts(name).rows, output)
    say_output(output / "template.json")


@commands.command("opencue")
def opencue_command(
    batch: Batch,
    show: Annotated[str, typer.Option(metavar="NAME", help="Show in OpenCue.")],
    shot: Annotated[str, typer.Option(metavar="NAME", help="Shot in OpenCue that the job belongs to.")] = "dubs",
    cores: Annotated[int, typer.Option(min=1, max=1024, metavar="NUMBER", help="Processor cores of a frame.")] = 2,
    _: options.AsJson = False,
) -> None:
    """Submit a batch to OpenCue as a job with one frame for each row. CUEBOT_HOSTS names the Cuebot."""
    from gateway.studio.opencue_job import submit_to_opencue

    settings = options.gateway_settings()
    with open_batches(settings) as store:
        name = _batch_of(settings, store, batch)
        _warn_of_sqlite(store)
        jobs = list(submit_to_opencue(name, store.facts(name).rows, show=show, shot=shot, cores=cores))
    for job in jobs:
        say_result(job)
    if wants_json():
        say_json({"jobs": jobs})


@commands.command("run")
def run(
    batch: Batch,
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
    device: options.Device = None,
    _: options.AsJson = False,
) -> None:
    """Dub one shot of a batch, as a worker of a farm does. The exit code says whether to try again.

    0: done. 10: wrong input. 11: a person must change something first. 12: an error of dubstage.
    13: no frame is dubbed. 20: try again. 130: interrupted.
    """
    settings = options.gateway_settings(stages, device)
    row = index_of(index, index_from)
    with open_batches(settings) as store:
        raise typer.Exit(run_row(settings, store, batch, row, rows))
