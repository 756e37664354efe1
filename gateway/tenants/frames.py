"""How many frames a tenant has had made within the last minute."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

MINUTE_S: Final = 60


class FrameMeter:
    """Frames by the second in which they were made, for one minute. Used from one event loop.

    Args:
        clock: returns the present time, seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds: deque[tuple[int, int]] = deque()
        self._total = 0

    def add(self, frames: int) -> None:
        """Count frames that were made now."""
        now = int(self._clock())
        if self._seconds and self._seconds[-1][0] == now:
            self._seconds.append((now, self._seconds.pop()[1] + frames))
        else:
            self._seconds.append((now, frames))
        self._total += frames
        self._forget(now)

    def last_minute(self) -> int:
        """Return the number of frames that were made within the last minute."""
        self._forget(int(self._clock()))
        return self._total

    def wait_s(self, limit: int) -> float:
        """Return the seconds until the last minute has fewer frames than `limit`; with a limit of 0: a minute."""
        now, left = int(self._clock()), self.last_minute()
        if left < limit:
            return 0.0
        for second, frames in self._seconds:
            left -= frames
            if left < limit:
                return float(second - now + MINUTE_S)
        return float(MINUTE_S)

    def _forget(self, now: int) -> None:
        while self._seconds and self._seconds[0][0] <= now - MINUTE_S:
            self._total -= self._seconds.popleft()[1]
