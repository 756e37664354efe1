"""Run a command and measure it: wall clock, processor time, peak memory of its whole process tree."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_SAMPLE_S: Final = 0.05


class CommandFailedError(Exception):
    """The measured command ended with an error."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run.

    Attributes:
        wall_s: from start to exit, seconds.
        cpu_s: user and system seconds of the process and of all its children that ended before it.
        peak_memory_mib: highest sum of resident memory over the process and its children, sampled 20 times a second.
    """

    wall_s: float
    cpu_s: float
    peak_memory_mib: float


def tree_memory_mib(process: psutil.Process) -> float:
    """Resident memory of a process and all its children, MiB; those that end meanwhile count as nothing."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        try:
            total += int(member.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


def measure(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Measured:
    """Run a command to its end; what it prints goes to `log`.

    Raises:
        CommandFailedError: it ended with another code than 0; the message holds the end of the log.
    """
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment)
        peak = 0.0
        while True:
            # wait4 gives the processor time of exactly this process and its children; getrusage would add up all runs.
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                process.returncode = os.waitstatus_to_exitcode(status)
                break
            with contextlib.suppress(psutil.NoSuchProcess):
                peak = max(peak, tree_memory_mib(psutil.Process(process.pid)))
            time.sleep(_SAMPLE_S)
    wall = time.perf_counter() - started
    if process.returncode != 0:
        end = log.read_text(encoding="utf-8", errors="replace").strip()[-800:]
        raise CommandFailedError(f"{' '.join(command)} ended with code {process.returncode}:\n{end}")
    # ru_maxrss is not used: it starts at the size of the process that forked.
    return Measured(wall, usage.ru_utime + usage.ru_stime, peak)
