"""Cost of a method on one clip: time to learn the person, time per frame, and memory.

Times are wall time, so they hold for the machine, its load, and the settings of threads. Peak memory is the largest resident set of
this process while it enrols and while it renders `full`. The process includes the stages unless they run behind gRPC, and it holds
the pictures of the clip that the evaluation compares with.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.evaluation.types import COSTS

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
_RESET_PEAK: Final = "5"
_KIB: Final = 1024.0


class CostMeter:
    """Stopwatch of the enrolments and of the variant `full` of one clip."""

    def __init__(self) -> None:
        self._enrolments: list[float] = []
        self._render_s = 0.0
        self._frames = 0
        self._peak_mib = float("nan")

    @contextmanager
    def enrolling(self) -> Iterator[None]:
        """Measure one enrolment with all that it adapts."""
        begin = self._begin()
        yield
        self._enrolments.append(self._seconds_since(begin))

    @contextmanager
    def rendering(self, num_frames: int) -> Iterator[None]:
        """Measure frames of `full`: motion, texture and renderer; 0 frames: not measured."""
        if not num_frames:
            yield
            return
        begin = self._begin()
        yield
        self._render_s += self._seconds_since(begin)
        self._frames += num_frames

    def figures(self) -> dict[str, float]:
        """Return COSTS: mean seconds an enrolment, milliseconds a frame of `full`, MiB; NaN where not measured."""
        values = (
            sum(self._enrolments) / len(self._enrolments) if self._enrolments else float("nan"),
            1000.0 * self._render_s / self._frames if self._frames else float("nan"),
            self._peak_mib,
        )
        return dict(zip(COSTS, values, strict=True))

    def _begin(self) -> float:
        _forget_peak()
        return time.perf_counter()

    def _seconds_since(self, begin: float) -> float:
        seconds = time.perf_counter() - begin
        # max() keeps its first argument if a comparison with NaN is false.
        self._peak_mib = max(_peak_mib(), self._peak_mib)
        return seconds


def _forget_peak() -> None:
    """Begin a new peak of the resident set. Where the kernel has no such file, the peak since the start of the process stays."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return


def _peak_mib() -> float:
    """Return the largest resident set, MiB; NaN where the kernel does not say it."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return float("nan")
    return int(found[1]) / _KIB if found else float("nan")
