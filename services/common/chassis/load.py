"""How busy a queue and its workers were lately."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

WINDOW_SECONDS: Final = 60.0
"""Length of the ratio's window: long enough to be calm, short enough that an autoscaler sees a burst."""
LEAST_COMPUTED_SECONDS: Final = 1.0
"""Smallest divisor of a ratio, so that a few milliseconds of work in a quiet minute are no load."""
_SAMPLE_SECONDS: Final = 1.0


class Spent(NamedTuple):
    """Seconds of a window, summed over all work that waited and over all work that was computed."""

    waited_s: float
    computed_s: float

    @property
    def ratio(self) -> float:
        """Seconds waited per second computed; 0 where no work waited."""
        return self.waited_s / max(self.computed_s, LEAST_COMPUTED_SECONDS)


class Load:
    """Counts waiting and running work, and sums both over time. Safe for several threads.

    Work counts while it waits, not only after it was served: a queue that does not move shows at once.

    Args:
        clock: returns seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._queued = 0
        self._running = 0
        self._at = clock()
        self._total = Spent(0.0, 0.0)
        # Totals at earlier times: at most one per second, and one from before the window.
        self._history: deque[tuple[float, Spent]] = deque([(self._at, self._total)])

    @property
    def queued(self) -> int:
        """Amount of work that waits now."""
        return self._queued

    @property
    def running(self) -> int:
        """Amount of work that runs now."""
        return self._running

    def arrive(self) -> None:
        """Note that work began to wait."""
        self._change(queued=1)

    def give_up(self) -> None:
        """Note that waiting work left without having run."""
        self._change(queued=-1)

    def start(self) -> None:
        """Note that waiting work begins to run."""
        self._change(queued=-1, running=1)

    def finish(self) -> None:
        """Note that running work has ended."""
        self._change(running=-1)

    def lately(self) -> Spent:
        """Return the seconds waited and computed in the last WINDOW_SECONDS, or since the beginning where that is shorter."""
        with self._lock:
            now = self._clock()
            self._advance(now)
            begin = now - WINDOW_SECONDS
            (time_a, a), (time_b, b) = self._history[0], self._history[1] if len(self._history) > 1 else (now, self._total)
            share = min(1.0, max(0.0, (begin - time_a) / (time_b - time_a))) if time_b > time_a else 0.0
            before = Spent(a.waited_s + share * (b.waited_s - a.waited_s), a.computed_s + share * (b.computed_s - a.computed_s))
            return Spent(self._total.waited_s - before.waited_s, self._total.computed_s - before.computed_s)

    def _change(self, *, queued: int = 0, running: int = 0) -> None:
        with self._lock:
            self._advance(self._clock())
            self._queued += queued
            self._running += running

    def _advance(self, now: float) -> None:
        passed = now - self._at
        self._total = Spent(self._total.waited_s + self._queued * passed, self._total.computed_s + self._running * passed)
        self._at = now
        if now - self._history[-1][0] >= _SAMPLE_SECONDS:
            self._history.append((now, self._total))
        while len(self._history) > 1 and self._history[1][0] <= now - WINDOW_SECONDS:
            self._history.popleft()
