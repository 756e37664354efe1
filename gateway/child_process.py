"""Environment and limits of child processes, above all of those that open files of strangers.

This module imports the standard library only: such a process sets its limits before it loads a library that reads the files.
"""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

_ROOT: Final = str(Path(__file__).resolve().parents[1])
"""Folder that this package is imported from."""


_HARMLESS: Final = (
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "LC_MESSAGES",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONHOME",
    "PYTHONPYCACHEPREFIX",
    "TMPDIR",
    "TZ",
)
"""Variables that a process for files of strangers inherits: where programs, libraries and temporary files are, and the language."""


def child_environment() -> dict[str, str]:
    """Return the environment of a worker or server: everything of this process, and what the process needs to import the same."""
    return {**os.environ, "PYTHONPATH": _import_path()}


def bare_environment(**more: str) -> dict[str, str]:
    """Return the environment of a process that opens files of strangers: no settings, tokens, passwords or keys of this process.

    A library that such a file takes over finds nothing there that opens the database, the artefact store or another service.

    Args:
        more: further variables.
    """
    kept = {name: os.environ[name] for name in _HARMLESS if name in os.environ}
    return {**kept, "PYTHONPATH": _import_path(), **more}


def _import_path() -> str:
    return os.pathsep.join([_ROOT, *(entry for entry in sys.path if entry)])


def limit_process(memory_bytes: int, cpu_s: int) -> None:
    """Limit this process. It writes no core file, and ends before its parent if memory runs out.

    Args:
        memory_bytes: address space, bytes.
        cpu_s: processor time, seconds.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where a container's memory ends, this process goes before the gateway
