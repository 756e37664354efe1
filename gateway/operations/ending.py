"""The error that an operation ends with, for its caller and for the log."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from services.common.chassis import error_status
from services.common.errors import Cancelled, ContractBroken, DubstageError, Unexpected

_log = structlog.stdlib.get_logger("dubstage.operations")

Rewrite = Callable[[DubstageError], DubstageError]
"""Turns an error into the error that callers may see."""


def error_of(error: BaseException | None, *, cancelled: bool, name: str, job_id: str, rewrite: Rewrite) -> bytes:
    """Return the serialised google.rpc.Status of an operation that failed or was cancelled, and log the error.

    Args:
        error: what the work raised; None: the work was cancelled.
        cancelled: whether somebody asked for the operation to stop.
        name: name of the operation.
        job_id: id of the operation in logs and traces.
        rewrite: turns the error into the error that callers may see.
    """
    if cancelled or not isinstance(error, Exception):
        found: DubstageError = Cancelled("the operation was cancelled")
    else:
        found = error_status.domain_error(error)
        if isinstance(found, Unexpected):
            # The caller gets the error id only. This line of the log has the error of the id.
            fields = {"error_id": found.error_id, "exc_info": found.__cause__ or error}
            _log.error("operation_failed", operation=name, job_id=job_id, reason=found.reason, **fields)
        elif isinstance(found, ContractBroken):
            _log.error("operation_failed", operation=name, job_id=job_id, reason=found.reason, exc_info=error)
        else:
            _log.info("operation_failed", operation=name, job_id=job_id, reason=found.reason, message=found.message)
    return bytes(error_status.to_status(rewrite(found), stage="gateway").SerializeToString())
