"""Leases: one process at a time gives the shots of a batch to local workers, and one worker at a time has a shot.

A lease ends by the clock of the database. A thread renews the lease until its end. A process that dies renews nothing, and after
LEASE_S another process takes over.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, cast

from sqlalchemy import CursorResult, and_, select, update

from gateway.async_utilities import in_thread
from gateway.batch.store import BatchStore
from gateway.database.session import new_holder
from gateway.database.tables import BatchRow, BatchShotRow
from services.common.errors import BackendUnavailableError, BatchNotFoundError, DubstageError, InvalidRequestError
from services.common.texts import Command, Text

LEASE_S: Final = 15.0
"""Seconds that a lease lasts after its last renewal."""
RENEW_S: Final = 5.0
"""Seconds between two renewals."""
WAIT_S: Final = 1.0
"""Seconds between two tries while another process has the lease."""
_MOST_FAILURES: Final = 5
"""Most tries, one after the other, that the database may leave without an answer: many workers write to one SQLite file."""


class Lease:
    """Lease of a batch or of a shot. All methods block.

    Attributes:
        holder: name of the holder in the database.

    Args:
        store: store of batches.
        name: name of the batch.
        row: row of the shot; None: the lease is of the batch.
    """

    def __init__(self, store: BatchStore, name: str, row: int | None = None) -> None:
        self.holder = new_holder()
        self._store, self._name, self._database = store, name, store.database
        self._table: type[BatchRow] | type[BatchShotRow] = BatchRow if row is None else BatchShotRow
        self._mine = BatchRow.name == name if row is None else and_(BatchShotRow.batch == name, BatchShotRow.number == row)
        self._ended = threading.Event()

    def take(self) -> bool:
        """Take the lease, and return True; return False if another process has the lease.

        Raises:
            BatchNotFoundError: there is no such batch or row.
        """
        if self._update(self._table.held_until <= self._database.clock, holder=self.holder, until_s=LEASE_S):
            threading.Thread(target=self._renew, name="batch-lease", daemon=True).start()
            return True
        self.until()
        return False

    def until(self) -> float:
        """Return the end of the lease, Unix time in seconds by the clock of the database; 0: nobody has had the lease.

        Raises:
            BatchNotFoundError: there is no such batch or row.
        """
        with self._database.reading() as session:
            held_until = session.scalar(select(self._table.held_until).where(self._mine))
        if held_until is None:
            self._store.facts(self._name)
            raise BatchNotFoundError(f"batch {self._name} has no such row", resource=self._name)
        return held_until

    def release(self) -> None:
        """Let other processes take the lease. A lease that was not taken, or was removed with its batch, stays as it is."""
        self._ended.set()
        # Without an answer of the database, the lease ends by itself.
        with suppress(DubstageError):
            self._update(self._table.holder == self.holder, holder="", until_s=0.0)

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            with suppress(DubstageError):
                self._update(self._table.holder == self.holder, holder=self.holder, until_s=LEASE_S)

    def _update(self, condition: Any, *, holder: str, until_s: float) -> bool:
        until = self._database.clock + until_s if until_s else 0.0
        with self._database.writing() as session:
            changed = update(self._table).where(self._mine, condition).values(holder=holder, held_until=until)
            return bool(cast("CursorResult[Any]", session.execute(changed)).rowcount)


@contextmanager
def batch_lease(store: BatchStore, name: str) -> Iterator[None]:
    """Hold the lease of a batch, so that one process at a time gives its shots to workers. Blocks.

    Raises:
        BatchNotFoundError: there is no such batch.
        InvalidRequestError: another process runs the batch: it renews the lease.
    """
    lease = Lease(store, name)
    try:
        seen = lease.until()
        while not lease.take():
            if lease.until() != seen:
                raise InvalidRequestError(
                    Text(
                        "another {submit} runs batch {name}: follow it with {watch}, or wait until it has ended",
                        submit=Command("batch submit"),
                        name=name,
                        watch=Command("batch watch", name),
                    ),
                    field="name",
                )
            time.sleep(WAIT_S)
        yield
    finally:
        lease.release()


@asynccontextmanager
async def shot_lease(store: BatchStore, name: str, row: int) -> AsyncIterator[str]:
    """Wait until no other worker has a shot, hold the lease of the shot inside the block, and give the name of the holder.

    The worker that waited sees the record that the worker before has stored.

    Raises:
        BatchNotFoundError: there is no such batch or row.
        DubstageError: the database cannot be used.
    """
    lease = Lease(store, name, row)
    try:
        failures = 0
        while True:
            try:
                if await in_thread(lease.take):
                    break
                failures = 0
            except BackendUnavailableError:
                failures += 1
                if failures == _MOST_FAILURES:
                    raise
            await asyncio.sleep(WAIT_S)
        yield lease.holder
    finally:
        await in_thread(lease.release)
