"""Changes of a batch that a person asks for, the same for the command line and for a gateway. All functions block.

The store of batches is no database, so an entry of the audit log follows the change that it records.

Removal of old batches whose shots have all ended, and of the pictures of an erased person. Videos stay. All functions block.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Final, Literal

from dubstage.gateway.v1.dub_pb2 import ShotOptions
from gateway.audit.entries import AuditEvent, EventKind, batch_work
from gateway.batch.index import BatchIndex, ListedShot
from gateway.batch.locks import WORKERS_FOLDER, batch_lock
from gateway.batch.records import unix_time
from gateway.batch.reviews import Decision
from gateway.batch.store import BatchStore, Engine, open_batches
from gateway.batch.types import ENDED, TO_RETRY, BatchFacts, Manifest, ShotRecord, ShotSpec, ShotState
from gateway.dub.request.spec_text import CHANGEABLE, option_words
from gateway.settings import GatewaySettings
from services.common.errors import BatchNotFoundError, DubstageError, InvalidRequestError
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
    settings: GatewaySettings,
    change: Literal["cancelled", "retried", "removed", "delivered", "posted"],
    name: str,
    ids: Sequence[str] = (),
    options: ShotOptions = NO_OPTIONS,
) -> None:
    """Write the entry for a command that changes a batch.

    Args:
        settings: settings of the command.
        change: what the command does.
        name: name of the batch.
        ids: shots that were named; none: all.
        options: options of the one shot that were changed.
    """
    _record(settings, batch_event(EventKind(f"batch.{change}"), name, ids, options=options))


def record_review(settings: GatewaySettings, name: str, decision: Decision) -> None:
    """Write the entry for a decision of a command."""
    _record(settings, review_event(name, decision))


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


def record_submission(settings: GatewaySettings, facts: BatchFacts) -> None:
    """Write the entry for a batch that a command submits."""
    _record(settings, submission(facts))


def submission(facts: BatchFacts) -> AuditEvent:
    """Return the entry for a batch that is submitted."""
    return batch_event(EventKind.BATCH_SUBMITTED, facts.name, rows=facts.rows, manifest_sha256=facts.manifest_sha256)


def _record(settings: GatewaySettings, event: AuditEvent) -> None:
    # Imported here: commands that show a batch need no database.
    from gateway.actors.store import ActorStore

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
        return store.records(facts.name), [Text("the cluster was not asked: {error}", error=error)]
    return list(snapshot.records), list(snapshot.notes)


def current_record(store: BatchStore, facts: BatchFacts, shot_id: str) -> ShotRecord:
    """Return the record of one shot, with what the cluster knows. Blocks.

    Raises:
        BatchNotFoundError: there is no such shot.
        DubstageError: the store of batches cannot be used.
    """
    found = store.record(facts.name, shot_id)
    if facts.engine != "kubernetes" or found.state in ENDED:
        return found
    return next(record for record in current_records(store, facts)[0] if record.id == shot_id)


def current_shots(index: BatchIndex, store: BatchStore, facts: BatchFacts) -> tuple[Sequence[ListedShot], Sequence[str]]:
    """Return all shots of a batch in the order of the rows, with what the cluster knows, and notes for a person. Blocks.

    Args:
        index: index of the batch.
        store: store for whole records, which are read only while a cluster has shots left.
        facts: facts of the batch.

    Raises:
        DubstageError: the store of batches cannot be used.
    """
    shots = index.shots()
    if facts.engine != "kubernetes" or all(shot.facts.state in ENDED for shot in shots):
        return shots, []
    # The engine compares whole records with the cluster, and stores those that it changes.
    _, notes = current_records(store, facts)
    return index.shots(), notes


def is_left(index: BatchIndex) -> bool:
    """Return whether the records of a batch say that shots are left.

    Raises:
        BatchNotFoundError: there is no such batch.
        DubstageError: the store of batches cannot be used.
    """
    return any(shot.facts.state not in ENDED for shot in index.shots())


def is_left_to_cluster(index: BatchIndex, store: BatchStore, name: str) -> bool:
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
        return is_left(index)
    left = sum(record.state not in ENDED for record in snapshot.records)
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
        return
    state_by_id = {shot.id: shot.facts.state for shot in BatchIndex(store, name).shots()}
    store.cancel(name, [one for one in ids or state_by_id if state_by_id.get(one) not in ENDED])


def to_retry(store: BatchStore, name: str, ids: Sequence[str]) -> list[str]:
    """Return the shots that a retry lets begin anew: `ids`, or all in TO_RETRY.

    Raises:
        BatchNotFoundError: there is no such batch or shot.
        InvalidRequestError: a named shot is running.
    """
    if not ids:
        return [shot.id for shot in BatchIndex(store, name).shots() if shot.facts.state in TO_RETRY]
    marked = store.cancelled(name)
    for record in store.records_of(name, ids):
        if record.state is ShotState.RUNNING and record.id not in marked:
            raise InvalidRequestError(f"shot {record.id} is running by {record.worker}: wait, or cancel it first", field="id")
    return list(ids)


def check_options(store: BatchStore, name: str, ids: Sequence[str], options: ShotOptions, method_of: MethodOf) -> ShotOptions:
    """Return options for the one shot that a retry names, after the checks of a manifest's row.

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
        return options
    if len(ids) != 1:
        raise InvalidRequestError(f"name the one shot that takes them, not {len(ids) or 'all'}", field="options", named=True)
    shot, record = store.shot(name, store.row_of(name, ids[0])), current_record(store, store.facts(name), ids[0])
    if record.state not in ENDED:
        raise InvalidRequestError(f"shot {shot.id} is {record.state}: wait until it has ended, or cancel it first", field="id")
    # Imported here: commands that show a batch check no rows.
    from gateway.batch.manifest import option_mistakes

    if mistakes := option_mistakes({1: shot.with_options(options)}, method_of):
        wrong = mistakes[0]
        field = f"options.{wrong.field}" if wrong.field in CHANGEABLE else wrong.field
        raise InvalidRequestError(f"{wrong.field}: {wrong.text}", field=field, reasons=[wrong.reason])
    return options


