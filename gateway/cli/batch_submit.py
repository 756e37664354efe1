"""`dubstage batch submit`: give the shots of a batch to an engine."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Final

from gateway.batch.changes import record_submission
from gateway.batch.manifest import Manifest, format_rows
from gateway.batch.records import progress_of
from gateway.batch.store import BatchStore, Engine
from gateway.batch.types import ENDED, BatchFacts, ShotRecord
from gateway.cli.batch_local import run_here
from gateway.cli.batch_show import counts, show_end
from gateway.cli.console import say, say_result
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequest

ENGINES: Final[tuple[Engine, ...]] = ("local", "kubernetes", "farm")
"""Engines that the command serves. Batches of the engine `gateway` are submitted to a gateway."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of the command that choose an engine.

    Attributes:
        engine: name of the engine.
        workers: shots at the same time; 0: the engine decides.
        stages: host of running stages, for workers of this machine; None: the stages run in the workers.
        namespace, context, profile, config_map: options of the engine `kubernetes`; empty: its defaults.
    """

    engine: str
    workers: int
    stages: str | None = None
    namespace: str = ""
    context: str = ""
    profile: str = ""
    config_map: str = ""


def check_engine_options(chosen: EngineOptions) -> Engine:
    """Return the engine of the options.

    Raises:
        InvalidRequest: there is no such engine, or the engine does not take one of the options.
    """
    engine = next((name for name in ENGINES if name == chosen.engine), None)
    if engine is None:
        raise InvalidRequest(f"--engine {chosen.engine!r} is unknown; there are: {', '.join(ENGINES)}", field="engine")
    given = {
        "--namespace": (chosen.namespace, "kubernetes"),
        "--context": (chosen.context, "kubernetes"),
        "--profile": (chosen.profile, "kubernetes"),
        "--config-map": (chosen.config_map, "kubernetes"),
        "--stages": (chosen.stages, "local"),
    }
    for option, (value, owner) in given.items():
        if value and engine != owner:
            raise InvalidRequest(f"{option} is an option of --engine {owner}, not of {engine}: leave it out", field=option[2:])
    if engine == "farm" and chosen.workers:
        raise InvalidRequest("--workers does not go with --engine farm: the farm manager starts the workers", field="workers")
    return engine


def submit_manifest(settings: GatewaySettings, store: BatchStore, manifest: Manifest, engine: Engine, chosen: EngineOptions) -> int:
    """Create the batch of a manifest, or take the batch that exists, and give the shots that are left to the engine.

    Returns:
        The exit code.

    Raises:
        InvalidRequest: the batch exists with another manifest or another engine.
        DubstageError: the engine cannot work.
    """
    before = store.find(manifest.name)
    if engine == "kubernetes" and before is None:
        _check_for_cluster(store, manifest, chosen)
    facts = store.create(manifest, engine)
    if facts.engine != engine:
        raise InvalidRequest(
            f"batch {facts.name} belongs to the engine {facts.engine}: give --engine {facts.engine}, or choose another --name NAME",
            field="engine",
        )
    record_submission(settings, facts)
    records = store.records(facts.name)
    say(f"batch {facts.name} {'is new' if before is None else 'exists and goes on'}: {counts(progress_of(records))}")
    if engine == "kubernetes":
        return _submit_to_cluster(store, facts, chosen)
    if engine == "farm":
        return _tell_farm(store, facts, records)
    return run_here(settings, store, facts, chosen.workers)


def _check_for_cluster(store: BatchStore, manifest: Manifest, chosen: EngineOptions) -> None:
    """Check that pods can work on a manifest, before its batch exists. The rows of a batch cannot be corrected."""
    from gateway.batch.kubernetes.engine import CONFIG_MAP, open_engine

    open_engine(chosen.namespace, chosen.context).check(
        manifest.shots, store, profile=chosen.profile or "cpu", config_map=chosen.config_map or CONFIG_MAP
    )


def _submit_to_cluster(store: BatchStore, facts: BatchFacts, chosen: EngineOptions) -> int:
    from gateway.batch.kubernetes.engine import CONFIG_MAP, open_engine

    submitted = open_engine(chosen.namespace, chosen.context).submit(
        store,
        facts.name,
        profile=chosen.profile or "cpu",
        workers=chosen.workers,
        config_map=chosen.config_map or CONFIG_MAP,
    )
    show_jobs(facts.name, submitted.jobs, submitted.rows)
    return 0


def show_jobs(name: str, jobs: tuple[str, ...], rows: int) -> None:
    """Print the Jobs that were made for shots of a batch."""
    if not jobs:
        say("no shot is left without a Job")
    for job in jobs:
        say_result(job)
    say(f"{rows} shots in {len(jobs)} new Jobs; follow them with: dubstage batch watch {name}")


def _tell_farm(store: BatchStore, facts: BatchFacts, records: list[ShotRecord]) -> int:
    rows = [row for row, record in enumerate(records) if record.state not in ENDED]
    if not rows:
        return show_end(facts.name, records)
    command = f"dubstage batch run {facts.name} --index"
    say("each shot is one run of the farm manager, which finds the batch by DUBSTAGE_BATCHES_URL; for a Slurm array:")
    say(f"  export DUBSTAGE_BATCHES_URL={shlex.quote(store.url)}")
    say_result(f"sbatch --array={format_rows(rows)} --wrap '{command} $SLURM_ARRAY_TASK_ID'")
    return 0
