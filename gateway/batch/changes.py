"""Changes of a batch that a person asks for, the same for the command line and for a gateway. All functions block.

An entry of the audit log follows the change that it records: what a cluster does is in no transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, Literal

from dubstage.gateway.v1.dub_pb2 import ShotOptions
from gateway.audit.entries import AuditEvent, EventKind, batch_work
from gateway.audit.log import AuditLog
from gateway.batch.leases import batch_lease
from gateway.batch.lists import ShotQuery
from gateway.batch.reviews import Decision, ReviewState
from gateway.batch.store import BatchStore
from gateway.batch.types import ENDED, LEFT, TO_RETRY, BatchFacts, Engine, Manifest, ShotSpec, ShotState
from gateway.dub.request.spec_text import CHANGEABLE, option_words
from services.common.errors import DubstageError, InvalidRequestError
from services.common.texts import Command, Option, Text

if TYPE_CHECKING:
    from gateway.batch.kubernetes.engine import Submitted
    from gateway.batch.manifest import MethodOf

NO_OPTIONS: Final = ShotOptions()
"""Options of a retry that changes none."""


def batch_event(
    event: EventKind,
    name: str,
    ids: Sequence[str] = (),
    *,
    rows: int = 0,
    manifest_sha256: str = "",
    options: ShotOptions = NO_OPTIONS,
) -> AuditEvent:
    """Return the entry for a change of a batch.

    Args:
        event: what happened.
        name: name of the batch.
        ids: shots that were named; none: all.
        rows: number of all shots; 0: unknown.
        manifest_sha256: digest of the rows; empty: unknown.
        options: options of the one shot that were changed.
    """
    details: dict[str, str | int | bool] = {"shots": len(ids) or "all"}
    if rows:
        details["rows"] = rows
    if manifest_sha256:
        details["manifest_sha256"] = manifest_sha256
    if options.ListFields():
        # The log has no numbers with fractions.
        details |= {"shot": ids[0], **option_words(options)}
    return AuditEvent(event=event, work=batch_work(name), details=details)


def record_change(
    store: BatchStore,
    change: Literal["cancelled", "retried", "removed", "delivered", "posted"],
    name: str,
    ids: Sequence[str] = (),
    options: ShotOptions = NO_OPTIONS,
) -> None:
    """Write the entry for a command that changes a batch.

    Args:
        store: store of batches.
        change: what the command does.
        name: name of the batch.
        ids: shots that were named; none: all.
        options: options of the one shot that were changed.
    """
    record(store, batch_event(EventKind(f"batch.{change}"), name, ids, options=options))


def record(store: BatchStore, event: AuditEvent) -> None:
    """Write an entry for a command that changes a batch."""
    AuditLog(store.database).record(event)


def review_event(name: str, decision: Decision) -> AuditEvent:
    """Return the entry for a decision about a shot. The log has no names of people, and not the note."""
    details: dict[str, str | int | bool] = {
        "state": str(decision.state),
        "shot": decision.id,
        "number": decision.number,
        "note": bool(decision.note),
    }
    outputs = (decision.output_sha256,) if decision.output_sha256 else ()
    return AuditEvent(event=EventKind.SHOT_REVIEWED, work=batch_work(name), outputs=outputs, details=details)


def submission(facts: BatchFacts) -> AuditEvent:
    """Return the entry for a batch that is submitted."""
    return batch_event(EventKind.BATCH_SUBMITTED, facts.name, rows=facts.rows, manifest_sha256=facts.manifest_sha256)


def ask_cluster(store: BatchStore, facts: BatchFacts) -> list[str]:
    """Store what a cluster knows of the shots of a batch that are left, and return notes for a person.

    If the cluster cannot be asked, the records stay, and a note says so. Batches of other engines have no notes.

    Raises:
        DubstageError: the store of batches cannot be used.
    """
    if facts.engine != "kubernetes" or not is_left(store, facts.name):
        return []
    from gateway.batch.kubernetes import open_engine_of

    try:
        return list(open_engine_of(facts).snapshot(store, facts.name).notes)
    except DubstageError as error:
        return [Text("the cluster was not asked: {error}", error=error)]


def rejected(store: BatchStore, facts: BatchFacts) -> list[str]:
    """Return the ids of the shots of a batch whose present videos are rejected.

    Raises:
        DubstageError: the store of batches cannot be used.
    """
    ask_cluster(store, facts)
    return [one.shot.id for one in store.shots(facts.name, ShotQuery(reviews=[ReviewState.REJECTED]))]


def is_left(store: BatchStore, name: str) -> bool:
    """Return whether the records of a batch say that shots are left.

    Raises:
        BatchNotFoundError: there is no such batch.
        DubstageError: the store of batches cannot be used.
    """
    store.facts(name)
    return store.count(name, ShotQuery(states=LEFT)) > 0


def is_left_to_cluster(store: BatchStore, name: str) -> bool:
    """Return whether a cluster still works on shots of a batch. While the cluster cannot be asked, the records of the store decide.

    Raises:
        BatchNotFoundError: there is no such batch.
        InvalidRequestError: shots are left, and the cluster has no Job for them.
        DubstageError: the store of batches cannot be used.
    """
    from gateway.batch.kubernetes import open_engine_of

    try:
        snapshot = open_engine_of(store.facts(name)).snapshot(store, name)
    except DubstageError:
        return is_left(store, name)
    left = len(snapshot.left)
    if left and snapshot.ended:
        raise InvalidRequestError(f"{left} shots of batch {name} have no Job in the cluster: submit the batch again", field="name")
    return left > 0


def cancel(store: BatchStore, name: str, ids: Sequence[str]) -> None:
    """Cancel shots of a batch; without ids, all that have not ended. Shots that have ended stay as they are.

    Raises:
        BatchNotFoundError: there is no such batch or shot.
    """
    facts = store.facts(name)
    if _has_jobs(facts):
        from gateway.batch.kubernetes import open_engine_of

        open_engine_of(facts).cancel(store, name, tuple(ids))
    else:
        store.cancel(name, ids)


def to_retry(store: BatchStore, name: str, ids: Sequence[str]) -> list[str]:
    """Return the shots that a retry lets begin anew: `ids`, or all in TO_RETRY.

    Raises:
        BatchNotFoundError: there is no such batch or shot.
        InvalidRequestError: a named shot is running.
    """
    if not ids:
        return store.ids(name, TO_RETRY)
    marked = store.cancelled(name)
    for record in store.records_of(name, ids):
        if record.state is ShotState.RUNNING and record.id not in marked:
            raise InvalidRequestError(f"shot {record.id} is running by {record.worker}: wait, or cancel it first", field="id")
    return list(ids)


def check_options(store: BatchStore, name: str, ids: Sequence[str], options: ShotOptions, method_of: MethodOf) -> None:
    """Check options for the one shot that a retry names, as a row of a manifest is checked.

    Args:
        store: store of batches.
        name: name of the batch.
        ids: shots that the retry names.
        options: the options; empty: nothing is checked.
        method_of: as `manifest_or_mistakes` takes it.

    Raises:
        BatchNotFoundError: there is no such batch or shot.
        InvalidRequestError: options are given for no shot or several, an option has a wrong value, or the shot has not ended. The
            message names the field.
    """
    if not options.ListFields():
        return
    if len(ids) != 1:
        raise InvalidRequestError(f"name the one shot that takes them, not {len(ids) or 'all'}", field="options", named=True)
    ask_cluster(store, store.facts(name))
    shot, record = store.shot(name, store.row_of(name, ids[0])), store.record(name, ids[0])
    if record.state not in ENDED:
        raise InvalidRequestError(f"shot {shot.id} is {record.state}: wait until it has ended, or cancel it first", field="id")
    # Imported here: commands that show a batch check no rows.
    from gateway.batch.manifest import option_mistakes

    if mistakes := option_mistakes({1: shot.with_options(options)}, method_of):
        wrong = mistakes[0]
        field = f"options.{wrong.field}" if wrong.field in CHANGEABLE else wrong.field
        raise InvalidRequestError(f"{wrong.field}: {wrong.text}", field=field, reasons=[wrong.reason])


def begin_anew(store: BatchStore, name: str, ids: Sequence[str], options: ShotOptions = NO_OPTIONS) -> list[str]:
    """Let shots of a batch wait again, and return their ids; without ids, all in TO_RETRY. Their videos are kept.

    Args:
        store: store of batches.
        name: name of the batch.
        ids: shots that are named.
        options: options of the one named shot, which `check_options` has checked.

    Raises:
        BatchNotFoundError: there is no such batch or shot.
        InvalidRequestError: a named shot is running, or a submission of the batch runs.
    """
    chosen = to_retry(store, name, ids)
    # A submission that runs now has its list of shots, and would not see that some begin anew.
    with batch_lease(store, name) if store.facts(name).engine == "local" else nullcontext():
        store.keep_videos(name, chosen)
        if options.ListFields():
            # The options come first: the worker that finds the new record reads them.
            store.set_options(name, chosen[0], options)
        store.reset(name, chosen)
    return chosen


def revise(store: BatchStore, manifest: Manifest, engine: Engine) -> list[str]:
    """Let a batch take over the changed rows of a manifest, and return the ids of the shots that begin anew for it.

    See `BatchStore.revise`.

    Raises:
        InvalidRequestError: the changed rows cannot be taken over, or a submission of the batch runs.
    """
    before = store.find(manifest.name)
    if before is None or before.engine != engine or before.manifest_sha256 == manifest.sha256:
        return []
    is_local = engine == "local"
    with batch_lease(store, manifest.name) if is_local else nullcontext():
        return store.revise(manifest, is_idle=is_local)


def check_for_cluster(
    store: BatchStore, shots: Sequence[ShotSpec], *, profile: str, config_map: str, namespace: str = "", context: str = ""
) -> None:
    """Check that pods of a cluster can work on shots, before their batch exists or takes over changed rows.

    Arguments as for `connect` and `KubernetesEngine.check`. Empty arguments: the defaults; the cluster that this process runs in.
    """
    from gateway.batch.kubernetes import CONFIG_MAP, open_engine

    open_engine(namespace, context).check(shots, store, profile=profile or "cpu", config_map=config_map or CONFIG_MAP)


def send_to_cluster(
    store: BatchStore, name: str, *, profile: str, workers: int, config_map: str, namespace: str = "", context: str = ""
) -> Submitted:
    """Send the shots of a batch that are left to a cluster.

    Arguments as for `connect` and `KubernetesEngine.submit`. Empty arguments: the defaults; the cluster that this process runs in.
    """
    from gateway.batch.kubernetes import CONFIG_MAP, open_engine

    engine = open_engine(namespace, context)
    return engine.submit(store, name, profile=profile or "cpu", workers=workers, config_map=config_map or CONFIG_MAP)


def retry_in_cluster(
    store: BatchStore,
    name: str,
    ids: Sequence[str],
    options: ShotOptions = NO_OPTIONS,
    *,
    workers: int = 0,
) -> Submitted:
    """Let shots of a batch begin anew in its cluster; without ids, all in TO_RETRY.

    Args:
        store: store of batches.
        name: name of the batch.
        ids: shots that are named.
        options: options of the one named shot, which `check_options` has checked. If the cluster refuses, they hold for the next
            retry.
        workers: pods at the same time; 0: as the batch was sent.

    See `KubernetesEngine.retry`.
    """
    from gateway.batch.kubernetes import open_engine_of

    engine = open_engine_of(store.facts(name))
    store.keep_videos(name, to_retry(store, name, ids))
    if options.ListFields():
        store.set_options(name, ids[0], options)
    return engine.retry(store, name, tuple(ids), workers=workers)


def remove(store: BatchStore, name: str, *, force: bool = False) -> None:
    """Remove a batch whose shots have all ended: rows, records, pictures, earlier videos, and its Jobs in a cluster. Videos stay.

    Args:
        store: store of batches.
        name: name of the batch.
        force: a shot that is cancelled and still RUNNING counts as ended. The record of a shot whose worker was killed stays so.
            Only a person knows that no worker has the shot any more.

    Raises:
        BatchNotFoundError: there is no such batch.
        InvalidRequestError: shots are left, or a submission of the batch runs.
    """
    facts = store.facts(name)
    with batch_lease(store, name) if facts.engine == "local" else nullcontext():
        ask_cluster(store, facts)
        killed = store.cancelled(name) if force else frozenset()
        left = [one for one in store.left(name).values() if not (one.state is ShotState.RUNNING and one.id in killed)]
        if left:
            raise InvalidRequestError(
                Text(
                    "{left} shots of batch {name} have not ended: wait, or cancel the batch first; if their workers were killed, "
                    "cancel the batch and remove it by {remove} with {force}",
                    left=len(left),
                    name=name,
                    remove=Command("batch remove", name),
                    force=Option("force"),
                ),
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