def begin_anew(
    settings: GatewaySettings,
    store: BatchStore,
    name: str,
    ids: Sequence[str],
    options: ShotOptions = NO_OPTIONS,
) -> list[str]:
    """Let shots of a batch wait again, and return their ids; without ids, all in TO_RETRY. Their videos are kept.

    Args:
        settings: settings of the process.
        store: store of batches.
        name: name of the batch.
        ids: shots that are named.
        options: what `check_options` returned: options of the one named shot.

    Raises:
        BatchNotFoundError: there is no such batch or shot.
        InvalidRequestError: a named shot is running, or a submission of the batch runs on this machine.
    """
    chosen = to_retry(store, name, ids)
    # A submission that runs now has its list of shots, and would not see that some begin anew.
    with batch_lock(settings, store, name) if store.facts(name).engine == "local" else nullcontext():
        store.keep_videos(name, chosen)
        if options.ListFields():
            # The options come first: the worker that finds the new record reads them.
            store.set_options(name, chosen[0], options)
        store.reset(name, chosen)
    return chosen


def revise(settings: GatewaySettings, store: BatchStore, manifest: Manifest, engine: Engine) -> list[str]:
    """Let a batch take over the changed rows of a manifest, and return the ids of the shots that begin anew for it.

    See `BatchStore.revise`.

    Raises:
        InvalidRequestError: the changed rows cannot be taken over, or a submission of the batch runs on this machine.
    """
    before = store.find(manifest.name)
    if before is None or before.engine != engine or before.manifest_sha256 == manifest.sha256:
        return []
    is_local = engine == "local"
    with batch_lock(settings, store, manifest.name) if is_local else nullcontext():
        return store.revise(manifest, is_idle=is_local)


def check_for_cluster(store: BatchStore, shots: Sequence[ShotSpec], *, profile: str, config_map: str) -> None:
    """Check that pods of the cluster that this process runs in can work on shots. See `KubernetesEngine.check`."""
    from gateway.batch.kubernetes import open_engine

    open_engine().check(shots, store, profile=profile, config_map=config_map)


