"""Batches as callers of a gateway see them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.api.batch_jobs import outputs_of
from gateway.batch.current import current_records
from gateway.batch.progress import Progress, progress_of
from gateway.batch.store import BatchStore, open_batches
from gateway.batch.types import BatchFacts, ShotRecord
from gateway.operations.store import OperationStore
from gateway.settings import GatewaySettings

_KEPT_STORES: Final = 4


@dataclass(frozen=True, slots=True)
class BatchView:
    """A batch at one moment.

    Attributes:
        facts: what the batch is.
        records: records of all shots in the order of the rows.
        progress: progress of the batch.
        notes: why something waits, for a person.
    """

    facts: BatchFacts
    records: Sequence[ShotRecord]
    progress: Progress
    notes: tuple[str, ...]


class BatchViews:
    """Looks at the batches in the store that all gateways share. All methods block, and may be called from any thread.

    Args:
        settings: settings of the process.
        operations: the operations behind batches.
    """

    def __init__(self, settings: GatewaySettings, operations: OperationStore) -> None:
        self._settings = settings
        self._operations = operations
        # A store keeps what it has read, so that a further look reads what has changed.
        self._stores: OrderedDict[tuple[str, str, str], BatchStore] = OrderedDict()
        self._turn = threading.Lock()

    def facts(self) -> list[BatchFacts]:
        """Return the facts of all batches, sorted by name."""
        return open_batches(self._settings).batches()

    def store(self, name: str) -> tuple[BatchStore, BatchFacts]:
        """Return a store that serves one batch, and the facts of the batch.

        Raises:
            BatchNotFound: there is no such batch.
            DubstageError: the store of batches cannot be used.
        """
        store = open_batches(self._settings)
        facts = store.facts(name)
        # A batch that was removed and made again is another batch.
        key = (name, facts.manifest_sha256, facts.created_at)
        with self._turn:
            kept = self._stores.setdefault(key, store)
            self._stores.move_to_end(key)
            while len(self._stores) > _KEPT_STORES:
                self._stores.popitem(last=False)
        return kept, facts

    def view(self, name: str) -> BatchView:
        """Return a batch as it is now.

        Raises:
            BatchNotFound: there is no such batch.
            DubstageError: the store of batches cannot be used.
        """
        store, facts = self.store(name)
        records, notes = current_records(store, facts)
        progress = progress_of(records)
        if facts.engine == "gateway" and not progress.ended and not self.is_worked_on(name):
            notes = [*notes, "no gateway works on the shots that are left: submit the batch again"]
        return BatchView(facts, records, progress, tuple(notes))

    def is_worked_on(self, name: str) -> bool:
        """Return whether a gateway works on a batch, or will."""
        return self._operations.is_written(outputs_of(name))
