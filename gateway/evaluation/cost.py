"""Cost of a method on one clip: time to learn the person, time per frame, memory, and size of the actor.

Wall time holds for the machine, its load, and the settings of threads. Processor time is that of this process with all its threads,
and hardly depends on the load. Peak memory is the largest resident set of
this process while it enrols and while it renders `full`. The process includes the stages unless they run behind gRPC, and it holds
the pictures of the clip that the evaluation compares with. Where the kernel cannot begin a new peak, the peak is not measured.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from gateway.evaluation.types import COSTS

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
_RESET_PEAK: Final = "5"
_KIB: Final = 1024.0


class _Spent(NamedTuple):
    """Wall time and processor time, seconds."""

    wall_s: float
    cpu_s: float


class _Begin(NamedTuple):
    """Clocks at the begin of what is measured, and whether a new peak of memory began there."""

    wall_s: float
    cpu_s: float
    new_peak: bool


class CostMeter:
    """Stopwatch of the enrolments and of the variant `full` of one clip."""

    def __init__(self) -> None:
        self._enrolments: list[_Spent] = []
        self._rendering = _Spent(0.0, 0.0)
        self._frames = 0
        self._peak_mib = float("nan")
        self._actor_bytes: list[int] = []

    def learned(self, num_bytes: int) -> None:
        """Count the bytes of an enrolled actor."""
        self._actor_bytes.append(num_bytes)

    @contextmanager
    def enrolling(self) -> Iterator[None]:
        """Measure one enrolment with all that it adapts."""
        begin = self._begin()
        yield
        self._enrolments.append(self._spent_since(begin))

    @contextmanager
    def rendering(self, num_frames: int) -> Iterator[None]:
        """Measure frames of `full`: motion, texture and renderer; 0 frames: not measured."""
        if not num_frames:
            yield
            return
        begin = self._begin()
        yield
        spent = self._spent_since(begin)
        self._rendering = _Spent(self._rendering.wall_s + spent.wall_s, self._rendering.cpu_s + spent.cpu_s)
        self._frames += num_frames

    def figures(self) -> dict[str, float]:
        """Return COSTS: means an enrolment (seconds), a frame of `full` (milliseconds), and MiB; NaN where not measured."""
        enrolments, frames = len(self._enrolments), self._frames
        values = (
            _share(sum(each.wall_s for each in self._enrolments), enrolments),
            _share(sum(each.cpu_s for each in self._enrolments), enrolments),
            _share(1000.0 * self._rendering.wall_s, frames),
            _share(1000.0 * self._rendering.cpu_s, frames),
            self._peak_mib,
            _share(sum(self._actor_bytes) / _KIB**2, len(self._actor_bytes)),
        )
        return dict(zip(COSTS, values, strict=True))

    def _begin(self) -> _Begin:
        new_peak = _forget_peak()
        return _Begin(time.perf_counter(), time.process_time(), new_peak)

    def _spent_since(self, begin: _Begin) -> _Spent:
        spent = _Spent(time.perf_counter() - begin.wall_s, time.process_time() - begin.cpu_s)
        if begin.new_peak:
            # max() keeps its first argument if a comparison with NaN is false.
            self._peak_mib = max(_peak_mib(), self._peak_mib)
        return spent


def _share(total: float, count: int) -> float:
    return total / count if count else float("nan")


def _forget_peak() -> bool:
    """Begin a new peak of the resident set. False: the kernel cannot, and its peak is that of all since the process began.

    Such a peak may be that of another clip or method. So it is no figure of this one.
    """
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _peak_mib() -> float:
    """Return the largest resident set, MiB; NaN where the kernel does not say it."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return float("nan")
    return int(found[1]) / _KIB if found else float("nan")