def send_to_cluster(store: BatchStore, name: str, *, profile: str, workers: int, config_map: str) -> None:
    """Send the shots of a batch that are left to the cluster that this process runs in. See `KubernetesEngine.submit`."""
    from gateway.batch.kubernetes import open_engine

    open_engine().submit(store, name, profile=profile, workers=workers, config_map=config_map)


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
        options: what `check_options` returned: options of the one named shot. If the cluster refuses, they hold for the next retry.
        workers: pods at the same time; 0: as the batch was sent.

    See `KubernetesEngine.retry`.
    """
    from gateway.batch.kubernetes import open_engine_of

    engine = open_engine_of(store.facts(name))
    store.keep_videos(name, to_retry(store, name, ids))
    if options.ListFields():
        store.set_options(name, ids[0], options)
    return engine.retry(store, name, tuple(ids), workers=workers)


def remove(settings: GatewaySettings, store: BatchStore, name: str, *, force: bool = False) -> None:
    """Remove a batch whose shots have all ended: rows, records, pictures, earlier videos, and its Jobs in a cluster. Videos stay.

    A removal that was cut is completed.

    Args:
        settings: settings of the command or of the gateway.
        store: store of batches.
        name: name of the batch.
        force: a shot that is cancelled and still RUNNING counts as ended. The record of a shot whose worker was killed stays so.
            Only a person knows that no worker has the shot any more.

    Raises:
        BatchNotFoundError: there is no such batch.
        InvalidRequestError: shots are left, or a submission of the batch runs on this machine.
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
        shots, _ = current_shots(BatchIndex(store, name), store, facts)
        killed = _cancelled_and_running(shots, store.cancelled(name)) if force else 0
        left = sum(shot.facts.state not in ENDED for shot in shots) - killed
        if left:
            raise InvalidRequestError(
                Text(
                    "{left} shots of batch {name} have not ended: wait, or cancel the batch first; if their workers were killed, "
                    "cancel the batch and remove it by {remove} with {force}",
                    left=left,
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


def _cancelled_and_running(shots: Sequence[ListedShot], marked: Collection[str]) -> int:
    return sum(shot.facts.state is ShotState.RUNNING and shot.id in marked for shot in shots)


IsWorkedOn = Callable[[str], bool]
"""Returns whether a gateway works on the batch of a name, or will."""
_DAY_S: Final = 86400.0


def expire_batches(settings: GatewaySettings, is_worked_on: IsWorkedOn) -> list[str]:
    """Remove the batches that are older, or together larger, than the settings allow, and return their names.

    Batches with shots that have not ended stay, whatever their age. Logs of worker processes that are as old are removed too.

    Args:
        settings: store of batches and limits.
        is_worked_on: says which batches must stay.

    Raises:
        DubstageError: the store of batches cannot be used.
    """
    facts = sorted(open_batches(settings).batches(), key=lambda batch: (batch.created_at, batch.name))
    removed = []
    if settings.batch_max_age_days:
        before = time.time() - settings.batch_max_age_days * _DAY_S
        removed = _remove_old(settings, facts, is_worked_on, before)
        _remove_logs(settings, before)
    if settings.batches_max_bytes:
        left = [batch for batch in facts if batch.name not in removed]
        removed += _remove_over(settings, left, is_worked_on, settings.batches_max_bytes)
    return removed


def _remove_old(settings: GatewaySettings, facts: Sequence[BatchFacts], is_worked_on: IsWorkedOn, before: float) -> list[str]:
    # A batch cannot have ended before it was made: most batches need no further look.
    old = [batch for batch in facts if unix_time(batch.created_at) < before]
    return [batch.name for batch in old if _ended_before(settings, batch, before) and _removed(settings, batch, is_worked_on)]


def _remove_over(settings: GatewaySettings, facts: Sequence[BatchFacts], is_worked_on: IsWorkedOn, most: int) -> list[str]:
    """Remove batches that have ended, the oldest first, until all together take at most so many bytes."""
    store = open_batches(settings)
    sizes = {batch.name: store.size_bytes(batch.name) for batch in facts}
    over, removed = sum(sizes.values()) - most, []
    for batch in facts:
        if over <= 0:
            break
        if _ended_before(settings, batch, time.time() + _DAY_S) and _removed(settings, batch, is_worked_on):
            removed.append(batch.name)
            over -= sizes[batch.name]
    return removed


def _ended_before(settings: GatewaySettings, batch: BatchFacts, before: float) -> bool:
    """Return whether all shots of a batch ended before a time, Unix time in seconds."""
    if batch.removing:
        return True
    # The objects go with what they have read: a batch may have 100,000 shots.
    try:
        shots = BatchIndex(open_batches(settings), batch.name).shots()
    except BatchNotFoundError:
        return False
    return all(shot.facts.state in ENDED and shot.facts.ended_s < before for shot in shots)


def _removed(settings: GatewaySettings, batch: BatchFacts, is_worked_on: IsWorkedOn) -> bool:
    """Remove a batch, and return whether the batch is gone. One that cannot be removed now is tried again by the next call."""
    # Imported here: commands that show a batch log nothing.
    import structlog

    log = structlog.stdlib.get_logger("dubstage.batch")
    try:
        if is_worked_on(batch.name):
            return False
        remove(settings, open_batches(settings), batch.name)
    except DubstageError as problem:
        log.warning("batch_not_expired", batch=batch.name, reason=problem.reason, message=problem.message)
        return False
    log.info("batch_expired", batch=batch.name, shots=batch.rows)
    return True


def files_of_waiting_shots(settings: GatewaySettings) -> set[str]:
    """Return the locations that the shots of all batches name which have not ended.

    Raises:
        DubstageError: the store of batches cannot be used.
    """
    found: set[str] = set()
    for batch in open_batches(settings).batches():
        # The objects go with what they have read: a batch may have 100,000 shots.
        store = open_batches(settings)
        try:
            shots = BatchIndex(store, batch.name).shots()
            left = store.shots(batch.name, [row for row, shot in enumerate(shots) if shot.facts.state not in ENDED])
        except BatchNotFoundError:
            continue
        for shot in left:
            found.update(shot.places.values())
    return found


def _remove_logs(settings: GatewaySettings, before: float) -> None:
    for log in (settings.data_dir / WORKERS_FOLDER).glob("*.log"):
        with suppress(OSError):
            if log.stat().st_mtime < before:
                log.unlink()


PICTURE: Final = "batch picture"
"""Kind of the pictures of shots in receipts."""
EARLIER: Final = "earlier video"
"""Kind of the videos that retries have replaced in receipts."""


class BatchPictures:
    """Pictures and earlier videos of people in the store of batches. All methods block.

    Rows and records stay: they hold the actor's id, paths and figures, and nothing of the person's footage. The videos belong to
    whoever ordered the shots.

    Each method raises StorageRefusedError where the store refuses, BackendUnavailableError where the store does not answer, and
    ArtefactCorruptError if a file of a batch is damaged.

    Args:
        store: the store of batches.
    """

    place = "pictures of batches"

    def __init__(self, store: BatchStore) -> None:
        self._store = store

    def forget(self, actor_id: str) -> Mapping[str, set[str]]:
        """Remove pictures and earlier videos of all shots of an actor, and return their SHA-256 by kind, hexadecimal."""
        found: set[str] = set()
        videos: set[str] = set()
        for name, shots in self._shots(actor_id):
            videos |= {video.sha256 for video in self._store.all_earlier(name, shots).values()}
            self._store.remove_earlier(name, shots)
            found |= {hashlib.sha256(jpeg).hexdigest() for jpeg in self._store.thumbnails(name, shots).values()}
            self._store.remove_thumbnails(name, shots)
        return {PICTURE: found, **({EARLIER: videos} if videos else {})}

    def left(self, actor_id: str) -> tuple[int, Sequence[str]]:
        """Return the number of the actor's shots, and their pictures and earlier videos that are still there."""
        number, left = 0, []
        for name, shots in self._shots(actor_id):
            number += len(shots)
            left += [f"picture of shot {shot} of batch {name}" for shot in self._store.thumbnails(name, shots)]
            left += [f"earlier video of shot {shot} of batch {name}" for shot in self._store.all_earlier(name, shots)]
        return number, left

    def _shots(self, actor_id: str) -> list[tuple[str, list[str]]]:
        found = [
            (name, [shot.id for shot in self._store.manifest(name) if actor_id in shot.actor_ids]) for name in self._store.names()
        ]
        return [(name, shots) for name, shots in found if shots]


def batch_pictures(settings: GatewaySettings) -> BatchPictures:
    """Return the pictures in the store of batches that the settings name."""
    return BatchPictures(open_batches(settings))
