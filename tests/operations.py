"""Operations for tests of what reads and ends them."""

from __future__ import annotations

import sys

from gateway.database.session import Database
from gateway.operations.leases import OperationQueue
from gateway.operations.store import OperationRecord


def submitted(database: Database, kind: str, request: bytes, *, actor_id: str = "", output: str = "") -> OperationRecord:
    """Submit an operation to a gateway that has no free slot, and return the record of the operation, which waits."""
    queue = OperationQueue(database)
    new = queue.submit(kind, request, actor_id=actor_id, output=output, busy=(), free=0, most_waiting=sys.maxsize)
    return new.record
