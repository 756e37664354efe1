"""What processes for files of strangers share: how they find this package, and the limits that they set for themselves.

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


def child_environment(**more: str) -> dict[str, str]:
    """Return the environment of a process that imports what this process imports.

    Args:
        more: further variables.
    """
    return {**os.environ, "PYTHONPATH": os.pathsep.join([_ROOT, *(entry for entry in sys.path if entry)]), **more}


def confine(memory_bytes: int, cpu_s: int) -> None:
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
