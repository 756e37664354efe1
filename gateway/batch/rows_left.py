"""Which rows of a batch are left to dub, and when a row whose attempt failed is tried again."""

from __future__ import annotations

from typing import Final

from gateway.ahead import in_thread
from gateway.batch.store import BatchStore
from gateway.batch.types import ENDED, WRITTEN, ShotRecord
from gateway.batch.worker import film_fault

RETRY_S: Final = 3.0
"""Seconds before a second attempt; five times as long before a third."""


async def rows_left(store: BatchStore, name: str, *, check_films: bool) -> list[int]:
    """Return the rows of the shots that are to be dubbed.

    Args:
        store: store of batches.
        name: name of the batch.
        check_films: also return shots that are done and whose film is gone or was changed. Every film is read.

    Raises:
        DubstageError: the store of batches, or the place of a film, cannot be used.
    """
    shots, records = await in_thread(store.manifest, name), await in_thread(store.records, name)
    rows = []
    for row, (shot, record) in enumerate(zip(shots, records, strict=True)):
        spoiled = check_films and record.state in WRITTEN and await film_fault(shot, record)
        if record.state not in ENDED or spoiled:
            rows.append(row)
    return rows


def again_in_s(record: ShotRecord) -> float | None:
    """Return the seconds after which a shot is to be tried again; None: the shot has ended."""
    return None if record.state in ENDED else float(RETRY_S * 5 ** max(0, record.attempts - 1))
