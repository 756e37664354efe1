"""Reads timelines and dubbing scripts in a separate process with bounds on memory and time (reading_child.py).

Programs of strangers write these files. OpenTimelineIO crashes at deeply nested brackets and at fields of other types, and a small
file can take much memory or time. The harm ends with the process.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from gateway.child_process import bare_environment
from gateway.safe_paths import open_regular_file
from services.common.errors import InvalidRequestError

_MEMORY_BYTES: Final = 3 << 30
"""Address space of the process, bytes."""
_BASE_S: Final = 60
"""Seconds of the process for everything besides the content of the file."""
_BYTES_PER_S: Final = 500_000
"""Slowest rate at which a file is read."""
OUT_OF_MEMORY: Final = 12
"""Exit status of a process that reached its bound of memory."""
REMEDY: Final = "export the file again from the program that made it"

Kind = Literal["timeline", "script"]
"""Kind of a file, which is the field of errors too."""


def read_in_process(kind: Kind, path: Path, question: Mapping[str, Any], *, most_bytes: int) -> dict[str, Any]:
    """Return what a process reads from a file. Blocks.

    Args:
        kind: kind of the file.
        path: the file.
        question: what the process needs to know, as JSON values.
        most_bytes: largest file, bytes.

    Raises:
        InvalidRequestError: the file cannot be read, is larger, is refused, or takes more memory or time than is allowed. The
            message names the file.
    """
    try:
        file = open_regular_file(path)
    except OSError as problem:
        raise _wrong(kind, path, f"cannot be read: {problem.strerror or problem}") from problem
    except ValueError as problem:
        raise _wrong(kind, path, "cannot be read: its name has a NUL byte") from problem
    with file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise _wrong(kind, path, f"cannot be read: larger than {most_bytes >> 20} MiB, the most that is read")
        answer = _answer(kind, path, file.fileno(), question, math.ceil(_BASE_S + size / _BYTES_PER_S))
    if "refused" in answer:
        raise InvalidRequestError(answer["refused"], field=answer["field"])
    return answer


def _answer(kind: Kind, path: Path, handle: int, question: Mapping[str, Any], seconds: int) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "gateway.studio.reading_child", kind, *map(str, (handle, _MEMORY_BYTES, seconds))],
            input=json.dumps(question).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(handle,),
            start_new_session=True,  # Ctrl-C goes to the parent alone, which ends the process
            # Without these, address space is reserved for threads that are not used here.
            env=bare_environment(OPENBLAS_NUM_THREADS="1", MALLOC_ARENA_MAX="2"),
            # The process limits its own processor time to the same seconds, so that it ends even if its parent dies.
            timeout=seconds + 1,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _wrong(kind, path, f"reading it takes more than {seconds} s; {REMEDY}") from None
    if done.returncode == 0:
        return dict(json.loads(done.stdout))
    if done.returncode == OUT_OF_MEMORY:
        raise _wrong(kind, path, f"reading it takes more than {_MEMORY_BYTES >> 30} GiB of memory; {REMEDY}")
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise _wrong(kind, path, f"reading it takes more than {seconds} s, or more memory than there is; {REMEDY}")
    raise _wrong(kind, path, f"damaged: the library that reads it crashes; {REMEDY}")


def _wrong(kind: Kind, path: Path, problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"{path}: {problem}", field=kind)
