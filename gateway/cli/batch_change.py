"""`dubstage batch cancel`, `dubstage batch retry` and `dubstage batch remove`."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.batch.changes import begin_anew, cancel, record_change, remove
from gateway.batch.manifest import format_rows
from gateway.batch.records import progress_of
from gateway.batch.store import BatchStore
from gateway.cli.batch_local import run_here
from gateway.cli.batch_show import counts
from gateway.cli.batch_submit import EngineOptions, check_engine_options, show_jobs
from gateway.cli.console import say, say_result
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequest


def cancel_shots(store: BatchStore, name: str, ids: Sequence[str]) -> None:
    """Cancel shots of a batch; without ids, all that have not ended.

    Raises:
        BatchNotFound: there is no such batch or shot.
    """
    cancel(store, name, ids)
    progress = progress_of(store.records(name))
    say_result(f"batch {name}: {counts(progress)}")
    if progress.running and not ids:
        say(f"{progress.running} running shots stop within seconds; a shot whose worker was killed goes on counting as running")
        say(f"if no worker runs any more: dubstage batch remove {name} --force")


def retry_shots(
    settings: GatewaySettings, store: BatchStore, name: str, ids: Sequence[str], workers: int, stages: str | None = None
) -> int:
    """Let shots of a batch begin anew and give them to the engine of the batch; without ids, all that failed or were cancelled.

    The audit log gets an entry when the shots are reset.

    Args:
        settings: settings of the command.
        store: store of batches.
        name: name of the batch.
        ids: ids of the shots.
        workers: shots at the same time; 0: the engine decides.
        stages: host of running stages that the user gave, for workers of this machine.

    Returns:
        The exit code.

    Raises:
        BatchNotFound: there is no such batch or shot.
        InvalidRequest: a named shot is running, a submission of the batch runs on this machine, or the engine does not take an
            option.
    """
    facts = store.facts(name)
    if facts.engine == "gateway":
        raise InvalidRequest(f"the gateways dub batch {name}: let a gateway retry it (the RPC RetryBatch)", field="name")
    check_engine_options(EngineOptions(facts.engine, workers, stages))
    if facts.engine == "kubernetes":
        from gateway.batch.kubernetes import open_engine_of

        submitted = open_engine_of(facts).retry(store, name, tuple(ids), workers=workers)
        record_change(settings, "retried", name, ids)
        show_jobs(name, submitted.jobs, submitted.rows)
        return 0
    chosen = begin_anew(settings, store, name, ids)
    # The local engine returns when the batch has ended, so the entry is written before.
    record_change(settings, "retried", name, ids)
    say(f"{len(chosen)} shots begin anew")
    if facts.engine == "local":
        return run_here(settings, store, facts, workers)
    anew = frozenset(chosen)
    rows = [row for row, shot in enumerate(store.manifest(name)) if shot.id in anew]
    if rows:
        say("start these rows on the farm again:")
        say_result(format_rows(rows))
    return 0


def remove_batch(settings: GatewaySettings, store: BatchStore, name: str, *, force: bool) -> None:
    """Remove a batch whose shots have all ended. The films stay.

    Args:
        settings: settings of the command.
        store: store of batches.
        name: name of the batch.
        force: as for `remove`.

    Raises:
        BatchNotFound: there is no such batch.
        InvalidRequest: shots are left, or a submission of the batch runs on this machine.
    """
    remove(settings, store, name, force=force)
    say_result(f"batch {name} is removed; its films stay")
