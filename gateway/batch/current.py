"""What is known of a batch now: by its records, and by the cluster that dubs it."""

from __future__ import annotations

from gateway.batch.store import BatchStore
from gateway.batch.types import BatchFacts, ShotRecord
from services.common.errors import DubstageError


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
