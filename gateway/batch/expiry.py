"""Removal of old batches whose shots have all ended. Videos stay. All functions block."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from gateway.batch.changes import remove
from gateway.batch.store import BatchStore
from gateway.batch.types import WORKERS_FOLDER, BatchFacts
from gateway.settings import GatewaySettings
from gateway.times import DAY_S
from services.common.errors import DubstageError

IsWorkedOn = Callable[[str], bool]
"""Returns whether a gateway works on the batch of a name, or will."""


def expire_batches(settings: GatewaySettings, store: BatchStore, is_worked_on: IsWorkedOn) -> list[str]:
    """Remove the batches that are older, or together larger, than the settings allow, and return their names.

    Batches with shots that have not ended stay, whatever their age. Logs of worker processes that are as old are removed too.

    Args:
        settings: limits, and the data folder with the logs.
        store: store of batches.
        is_worked_on: says which batches must stay.

    Raises:
        DubstageError: the store of batches cannot be used.
    """
    removed = []
    if settings.batch_max_age_days:
        before = time.time() - settings.batch_max_age_days * DAY_S
        removed = [facts.name for facts in store.ended_before(before) if _removed(store, facts, is_worked_on)]
        _remove_logs(settings, before)
    if settings.batches_max_bytes:
        sizes = store.sizes_bytes()
        over = sum(sizes.values()) - settings.batches_max_bytes
        for facts in store.ended_before(time.time() + DAY_S):
            if over <= 0:
                break
            if _removed(store, facts, is_worked_on):
                removed.append(facts.name)
                over -= sizes[facts.name]
    return removed


def _removed(store: BatchStore, batch: BatchFacts, is_worked_on: IsWorkedOn) -> bool:
    """Remove a batch, and return whether the batch is gone. One that cannot be removed now is tried again by the next call."""
    # Imported here: commands that show a batch log nothing.
    import structlog

    log = structlog.stdlib.get_logger("dubstage.batch")
    try:
        if is_worked_on(batch.name):
            return False
        remove(store, batch.name)
    except DubstageError as problem:
        log.warning("batch_not_expired", batch=batch.name, reason=problem.reason, message=problem.message)
        return False
    log.info("batch_expired", batch=batch.name, shots=batch.rows)
    return True


def _remove_logs(settings: GatewaySettings, before: float) -> None:
    for log in (settings.data_dir / WORKERS_FOLDER).glob("*.log"):
        with suppress(OSError):
            if log.stat().st_mtime < before:
                log.unlink()
