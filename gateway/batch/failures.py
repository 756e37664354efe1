"""What a shot's record says of an error."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import structlog

from gateway.unforeseen import machine_fault, write_traceback
from services.common.errors import BackendUnavailable, DubstageError, StorageFull, StorageRefused, Unexpected
from services.common.store.full_disk import FULL_DISK

_log = structlog.stdlib.get_logger("dubstage.batch")


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of a shot, as its record tells it.

    Attributes:
        message: what is wrong, in one or more sentences for a person. Never a traceback.
        exit_code: exit code of the error (services/common/errors.py).
        retryable: whether another attempt may succeed without a change by a person.
    """

    message: str
    exit_code: int
    retryable: bool = False


def failure_of(error: Exception) -> Failure:
    """Return what a record says of the error that is being handled.

    The traceback of an error of an unknown kind goes to a temporary file and to the log. The message names the file.
    """
    if isinstance(error, StorageFull):
        return _full(error.message)
    if isinstance(error, DubstageError):
        return Failure(error.message, error.exit_code, error.retryable)
    fault = machine_fault(error)
    file, text = write_traceback()
    _log.error("shot_failed", error=type(error).__name__, details=file, traceback=text)
    where = f"the details are in {file} on {socket.gethostname()}" if file else "the details are in the log of the worker"
    if fault is not None:
        message, full = f"{fault}; {where}", isinstance(error, OSError) and error.errno in FULL_DISK
        return _full(message) if full else Failure(message, StorageRefused.exit_code)
    return Failure(f"this should not happen, please report it; {where}", Unexpected.exit_code)


def _full(message: str) -> Failure:
    """Return the failure of a shot whose disk is full. For a single dub, a person has to make room. In a batch, another attempt may
    succeed: shots that end beside this one give their room back, and another worker may have more.
    """
    return Failure(message, BackendUnavailable.exit_code, retryable=True)
