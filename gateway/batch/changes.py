"""Changes of a batch that a person asks for, the same for the command line and for a gateway. All functions block.

The store of batches is no database, so an entry of the audit log follows the change that it records.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from typing import Literal

from gateway.actors.store import ActorStore
from gateway.audit import AuditEvent, EventKind
from gateway.audit.work import batch_work
from gateway.batch.locks import batch_lock
from gateway.batch.records import progress_of
from gateway.batch.store import BatchStore
from gateway.batch.types import ENDED, TO_RETRY, BatchFacts, ShotRecord, ShotSpec, ShotState
from gateway.settings import GatewaySettings
from services.common.errors import DubstageError, InvalidRequest


def batch_event(event: EventKind, name: str, ids: Sequence[str] = (), *, rows: int = 0, manifest_sha256: str = "") -> AuditEvent:
    """Return the entry for a change of a batch.

    Args:
        event: what happened.
        name: name of the batch.
        ids: shots that were named; none: all.
        rows: number of all shots; 0: unknown.
        manifest_sha256: digest of the rows; empty: unknown.
    """
    details: dict[str, str | int | bool] = {"shots": len(ids) or "all"}
    if rows:
        details["rows"] = rows
    if manifest_sha256:
        details["manifest_sha256"] = manifest_sha256
    return AuditEvent(event=event, work=batch_work(name), details=details)


def record_change(
    settings: GatewaySettings, change: Literal["cancelled", "retried", "removed"], name: str, ids: Sequence[str] = ()
) -> None:
    """Write the entry for a command that changes a batch.

    Args:
        settings: settings of the command.
        change: what the command does.
        name: name of the batch.
        ids: shots that were named; none: all.
    """
    _record(settings, batch_event(EventKind(f"batch.{change}"), name, ids))


def record_submission(settings: GatewaySettings, facts: BatchFacts) -> None:
    """Write the entry for a batch that a command submits."""
    _record(settings, submission(facts))


def submission(facts: BatchFacts) -> AuditEvent:
    """Return the entry for a batch that is submitted."""
    return batch_event(EventKind.BATCH_SUBMITTED, facts.name, rows=facts.rows, manifest_sha256=facts.manifest_sha256)


def _record(settings: GatewaySettings, event: AuditEvent) -> None:
    with ActorStore(settings, claim_artefacts=False) as actors:
        actors.audit.record(event)


def current_records(store: BatchStore, facts: BatchFacts) -> tuple[list[ShotRecord], list[str]]:
    """Return the records of all shots, with what the cluster knows, and notes for a person. Blocks.

    If the cluster cannot be asked, the records are those of the store, and a note says so.

    Raises:
        DubstageError: the store of batches cannot be used.
    """
    if facts.engine != "kubernetes":
        return store.records(facts.name), []
    from gateway.batch.kubernetes import open_engine_of

    try:
        snapshot = open_engine_of(facts).snapshot(store, facts.name)
    except DubstageError as error:
        return store.records(facts.name), [f"the cluster was not asked: {error.message}"]
    return list(snapshot.records), list(snapshot.notes)


def cancel(store: BatchStore, name: str, ids: Sequence[str]) -> None:
    """Cancel shots of a batch; without ids, all that have not ended. Shots that have ended stay as they are.

    Raises:
        BatchNotFound: there is no such batch or shot.
    """
    facts = store.facts(name)
    if _has_jobs(facts):
        from gateway.batch.kubernetes import open_engine_of

        open_engine_of(facts).cancel(store, name, tuple(ids))
        return
    ended = {record.id for record in store.records(name) if record.state in ENDED}
    shots = ids or [shot.id for shot in store.manifest(name)]
    store.cancel(name, [shot for shot in shots if shot not in ended])


def to_retry(store: BatchStore, name: str, ids: Sequence[str]) -> list[str]:
    """Return the shots that a retry lets begin anew: `ids`, or all in TO_RETRY.

    Raises:
        BatchNotFound: there is no such batch.
        InvalidRequest: a named shot is running.
    """
    records = store.records(name)
    marked = store.cancelled(name)
    for record in records:
        if record.id in ids and record.state is ShotState.RUNNING and record.id not in marked:
            raise InvalidRequest(f"shot {record.id} is running by {record.worker}: wait, or cancel it first", field="id")
    return list(ids) or [record.id for record in records if record.state in TO_RETRY]


def begin_anew(settings: GatewaySettings, store: BatchStore, name: str, ids: Sequence[str]) -> list[str]:
    """Let shots of a batch wait again, and return their ids; without ids, all in TO_RETRY.

    Raises:
        BatchNotFound: there is no such batch or shot.
        InvalidRequest: a named shot is running, or a submission of the batch runs on this machine.
    """
    chosen = to_retry(store, name, ids)
    # A submission that runs now has its list of shots, and would not see that some begin anew.
    with batch_lock(settings, store, name) if store.facts(name).engine == "local" else nullcontext():
        store.reset(name, chosen)
    return chosen


def check_for_cluster(store: BatchStore, shots: Sequence[ShotSpec], *, profile: str, config_map: str) -> None:
    """Check that pods of the cluster that this process runs in can work on shots. See `KubernetesEngine.check`."""
    from gateway.batch.kubernetes import open_engine

    open_engine().check(shots, store, profile=profile, config_map=config_map)


def send_to_cluster(store: BatchStore, name: str, *, profile: str, workers: int, config_map: str) -> None:
    """Send the shots of a batch that are left to the cluster that this process runs in. See `KubernetesEngine.submit`."""
    from gateway.batch.kubernetes import open_engine

    open_engine().submit(store, name, profile=profile, workers=workers, config_map=config_map)


def retry_in_cluster(store: BatchStore, name: str, ids: Sequence[str]) -> None:
    """Let shots of a batch begin anew in its cluster; without ids, all in TO_RETRY.

    See `KubernetesEngine.retry`.
    """
    from gateway.batch.kubernetes import open_engine_of

    open_engine_of(store.facts(name)).retry(store, name, tuple(ids))


def remove(settings: GatewaySettings, store: BatchStore, name: str, *, force: bool = False) -> None:
    """Remove a batch whose shots have all ended: rows, records, pictures, and its Jobs in a cluster. The films stay.

    A removal that was cut is completed.

    Args:
        settings: settings of the command or of the gateway.
        store: store of batches.
        name: name of the batch.
        force: a shot that is cancelled and still RUNNING counts as ended. The record of a shot whose worker was killed stays so.
            Only a person knows that no worker has the shot any more.

    Raises:
        BatchNotFound: there is no such batch.
        InvalidRequest: shots are left, or a submission of the batch runs on this machine.
    """
    facts = store.facts(name)
    if facts.engine == "local":
        with batch_lock(settings, store, name):
            _remove(store, facts, force=force)
    else:
        _remove(store, facts, force=force)


def _remove(store: BatchStore, facts: BatchFacts, *, force: bool) -> None:
    name = facts.name
    if not facts.removing:
        records = current_records(store, facts)[0]
        killed = _cancelled_and_running(records, store.cancelled(name)) if force else 0
        left = progress_of(records).left - killed
        if left:
            raise InvalidRequest(
                f"{left} shots of batch {name} have not ended: wait, or cancel the batch first; if their workers were killed, "
                f"cancel the batch and remove it with `dubstage batch remove {name} --force`",
                field="name",
            )
        if _has_jobs(facts):
            from gateway.batch.kubernetes import open_engine_of

            open_engine_of(facts).remove_jobs(facts)
    store.remove(name)


def _has_jobs(facts: BatchFacts) -> bool:
    """Return whether a cluster may have Jobs of a batch. A submission that the cluster refused leaves a batch without Jobs."""
    if facts.engine != "kubernetes":
        return False
    from gateway.batch.kubernetes import was_sent

    return was_sent(facts)


def _cancelled_and_running(records: Sequence[ShotRecord], marked: Collection[str]) -> int:
    return sum(record.state is ShotState.RUNNING and record.id in marked for record in records)
