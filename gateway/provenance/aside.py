"""Processes that call c2pa for this process, with bounds on memory and time.

c2pa reads manifests that strangers wrote. With a process of its own, the harm that a manifest does ends with that process.
This module loads no library that reads files: a process sets its limits before.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Collection
from typing import Final

from gateway.child_process import bare_environment, confine

MEMORY_BYTES: Final = 2 << 30
"""Address space of a process that calls c2pa, bytes. c2pa needs 0.6 GB of it for a film of any length."""
_BYTES_PER_S: Final = 2_000_000
"""Slowest rate at which files are read before the process is ended."""


def limit_s(base_s: float, handles: Collection[int]) -> float:
    """Return the longest time of a process that reads some files, seconds.

    Args:
        base_s: seconds for everything besides the content of the files.
        handles: descriptors of the files.
    """
    return base_s + sum(os.fstat(handle).st_size for handle in handles) / _BYTES_PER_S


def ask_aside(
    module: str, request: bytes, handles: Collection[int], *, limit_s: float, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Start a module as a process, and return how the process ended and what it printed. Blocks.

    Args:
        module: dotted name of the module. It calls `begin` before anything else.
        request: standard input of the process.
        handles: descriptors that the process inherits.
        limit_s: longest time of the process, seconds.
        environment: further variables.

    Raises:
        subprocess.TimeoutExpired: the process took longer. It was ended.
    """
    return subprocess.run(
        [sys.executable, "-S", "-P", "-m", module, str(math.ceil(limit_s))],
        input=request,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=tuple(handles),
        start_new_session=True,  # Ctrl-C goes to the parent alone, which waits for the short rest
        env=bare_environment(**environment),
        timeout=limit_s,
        check=False,
    )


def begin() -> None:
    """Set the limits of this process, which `ask_aside` started."""
    # The bound on processor time ends this process where the parent, which bounds the time on the clock, has died.
    confine(MEMORY_BYTES, int(sys.argv[1]))
    # c2pa looks up its own version among all installed packages, half of this process's time, and works without the answer.
    sys.modules["importlib.metadata"] = None  # type: ignore[assignment]
