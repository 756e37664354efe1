"""Time that each stage of a dub took: filled by the pipeline, shown by reports and the bench."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StageTime:
    """Time spent in one stage.

    Attributes:
        name: such as "decode", "track", "motion", "render", "encode".
        wall_s: seconds from call to reply, summed over calls. Stages overlap, so their times add up to more than the whole.
        cpu_s: processor seconds of the stage, 0 if unknown.
        frames: frames that the stage answered, over all calls; 0 if it does not work by frames.
    """

    name: str
    wall_s: float
    cpu_s: float
    frames: int

    @property
    def ms_per_frame(self) -> float:
        """Return milliseconds per frame."""
        return 1000.0 * self.wall_s / self.frames if self.frames else 0.0

    @property
    def frames_per_second(self) -> float:
        """Return frames per second of this stage alone."""
        return self.frames / self.wall_s if self.wall_s > 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class StageTimes:
    """All times of one dub.

    Attributes:
        stages: in the order of the chain.
        frames: frames of the film.
        end_to_end_s: wall-clock seconds from the first packet read to the film's file closed, without personalisation.
        personalize_s: wall-clock seconds of making and personalising the actor; 0 if an actor was reused.
        cpu_s: processor seconds of the process over the whole run, personalisation included; 0 if unknown.
    """

    stages: tuple[StageTime, ...]
    frames: int
    end_to_end_s: float
    personalize_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Return wall-clock seconds of the whole run, personalisation included."""
        return self.end_to_end_s + self.personalize_s

    @property
    def frames_per_second(self) -> float:
        """Return frames per second from end to end, without personalisation."""
        return self.frames / self.end_to_end_s if self.end_to_end_s > 0.0 else 0.0


@dataclass(slots=True)
class _Sum:
    wall_s: float = 0.0
    cpu_s: float = 0.0
    frames: int = 0


@dataclass(slots=True)
class StageClock:
    """Sums of the time of stages. Stages may overlap and come from several threads."""

    _sums: dict[str, _Sum] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, *, wall_s: float, frames: int, cpu_s: float = 0.0) -> None:
        """Add one call of a stage."""
        with self._lock:
            known = self._sums.setdefault(name, _Sum())
            known.wall_s += wall_s
            known.cpu_s += cpu_s
            known.frames += frames

    @contextmanager
    def measure(self, name: str, frames: int) -> Iterator[None]:
        """Time a block; the processor time is that of the calling thread."""
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.add(name, wall_s=time.perf_counter() - wall, cpu_s=time.thread_time() - cpu, frames=frames)

    def stages(self) -> tuple[StageTime, ...]:
        """Return the times, in the order in which stages first reported."""
        with self._lock:
            return tuple(StageTime(name, s.wall_s, s.cpu_s, s.frames) for name, s in self._sums.items())
