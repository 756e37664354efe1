"""How slow the machine is now: time bounds of the campaign judge dubstage, and not the other work of the machine.

A thread measures, again and again, how much longer a fixed piece of work takes on the clock than on the processor. On a free
processor both are the same. Bounds grow by this factor.
"""

import hashlib
import threading
import time
from collections import deque
from typing import Final

EVERY_S: Final = 1.0
"""Seconds between two measurements."""
MOST: Final = 8.0
"""Largest factor: a machine that is slower yet is no machine for a campaign."""
_WORK: Final = bytes(8 << 20)
"""Content whose digest is the work of one measurement, about 10 ms of a processor. Hashing releases Python's lock, so that other
threads of the campaign do not count."""
_KEPT: Final = 3600
"""Measurements that are kept: an hour's."""
_RECENT_S: Final = 15.0


class Machine:
    """Measures the machine from the first question on."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._seen: deque[tuple[float, float]] = deque(maxlen=_KEPT)
        self._thread: threading.Thread | None = None

    def slowness(self, since: float | None = None) -> float:
        """Return how many times longer work takes than on a free machine, from 1 to MOST.

        Args:
            since: instant of `time.monotonic()` from which on measurements count; None: the last seconds.
        """
        self._begin()
        begin = time.monotonic() - _RECENT_S if since is None else since
        with self._turn:
            found = [factor for instant, factor in self._seen if instant >= begin] or [self._seen[-1][1]]
        # A stall is a bad moment of the machine, not a bad mean.
        return min(MOST, max(1.0, *found))

    def bound(self, seconds: float, since: float | None = None) -> float:
        """Return a time bound for the machine as it is now, seconds.

        Args:
            seconds: bound on a free machine.
            since: as for `slowness`.
        """
        return seconds * self.slowness(since)

    def _begin(self) -> None:
        with self._turn:
            if self._thread is not None:
                return
            self._seen.append((time.monotonic(), _factor()))
            self._thread = threading.Thread(target=self._measure, daemon=True)
            self._thread.start()

    def _measure(self) -> None:
        while True:
            time.sleep(EVERY_S)
            found = _factor()
            with self._turn:
                self._seen.append((time.monotonic(), found))


def _factor() -> float:
    begun, processor = time.monotonic(), time.thread_time()
    hashlib.sha256(_WORK).digest()
    return (time.monotonic() - begun) / max(1e-6, time.thread_time() - processor)


MACHINE: Final = Machine()
"""The machine of this process."""
