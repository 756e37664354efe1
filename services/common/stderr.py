"""Standard error of a process that libraries write notes to."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

_LOCK: Final = threading.Lock()
"""Held while file descriptor 2 is silenced, and while a line is written that must be seen."""
_WAIT_S: Final = 10.0
"""Longest wait for the end of a silence. MediaPipe's networks load in one or two seconds."""


@contextmanager
def shown_stderr() -> Iterator[None]:
    """Wait until no thread silences file descriptor 2, and let none begin inside the block. After 10 s the block runs anyway."""
    held = _LOCK.acquire(timeout=_WAIT_S)
    try:
        yield
    finally:
        if held:
            _LOCK.release()


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Silence file descriptor 2 inside the block: MediaPipe's C++ code writes start-up notes there at any log level.

    A `sys.stderr` that writes elsewhere (notebooks, tests) is replaced. Another thread may replace `sys.stderr` at the same time:
    what the other thread sets stays. One block at a time: overlapping blocks would restore each other's descriptor.
    """
    with _LOCK:
        # Never closed: another thread may keep it for a while.
        shown, unread = sys.stderr, io.StringIO()
        saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            if not _is_descriptor_2(shown):
                sys.stderr = unread
            yield
        finally:
            if sys.stderr is unread:
                sys.stderr = shown
            os.dup2(saved, 2)
            os.close(saved)
            os.close(nowhere)


def send_log_to_stderr(level: str) -> None:
    """Send the log lines from `level` on to stderr. structlog otherwise writes all to stdout, among the results of a program."""
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # `sys.stderr` of the moment: MediaPipe's start replaces it for a while.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


@contextmanager
def log_lines_on_stderr(level: str) -> Iterator[None]:
    """Send the log lines of the block to stderr: those from `level` on. Afterwards the log is as before."""
    import structlog

    before = structlog.get_config() if structlog.is_configured() else None
    send_log_to_stderr(level)
    try:
        yield
    finally:
        structlog.reset_defaults()
        if before is not None:
            structlog.configure(**before)


def _is_descriptor_2(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 2
    except ValueError:  # not a file, or closed
        return False
