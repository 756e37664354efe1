"""Runners and work for tests of `OperationRunner`."""

from __future__ import annotations

import asyncio

from google.rpc import status_pb2

from gateway.operations.execution import BegunOperation, Handler
from gateway.operations.runner import OperationRunner
from gateway.operations.store import OperationRecord, OperationStore
from services.common.errors import DubstageError
from services.common.server import error_status


def runner(store: OperationStore, handler: Handler, *, concurrent: int = 1, queued: int = 4) -> OperationRunner:
    return OperationRunner(store, {"work": handler}, max_concurrent=concurrent, max_queued=queued)


def error_of(record: OperationRecord) -> DubstageError:
    assert record.error is not None
    found = error_status.from_status(status_pb2.Status.FromString(record.error))
    assert found is not None
    return found


async def echo(operation: BegunOperation) -> bytes:
    operation.report(b"half")
    return b"answer to " + operation.record.request


async def for_ever(operation: BegunOperation) -> bytes:
    await asyncio.sleep(3600)
    return b""
