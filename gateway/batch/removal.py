"""Removal of old batches whose shots have all ended, and of the pictures of an erased person. Films stay. All functions block."""

from __future__ import annotations

import datetime
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import structlog

from gateway.batch.changes import remove
from gateway.batch.locks import WORKERS_FOLDER
from gateway.batch.store import BatchStore, open_batches
from gateway.batch.types import ENDED, BatchFacts
from gateway.settings import GatewaySettings
from services.common.errors import BatchNotFound, DubstageError

IsWorkedOn = Callable[[str], bool]
"""Returns whether a gateway works on the batch of a name, or will."""
_DAY_S: Final = 86400.0

_log = structlog.stdlib.get_logger("dubstage.batch")


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
    old = [batch for batch in facts if _unix_time(batch.created_at) < before]
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
    # The object goes with what it has read: a batch may have 100,000 records.
    store: BatchStore = open_batches(settings)
    try:
        records = store.records(batch.name)
    except BatchNotFound:
        return False
    return all(record.state in ENDED and _unix_time(record.ended_at) < before for record in records)


def _removed(settings: GatewaySettings, batch: BatchFacts, is_worked_on: IsWorkedOn) -> bool:
    """Remove a batch, and return whether the batch is gone. One that cannot be removed now is tried again by the next call."""
    try:
        if is_worked_on(batch.name):
            return False
        remove(settings, open_batches(settings), batch.name)
    except DubstageError as problem:
        _log.warning("batch_not_expired", batch=batch.name, reason=problem.reason, message=problem.message)
        return False
    _log.info("batch_expired", batch=batch.name, shots=batch.rows)
    return True


def _remove_logs(settings: GatewaySettings, before: float) -> None:
    for log in (settings.data_dir / WORKERS_FOLDER).glob("*.log"):
        with suppress(OSError):
            if log.stat().st_mtime < before:
                log.unlink()


def _unix_time(text: str) -> float:
    """Return the Unix time of an RFC 3339 time, seconds; 0: the text is empty, as of a shot that was cancelled before it began."""
    with suppress(ValueError):
        return datetime.datetime.fromisoformat(text).timestamp()
    return 0.0


PICTURE: Final = "batch picture"
"""Kind of the pictures of shots in receipts."""


class BatchPictures:
    """Pictures of people in the store of batches. All methods block.

    Rows and records stay: they hold the actor's id, paths and figures, and nothing of the person's footage. The films belong to
    whoever ordered the shots.

    Each method raises StorageRefused where the store refuses, BackendUnavailable where the store does not answer, and
    ArtefactCorrupt if a file of a batch is damaged.

    Args:
        store: the store of batches.
    """

    place = "pictures of batches"

    def __init__(self, store: BatchStore) -> None:
        self._store = store

    def forget(self, actor_id: str) -> Mapping[str, set[str]]:
        """Remove the pictures of all shots of an actor, and return their SHA-256, hexadecimal."""
        found: set[str] = set()
        for name, shots in self._shots(actor_id):
            found |= {hashlib.sha256(jpeg).hexdigest() for jpeg in self._store.thumbnails(name, shots).values()}
            self._store.remove_thumbnails(name, shots)
        return {PICTURE: found}

    def left(self, actor_id: str) -> tuple[int, Sequence[str]]:
        """Return the number of the actor's shots, and the pictures of them that are still there."""
        number, left = 0, []
        for name, shots in self._shots(actor_id):
            number += len(shots)
            left += [f"picture of shot {shot} of batch {name}" for shot in self._store.thumbnails(name, shots)]
        return number, left

    def _shots(self, actor_id: str) -> list[tuple[str, list[str]]]:
        found = [(name, [shot.id for shot in self._store.manifest(name) if shot.actor == actor_id]) for name in self._store.names()]
        return [(name, shots) for name, shots in found if shots]


def batch_pictures(settings: GatewaySettings) -> BatchPictures:
    """Return the pictures in the store of batches that the settings name."""
    return BatchPictures(open_batches(settings))
